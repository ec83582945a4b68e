"""The card as one HTML page: no script, no network, its style inline."""

import base64
import hashlib
import html
import math

import numpy as np

from sparsecircuits.faithfulness.card.blocks import Block, Body, Paragraph, Section, Table
from sparsecircuits.faithfulness.card.body import body_of
from sparsecircuits.faithfulness.card.schema import CardData
from sparsecircuits.faithfulness.card.svg import Plot, powers, ticks

STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --faint: #d8dbe0; --paper: #fff; --one: #0072b2; --two: #d55e00;
  --null: #8a8f98; --good: #00724f; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --faint: #3c4149; --paper: #16181c; --one: #4aa8e0;
  --two: #ee7a2b; --null: #9aa0a8; --good: #2bbf97; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { border-left: 4px solid var(--null); padding: .4rem .9rem; } .verdict.good { border-color: var(--good); }
.verdict.bad { border-color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; }
th, td { border-bottom: 1px solid var(--faint); padding: .2rem .8rem .2rem 0; text-align: left;
  font-variant-numeric: tabular-nums; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif; }
text { fill: var(--ink); } .grid { stroke: var(--faint); } .level { stroke: var(--ink);
  stroke-dasharray: 4 3; opacity: .6; }
.note { opacity: .75; } .one { fill: none; stroke: var(--one); stroke-width: 2; }
.null { fill: none; stroke: var(--null); }
.nullband { fill: var(--null); opacity: .2; } circle.dot, rect.dot { fill: var(--one); stroke: none; }
circle.other, rect.other { fill: var(--two); fill-opacity: .55; stroke: none; } rect.nullbar { fill: var(--null); }
.whisker { stroke: var(--ink); stroke-width: 1.5; }
"""
LN2 = math.log(2)


def to_html(card: CardData) -> str:
    """The page: verdict and warnings, plots, then every table."""
    policy = f"default-src 'none'; style-src 'sha256-{_sha(STYLE)}'"
    title = html.escape(f"{card.task} in {card.model_name}: faithfulness card")
    plots = "".join(picture for draw in (_curve, _bars, _knockouts, _prompts) if (picture := draw(card)))
    body = body_of(card)
    parts = "\n".join([*map(_block, body.losses), *map(_section, body.sections)])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{STYLE}</style></head>\n'
        f"<body><main><h1>{_text(body.title)}</h1>\n"
        f'{_said(body)}\n<div class="plots">{plots}</div>\n{parts}\n</main></body></html>\n'
    )


def _sha(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(text: str) -> str:
    return html.escape(text, quote=False)


def _said(body: Body) -> str:
    """What stands before the plots."""
    verdict = (
        f'<p class="verdict {body.tone}"><strong>Verdict: {_text(body.verdict)}.</strong> '
        f"{_text(' '.join(body.reasons))}</p>"
    )
    warnings = "".join(f"<li><strong>{_text(text)}</strong></li>" for text in body.warnings)
    return "\n".join([_block(body.size), verdict, *([f"<ul>{warnings}</ul>"] if warnings else [])])


def _section(section: Section) -> str:
    return "\n".join([f"<h2>{_text(section.title)}</h2>", *map(_block, section.blocks)])


def _block(block: Block) -> str:
    return f"<p>{_text(block.text)}</p>" if isinstance(block, Paragraph) else _table(block)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in table.header)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    # A tab stop, so that the keyboard reaches the end of a wide table too.
    label = html.escape(", ".join(cell for cell in table.header if cell) or "table")
    return (
        f'<div class="scroll" role="group" aria-label="{label}" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _curve(card: CardData) -> str:
    """Loss against nodes: the circuit's nested sets, and the nulls as a band."""
    if card.curve is None:
        return ""
    pruned = card.nulls.nulls if card.nulls else ()
    nulls = [null for null in pruned if null.name != "random_nodes" and null.curve]
    curves = [[(nodes, loss) for nodes, _, loss in null.curve] for null in nulls]
    points = [(point.nodes, point.loss) for point in card.curve.points]
    most = max(nodes for nodes, _ in points)
    top = 1.05 * max(LN2, *(loss for line in (points, *curves) for _, loss in line))
    plot = Plot("Loss against size, with the null band", "nodes (log)", "loss (nats)", (0, most), (0, top), x_log=True)
    if curves:
        sizes = sorted({nodes for line in curves for nodes, _ in line})
        at = np.array([np.interp(sizes, [nodes for nodes, _ in line], [loss for _, loss in line]) for line in curves])
        plot.band(
            list(zip(sizes, at.max(axis=0), strict=True)), list(zip(sizes, at.min(axis=0), strict=True)), "nullband"
        )
        for null, line in zip(nulls, curves, strict=True):
            plot.line(line, "null", f"null: {null.name.replace('_', ' ')}")
    plot.line(points, "one", "the circuit's nested sets")
    for point in card.curve.points:
        plot.dot(point.nodes, point.loss, "dot", f"{point.nodes} nodes, {point.edges} edges: {point.loss:.4f}")
    plot.legend([("dot", "the circuit's nested sets"), *([("nullbar", "nulls")] if nulls else [])])
    plot.level(card.target_loss, "target")
    plot.level(LN2, "chance")
    return plot.svg(powers(most), ticks(top))


def _bars(card: CardData) -> str:
    """Sufficiency under each ablation, necessity, and random nodes."""
    bars: list[tuple[str, float | None, float | None, float | None, str]] = []
    short = {"mean": "mean", "zero": "zero", "resample_pair": "pair", "resample_random": "random"}
    for x in card.ablations:
        bars.append((short[x.ablation], x.loss.value, x.loss.low, x.loss.high, "dot"))
    needed = card.necessity_test
    bars.append(("circuit\nout", needed.ablated.value, needed.ablated.low, needed.ablated.high, "other"))
    bars.append(("random\nout", needed.random_mean, min(needed.random), max(needed.random), "nullbar"))
    bars.append(("whole\nmodel", card.losses.full_calibrated, None, None, "nullbar"))
    top = 1.1 * max(LN2, *(min(value or 0, 3 * LN2) for _, value, *_ in bars))
    plot = Plot(
        "Sufficiency (circuit alone, by ablation) and necessity", "what runs", "loss (nats)", (0, len(bars)), (0, top)
    )
    for place, (name, value, low, high, kind) in enumerate(bars):
        plot.bar(place + 0.15, place + 0.85, value or 0, kind, f"{name}: {value:.4f}".replace("\n", " "))
        if low is not None and high is not None:
            plot.whisker(place + 0.5, low, high)
        plot.x_label(place + 0.5, name)
    plot.legend([("dot", "circuit alone"), ("other", "circuit removed"), ("nullbar", "to compare with")])
    plot.level(card.target_loss, "target")
    plot.level(LN2, "chance")
    return plot.svg((), ticks(top))


def _knockouts(card: CardData) -> str:
    """p(right) in the model against p(right) in the circuit, per knocked-out subset."""
    if card.completeness is None:
        return ""
    plot = Plot("Knockouts: the same nodes out of both", "p(right), whole model", "p(right), circuit", (0, 1), (0, 1))
    plot.line([(0, 0), (1, 1)], "null", "equal")
    for point in card.completeness.knockouts:
        words = f"{point.nodes} nodes out: model {point.model:.3f}, circuit {point.circuit:.3f}"
        plot.dot(point.model, point.circuit, "dot", words)
    return plot.svg(ticks(1), ticks(1))


def _prompts(card: CardData) -> str:
    """Histograms of the per-prompt losses of model and circuit."""
    values = {"dot": card.prompts.circuit, "other": card.prompts.full}
    top = min(4 * LN2, max(LN2, *(max(x) for x in values.values())))
    edges = np.linspace(0, top, 25)
    counts = {kind: np.histogram(np.clip(x, 0, top), edges)[0] for kind, x in values.items()}
    high = max(int(x.max()) for x in counts.values())
    plot = Plot("Loss per prompt", "loss (nats)", "prompts", (0, top), (0, 1.05 * high))
    for kind, name in (("dot", "circuit"), ("other", "model")):
        for low, upper, count in zip(edges[:-1], edges[1:], counts[kind], strict=True):
            if count:
                plot.bar(
                    float(low), float(upper), float(count), kind, f"{name}: {count} prompts of {low:.2f} to {upper:.2f}"
                )
    plot.legend([("dot", "circuit alone"), ("other", "whole model")])
    return plot.svg(ticks(top), ticks(1.05 * high))
