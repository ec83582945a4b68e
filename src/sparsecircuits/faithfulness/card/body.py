"""What a card says: its numbers and sentences as blocks."""

import math
from collections.abc import Iterable, Iterator

from sparsecircuits.circuits.descriptions import Description
from sparsecircuits.faithfulness.card.blocks import Block, Body, Paragraph, Section, Table
from sparsecircuits.faithfulness.card.schema import CardData, Shortcut
from sparsecircuits.faithfulness.measures.binarise import Binarised
from sparsecircuits.faithfulness.measures.context import Tried
from sparsecircuits.faithfulness.measures.corpus import Transfer
from sparsecircuits.faithfulness.measures.estimate import Estimate
from sparsecircuits.faithfulness.measures.size_curve import SizeCurve
from sparsecircuits.faithfulness.measures.subsets import SubsetAblation
from sparsecircuits.faithfulness.nulls import Control, Nulls
from sparsecircuits.pruning.backups import BackupRecord

ABLATION_NAMES = {
    "mean": "means over pretraining text",
    "zero": "zeros",
    "resample_pair": "the pair's other prompt",
    "resample_random": "a random prompt of the task",
}


def body_of(card: CardData) -> Body:
    """Everything on the card but the values per prompt, per node and per draw of large circuits."""
    held = "held" if card.holds_target else "missed"
    return Body(
        title=f"{card.task} in {card.model_name}",
        size=Paragraph(f"{card.n_nodes} nodes, {card.n_edges} edges; target loss {card.target_loss} ({held})."),
        verdict=card.verdict,
        reasons=card.reasons,
        warnings=tuple(card.warnings),
        losses=tuple(_losses(card)),
        sections=tuple(_sections(card)),
    )


def _losses(card: CardData) -> Iterator[Block]:
    yield _headline(card)
    yield Paragraph(
        f"Nodes outside are ablated ({card.ablation}); {2 * card.losses.n_pairs} prompts of the "
        f"{card.losses.split.replace('_', '-')} split, seed {card.seed}. In brackets: 95% bootstrap intervals over "
        "pairs. Losses are in nats. Whatever runs is calibrated alike: a scale and a shift per answer, fitted on "
        "training pairs; a bias can hide an answer from a raw loss, but not from the order of a pair."
    )
    if card.shortcut is not None:
        yield _shortcut(card, card.shortcut)


def _sections(card: CardData) -> Iterator[Section]:
    """What was measured; the order is the reader's."""
    yield _ablations(card)
    if card.subsets:
        yield _subsets(card.subsets)
    yield _likeness(card)
    yield _minimality(card)
    yield _section("Templates", _tried("split", card.splits))
    if card.dilution is not None:
        yield _section("Longer prompts", _tried(card.dilution_of or "", card.dilution))
    if card.transfer is not None:
        yield _transfer(card.transfer)
    if interventions := list(_interventions(card)):
        yield _section("Interventions", _table(["", ""], interventions))
    if card.curve is not None:
        yield _curve(card.curve)
    if card.nulls is not None:
        yield _nulls(card.nulls)
    if card.backups is not None:
        yield _backups(card.backups)
    if card.descriptions:
        yield _nodes(card.descriptions)


def _section(title: str, *blocks: Block) -> Section:
    return Section(title, blocks)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    return Table(tuple(header), tuple(map(tuple, rows)))


def _number(value: float | None, digits: int = 4) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    """A share in percent, or a dash."""
    return "–" if value is None else f"{value:.0%}"


def _with_interval(x: Estimate, share: bool = False) -> str:
    """A value with its interval."""
    show = _percent if share else _number
    return show(x.value) + ("" if x.low is None else f" [{show(x.low)}, {show(x.high)}]")


def _headline(card: CardData) -> Table:
    needed = card.necessity_test
    notes = (
        f"{_percent(card.sufficiency)} of what the model does; accuracy {card.losses.accuracy:.1%}",
        f"raw accuracy {card.losses.accuracy_full:.1%}",
        "",
        f"{_percent(card.necessity)} of the way to chance; loss {_with_interval(needed.ablated)}",
    )
    rows = [
        [name, _number(fair), _number(raw), "–" if order is None else f"{order:.1%}", note]
        for (name, fair, raw, order), note in zip(card.losses.rows, notes, strict=True)
    ]
    draws = f"mean of {len(needed.random)} draws, at most {_number(needed.random_worst)}"
    rows.append(["all but as many random nodes", _number(card.random_ablated), "–", "–", draws])
    rows.append(["chance", _number(math.log(2)), _number(math.log(2)), "50.0%", ""])
    return _table(["what runs", "loss, calibrated (nats)", "loss, raw", "pairs in the right order", ""], rows)


def _shortcut(card: CardData, shortcut: Shortcut) -> Paragraph:
    by_definition = " (by the task's definition the last tokens decide)" if shortcut.by_definition else ""
    return Paragraph(
        f"The best rule that needs no understanding, {shortcut.rule}, gets {_percent(shortcut.accuracy)} of these "
        f"prompts right{by_definition}; the circuit {_percent(card.losses.accuracy)}, the model "
        f"{_percent(card.losses.accuracy_full)}."
    )


def _ablations(card: CardData) -> Section:
    rows = [
        [
            ABLATION_NAMES[x.ablation],
            _with_interval(x.loss),
            _number(x.loss_recalibrated),
            _number(x.loss_empty),
            _with_interval(x.accuracy, share=True),
            _with_interval(x.sufficiency, share=True),
        ]
        for x in card.ablations
    ]
    header = ["outside the circuit", "loss", "recalibrated", "nothing", "accuracy", "sufficiency"]
    return _section("Sufficiency under four ablations", _table(header, rows))


def _subsets(measured: Iterable[SubsetAblation]) -> Section:
    rows = []
    for x in measured:
        what = ABLATION_NAMES[x.ablation]
        rows.append([what, "nothing (the whole model)", _number(x.full), _number(x.full)])
        for subsets in x.random:
            mean = sum(subsets.losses) / len(subsets.losses)
            name = f"a random {subsets.share:.0%} ({len(subsets.losses)} draws)"
            rows.append([what, name, _number(mean), _number(subsets.worst)])
        rows.append([what, "all (the circuit)", _number(x.circuit), _number(x.circuit)])
        if x.adversarial is not None:
            name = f"the worst found: {x.adversarial.ablated} of {x.adversarial.outside} nodes and edges"
            rows.append([what, name, _with_interval(x.adversarial.loss), _number(x.adversarial.loss.value)])
    text = (
        "A part of what lies outside the circuit is ablated, one choice for all prompts, and the rest runs. No subset "
        "should be worse than both the whole model and the circuit."
    )
    header = ["ablated at", "how much of the outside", "loss, mean", "loss, worst"]
    return _section("Subset ablation", Paragraph(text), _table(header, rows))


def _likeness(card: CardData) -> Section:
    out, inside = card.outputs, card.internals
    rows = [
        ["same answer as the model", _with_interval(out.agreement, share=True)],
        ["KL(model, circuit) over the two answers", _with_interval(out.kl_answers)],
        ["KL(model, circuit) over the vocabulary", _with_interval(out.kl_vocabulary)],
        ["correlation of logit differences", _number(out.same_margin, 3)],
        ["kept activations explained (mean)", _number(inside.explained, 3)],
        ["attention patterns shared (mean)", _number(inside.attention, 3)],
        ["farthest ablation value (site's rms beyond the node's range)", _number(card.constants.farthest, 2)],
    ]
    return _section("Does it compute what the model computes?", _table(["", ""], rows))


def _minimality(card: CardData) -> Section:
    x = card.minimality
    rows = [[part.name, _number(part.rise)] for part in sorted((*x.nodes, *x.edges), key=lambda part: part.rise)[:10]]
    text = (
        f"{len(x.needless)} of {x.measured} nodes and edges can be left out, one at a time, at a rise below 1% of what "
        "the circuit gains over nothing. The least needed:"
    )
    return _section("Minimality", Paragraph(text), _table(["left out", "rise of the loss"], rows))


def _tried(first: str, rows: Iterable[Tried]) -> Table:
    cells = [
        [
            row.name.replace("_", "-"),
            str(row.prompts),
            _with_interval(row.loss_model),
            _with_interval(row.loss_circuit),
            _number(row.raw_model),
            _number(row.raw_circuit),
            _percent(row.accuracy_model),
            _percent(row.accuracy_circuit),
            _percent(row.order_model),
            _percent(row.order_circuit),
        ]
        for row in rows
    ]
    measures = ("loss", "raw loss", "accuracy", "order")
    header = [first, "n", *(f"{what}, {who}" for what in measures for who in ("model", "circuit"))]
    return _table(header, cells)


def _transfer(transfer: Transfer) -> Section:
    a, b = transfer.places
    blocks: list[Block] = [
        _tried("prompts", [transfer.result]),
        Paragraph(f"{transfer.pattern}: {a} and {b} places in {transfer.files} files of {transfer.folder}."),
    ]
    if transfer.cue is not None:
        text = (
            f"The presence of one token, {transfer.cue!r}, says {_percent(transfer.cue_accuracy)} of the answers there "
            "(chosen on one half of the places, scored on the other)."
        )
        blocks.append(Paragraph(text))
    return _section("Real code", *blocks)


def _interventions(card: CardData) -> Iterator[list[str]]:
    if card.completeness is not None:
        yield ["incompleteness over knockouts", _with_interval(card.completeness.incompleteness)]
    if card.interchange is not None:
        yield ["answers turned by patching all nodes", _with_interval(card.interchange.flips_all, share=True)]
        yield ["interchange accuracy, node by node", _with_interval(card.interchange.accuracy, share=True)]
        yield ["correlation of the patches' effects", _number(card.interchange.effect_correlation, 3)]
    if card.scrubbing is not None:
        yield ["causal scrubbing: loss", _with_interval(card.scrubbing.loss)]
        yield ["causal scrubbing: accuracy", _with_interval(card.scrubbing.accuracy, share=True)]
        yield ["causal scrubbing: share of the task kept", _with_interval(card.scrubbing.kept, share=True)]
    if card.binarised is not None:
        yield from _binarised(card.binarised)
    for head in card.constant_queries or ():
        said = "makes no difference" if head.constant else "matters"
        yield [f"head {head.head}: a constant query", f"{said} (loss {_number(head.loss_circuit)})"]


def _binarised(x: Binarised) -> Iterator[list[str]]:
    values = "two or three" if any(node.middle is not None for node in x.nodes) else "two"
    yield [f"every node in {values} values: loss", _with_interval(x.loss)]
    yield [f"every node in {values} values: accuracy", _percent(x.accuracy)]
    if x.failed:
        yield ["every node in two values: loss", _number(x.loss_of_two)]
        yield ["nodes for which two values are too few", ", ".join(x.failed)]


def _curve(x: SizeCurve) -> Section:
    rows = [[str(p.nodes), str(p.edges), _number(p.loss)] for p in x.points]
    areas = (
        f"CPR {_number(x.cpr_log, 3)}, CMD {_number(x.cmd_log, 3)} over log size "
        f"(linear: {_number(x.cpr_linear, 3)}, {_number(x.cmd_linear, 3)})."
    )
    return _section("Loss against size", Paragraph(areas), _table(["nodes", "edges", "loss"], rows))


def _held(control: Control) -> str:
    if control.n_nodes is not None:
        return str(control.n_nodes)
    if not control.curve:
        return "not pruned"
    return f"none of {len(control.curve)} draws" if control.name == "random_nodes" else "none of any size"


def _can_do(control: Control, target: float) -> str:
    if control.loss_full is None:
        return "–"
    return f"{'yes' if control.doable(target) else 'no'} ({_number(control.loss_full, 3)})"


def _nulls(nulls: Nulls) -> Section:
    rows = [
        [
            control.name.replace("_", " ") + ("" if control.about is None else f" ({control.about})"),
            _can_do(control, nulls.target_loss),
            _held(control),
            "–" if control.n_edges is None else str(control.n_edges),
            _number(control.best_loss),
            "–"
            if control.times_smaller is None
            else f"{'at least ' if control.at_least else ''}{control.times_smaller:,.1f}",
            _number(control.loss_on_task, 3),
        ]
        for control in (nulls.true, *nulls.nulls)
    ]
    text = (
        f"The same pruning on each: {nulls.steps} steps of {nulls.pairs_per_step} pairs, target "
        f"{nulls.target_loss}, edges counted and not pruned. What the whole model cannot do is no evidence by itself. "
        "Cipher and other answers: the true prompts, with two answers that the model never says there. Random nodes: "
        "as many in each site as the circuit has, and as many edges at most."
    )
    header = [
        "pruned",
        "can the model do it (loss)",
        "nodes",
        "edges",
        "best loss",
        "true circuit smaller by a factor of",
        "loss of its circuit on the true task",
    ]
    return _section("Null controls", Paragraph(text), _table(header, rows))


def _backups(found: BackupRecord) -> Section:
    rows = [
        [str(place), str(len(way.nodes)), str(len(way.edges)), _number(way.loss), _number(way.loss_left)]
        for place, way in enumerate(found.ways, 1)
    ]
    header = ["circuit", "nodes", "edges", "loss", "loss of the model without all so far"]
    blocks: list[Block] = [Paragraph(found.words), _table(header, rows)]
    if found.core:
        blocks.append(Paragraph(f"Necessary core: {', '.join(found.core)}."))
    if found.overlap is not None:
        sizes = ", ".join(map(str, found.overlap.n_nodes))
        text = (
            f"Pruned with {len(found.overlap.n_nodes)} seeds ({sizes} nodes), circuits share "
            f"{_number(found.overlap.nodes, 2)} of their nodes and {_number(found.overlap.edges, 2)} of their edges "
            "(mean Jaccard index)."
        )
        blocks.append(Paragraph(text))
    return _section("Backup circuits", *blocks)


def _nodes(descriptions: Iterable[Description]) -> Section:
    rows = [[x.name, x.words, " ".join(map(repr, x.top_tokens))] for x in descriptions]
    return _section("Nodes, in the whole model", _table(["node", "", "tokens with the most extreme values"], rows))
