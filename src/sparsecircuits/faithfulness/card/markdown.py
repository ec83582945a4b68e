"""The card as a Markdown page."""

import math
from collections.abc import Iterator

from sparsecircuits.faithfulness.card.schema import CardData, Shortcut
from sparsecircuits.faithfulness.measures.context import Tried
from sparsecircuits.faithfulness.measures.estimate import Estimate

ABLATION_NAMES = {
    "mean": "means over pretraining text",
    "zero": "zeros",
    "resample_pair": "the pair's other prompt",
    "resample_random": "a random prompt of the task",
}


def to_markdown(card: CardData) -> str:
    """Everything on the card but the values per prompt, per node and per draw of large circuits."""
    return "\n\n".join(part for part in _parts(card) if part)


def _parts(card: CardData) -> Iterator[str]:
    yield f"# {card.task} in {card.model_name}"
    yield (
        f"{card.n_nodes} nodes, {card.n_edges} edges; target loss {card.target_loss}"
        f" ({'held' if card.holds_target else 'missed'})."
    )
    yield f"**Verdict: {card.verdict}.** " + " ".join(card.reasons)
    yield "\n".join(f"- **{text}**" for text in card.warnings)
    yield _headline(card)
    yield (
        f"Nodes outside are ablated ({card.ablation}); {2 * card.losses.n_pairs} prompts of the "
        f"{card.losses.split.replace('_', '-')} split, seed {card.seed}. In brackets: 95% bootstrap intervals over "
        "pairs. Losses are in nats. Whatever runs is calibrated alike: a scale and a shift per answer, fitted on "
        "training pairs; a bias can hide an answer from a raw loss, but not from the order of a pair."
    )
    if card.shortcut is not None:
        yield _shortcut(card, card.shortcut)
    yield _ablations(card)
    yield _subsets(card)
    yield _likeness(card)
    yield _minimality(card)
    yield _tried("## Templates", "split", list(card.splits))
    if card.dilution is not None:
        yield _tried("## Longer prompts", card.dilution_of or "", list(card.dilution))
    if card.transfer is not None:
        yield _tried("## Real code", "prompts", [card.transfer.result])
        a, b = card.transfer.places
        yield f"{card.transfer.pattern}: {a} and {b} places in {card.transfer.files} files of {card.transfer.folder}."
        if card.transfer.cue is not None:
            yield (
                f"The presence of one token, {card.transfer.cue!r}, says {percent(card.transfer.cue_accuracy)} of the "
                "answers there (chosen on one half of the places, scored on the other)."
            )
    yield _interventions(card)
    yield _curve(card)
    yield _nulls(card)
    yield _backups(card)
    yield _nodes(card)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |" for row in cells)


def number(value: float | None, digits: int = 4) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share in percent, or a dash."""
    return "–" if value is None else f"{value:.0%}"


def with_interval(x: Estimate, share: bool = False) -> str:
    """A value with its interval."""
    show = percent if share else number
    return show(x.value) + ("" if x.low is None else f" [{show(x.low)}, {show(x.high)}]")


def _headline(card: CardData) -> str:
    needed = card.necessity_test
    notes = (
        f"{percent(card.sufficiency)} of what the model does; accuracy {card.losses.accuracy:.1%}",
        f"raw accuracy {card.losses.accuracy_full:.1%}",
        "",
        f"{percent(card.necessity)} of the way to chance; loss {with_interval(needed.ablated)}",
    )
    rows = [
        [name, number(fair), number(raw), "–" if order is None else f"{order:.1%}", note]
        for (name, fair, raw, order), note in zip(card.losses.rows, notes, strict=True)
    ]
    draws = f"mean of {len(needed.random)} draws, at most {number(needed.random_worst)}"
    rows.append(["all but as many random nodes", number(card.random_ablated), "–", "–", draws])
    rows.append(["chance", number(math.log(2)), number(math.log(2)), "50.0%", ""])
    return table(["what runs", "loss, calibrated (nats)", "loss, raw", "pairs in the right order", ""], rows)


def _shortcut(card: CardData, shortcut: Shortcut) -> str:
    by_definition = " (by the task's definition the last tokens decide)" if shortcut.by_definition else ""
    return (
        f"The best rule that needs no understanding, {shortcut.rule}, gets {percent(shortcut.accuracy)} of these "
        f"prompts right{by_definition}; the circuit {percent(card.losses.accuracy)}, the model "
        f"{percent(card.losses.accuracy_full)}."
    )


def _ablations(card: CardData) -> str:
    rows = [
        [
            ABLATION_NAMES[x.ablation],
            with_interval(x.loss),
            number(x.loss_recalibrated),
            number(x.loss_empty),
            with_interval(x.accuracy, share=True),
            with_interval(x.sufficiency, share=True),
        ]
        for x in card.ablations
    ]
    header = ["outside the circuit", "loss", "recalibrated", "nothing", "accuracy", "sufficiency"]
    return "## Sufficiency under four ablations\n\n" + table(header, rows)


def _subsets(card: CardData) -> str:
    if not card.subsets:
        return ""
    rows = []
    for x in card.subsets:
        what = ABLATION_NAMES[x.ablation]
        rows.append([what, "nothing (the whole model)", number(x.full), number(x.full)])
        for subsets in x.random:
            mean = sum(subsets.losses) / len(subsets.losses)
            name = f"a random {subsets.share:.0%} ({len(subsets.losses)} draws)"
            rows.append([what, name, number(mean), number(subsets.worst)])
        rows.append([what, "all (the circuit)", number(x.circuit), number(x.circuit)])
        if x.adversarial is not None:
            name = f"the worst found: {x.adversarial.ablated} of {x.adversarial.outside} nodes"
            rows.append([what, name, with_interval(x.adversarial.loss), number(x.adversarial.loss.value)])
    text = (
        "A part of what lies outside the circuit is ablated, one choice for all prompts, and the rest runs. No subset "
        "should be worse than both the whole model and the circuit."
    )
    header = ["ablated at", "how much of the outside", "loss, mean", "loss, worst"]
    return f"## Subset ablation\n\n{text}\n\n" + table(header, rows)


def _likeness(card: CardData) -> str:
    out, inside = card.outputs, card.internals
    rows = [
        ["same answer as the model", with_interval(out.agreement, share=True)],
        ["KL(model, circuit) over the two answers", with_interval(out.kl_answers)],
        ["KL(model, circuit) over the vocabulary", with_interval(out.kl_vocabulary)],
        ["correlation of logit differences", number(out.same_margin, 3)],
        ["kept activations explained (mean)", number(inside.explained, 3)],
        ["attention patterns shared (mean)", number(inside.attention, 3)],
        ["farthest ablation value (site's rms beyond the node's range)", number(card.constants.farthest, 2)],
    ]
    return "## Does it compute what the model computes?\n\n" + table(["", ""], rows)


def _minimality(card: CardData) -> str:
    x = card.minimality
    rows = [[part.name, number(part.rise)] for part in sorted((*x.nodes, *x.edges), key=lambda part: part.rise)[:10]]
    text = (
        f"{len(x.needless)} of {x.measured} nodes and edges can be left out, one at a time, at a rise below 1% of what "
        "the circuit gains over nothing. The least needed:"
    )
    return f"## Minimality\n\n{text}\n\n" + table(["left out", "rise of the loss"], rows)


def _tried(title: str, first: str, rows: list[Tried]) -> str:
    cells = [
        [
            row.name.replace("_", "-"),
            str(row.prompts),
            with_interval(row.loss_model),
            with_interval(row.loss_circuit),
            number(row.raw_model),
            number(row.raw_circuit),
            percent(row.accuracy_model),
            percent(row.accuracy_circuit),
            percent(row.order_model),
            percent(row.order_circuit),
        ]
        for row in rows
    ]
    measures = ("loss", "raw loss", "accuracy", "order")
    header = [first, "n", *(f"{what}, {who}" for what in measures for who in ("model", "circuit"))]
    return f"{title}\n\n" + table(header, cells)


def _interventions(card: CardData) -> str:
    rows = []
    if card.completeness is not None:
        rows.append(["incompleteness over knockouts", with_interval(card.completeness.incompleteness)])
    if card.interchange is not None:
        rows.append(["answers turned by patching all nodes", with_interval(card.interchange.flips_all, share=True)])
        rows.append(["interchange accuracy, node by node", with_interval(card.interchange.accuracy, share=True)])
        rows.append(["correlation of the patches' effects", number(card.interchange.effect_correlation, 3)])
    if card.scrubbing is not None:
        rows.append(["causal scrubbing: loss", with_interval(card.scrubbing.loss)])
        rows.append(["causal scrubbing: accuracy", with_interval(card.scrubbing.accuracy, share=True)])
        rows.append(["causal scrubbing: share of the task kept", with_interval(card.scrubbing.kept, share=True)])
    if card.binarised is not None:
        rows.append(["every node in two values: loss", with_interval(card.binarised.loss)])
        rows.append(["every node in two values: accuracy", percent(card.binarised.accuracy)])
    for head in card.constant_queries or ():
        said = "makes no difference" if head.constant else "matters"
        rows.append([f"head {head.head}: a constant query", f"{said} (loss {number(head.loss_circuit)})"])
    return "## Interventions\n\n" + table(["", ""], rows) if rows else ""


def _curve(card: CardData) -> str:
    if card.curve is None:
        return ""
    x, rows = card.curve, [[str(p.nodes), str(p.edges), number(p.loss)] for p in card.curve.points]
    areas = (
        f"CPR {number(x.cpr_log, 3)}, CMD {number(x.cmd_log, 3)} over log size "
        f"(linear: {number(x.cpr_linear, 3)}, {number(x.cmd_linear, 3)})."
    )
    return f"## Loss against size\n\n{areas}\n\n" + table(["nodes", "edges", "loss"], rows)


def _nulls(card: CardData) -> str:
    if card.nulls is None:
        return ""
    rows = [
        [
            control.name.replace("_", " "),
            "none of any size" if control.n_nodes is None else str(control.n_nodes),
            "–" if control.n_edges is None else str(control.n_edges),
            number(control.best_loss),
            "–"
            if control.times_smaller is None
            else f"{'at least ' if control.at_least else ''}{control.times_smaller:,.1f}",
        ]
        for control in (card.nulls.true, *card.nulls.nulls)
    ]
    text = (
        f"The same pruning on each: {card.nulls.steps} steps of {card.nulls.pairs_per_step} pairs, target "
        f"{card.nulls.target_loss}, edges counted and not pruned."
    )
    header = ["pruned", "nodes", "edges", "best loss", "true circuit smaller by a factor of"]
    return f"## Null controls\n\n{text}\n\n" + table(header, rows)


def _backups(card: CardData) -> str:
    found = card.backups
    if found is None:
        return ""
    rows = [
        [str(place), str(len(way.nodes)), str(len(way.edges)), number(way.loss), number(way.loss_left)]
        for place, way in enumerate(found.ways, 1)
    ]
    parts = [f"## Backup circuits\n\n{found.words}"]
    parts.append(table(["circuit", "nodes", "edges", "loss", "loss of the model without all so far"], rows))
    if found.core:
        parts.append(f"Necessary core: {', '.join(found.core)}.")
    if found.overlap is not None:
        sizes = ", ".join(map(str, found.overlap.n_nodes))
        parts.append(
            f"Pruned with {len(found.overlap.n_nodes)} seeds ({sizes} nodes), circuits share "
            f"{number(found.overlap.nodes, 2)} of their nodes and {number(found.overlap.edges, 2)} of their edges "
            "(mean Jaccard index)."
        )
    return "\n\n".join(parts)


def _nodes(card: CardData) -> str:
    if not card.descriptions:
        return ""
    rows = [[x.name, x.words, " ".join(map(repr, x.top_tokens))] for x in card.descriptions]
    return "## Nodes, in the whole model\n\n" + table(["node", "", "tokens with the most extreme values"], rows)
