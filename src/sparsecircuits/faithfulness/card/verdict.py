"""What the numbers say, in plain words."""

import math
from collections.abc import Callable, Iterator

from sparsecircuits.circuits.circuit import Circuit, Losses
from sparsecircuits.faithfulness.card.schema import CardData, Verdict
from sparsecircuits.faithfulness.measures.estimate import Estimate
from sparsecircuits.faithfulness.measures.interchange import Interchange
from sparsecircuits.faithfulness.measures.necessity import BROKEN
from sparsecircuits.faithfulness.measures.said import Said
from sparsecircuits.faithfulness.measures.subsets import SubsetAblation
from sparsecircuits.faithfulness.measures.sufficiency import Sufficiency
from sparsecircuits.faithfulness.nulls import Control, Nulls

NULL_NAMES = {
    "shuffled_labels": "shuffled labels",
    "nonsense": "a nonsense task",
    "permuted_weights": "the network with its weights permuted",
    "cipher": "the answers in a cipher, two tokens that the model never says",
    "other_answers": "the answers of another task",
    "random_nodes": "random nodes, as many in each site",
    "true": "the true task",
}
LARGEST_INCOMPLETENESS, SMALLEST_AGREEMENT, SMALLEST_SHARE = 0.2, 0.95, 0.9
SMALLEST_ORDER = 0.95
"""Share of pairs in the right order from which the model is said to order them rightly."""
SUSPICIOUS_RISE = 0.1
"""Nats by which a resampled or scrubbed loss may exceed the target, and that of a subset what bounds it (see
`SubsetAblation.bound`), before the card warns."""


def needless(circuit: Circuit, losses: Losses) -> bool:
    """Whether the task needs no circuit: the circuit has no nodes, or nothing at all (every node frozen; calibrated, as
    all is) holds the target too."""
    empty = losses.empty if losses.empty_calibrated is None else losses.empty_calibrated
    return not circuit.nodes or empty <= circuit.target_loss


def judge(
    circuit: Circuit, losses: Losses, nulls: Nulls | None, answers: Said | None = None
) -> tuple[Verdict, tuple[str, ...]]:
    """Whether the circuit can be told from what pruning finds where there is nothing, and why.

    It cannot when the whole model does not do the task, or never says its answers, so that there is no behaviour to
    explain; when the circuit alone does not do it; or when a null's circuit is as small. Losses are calibrated ones.
    Where the task needs no circuit (see `needless`) there is none that could be told from anything. A null for which no
    set of nodes holds the target has no circuit at all, and is no rival; nor is one whose circuit does the true task.
    Where the model can do none of the nulls, the reasons say that they are no evidence.
    """
    reasons = _of_behaviour(losses, answers)
    if not reasons and needless(circuit, losses):
        return "no circuit needed", (
            f"With every node frozen the loss is {losses.rows[2][1]:.3f} (target {circuit.target_loss}): what the last "
            "token says by itself is enough, and no node has to run.",
        )
    if nulls is not None:
        rivals = (null for null in nulls.nulls if null.rivals(nulls.target_loss))
        reasons += [said for null in rivals for said in _as_small(null, len(circuit.edges))]
        if not reasons and nulls.true.n_edges is None:
            reasons.append(
                "With the budget of the null controls pruning finds no circuit for the true task either: that it finds "
                "none for a null says nothing."
            )
    if reasons:
        return "not distinguishable from null", tuple(reasons)
    if nulls is None:
        return "null controls not run", ("Run `sparsecircuits report --full` to prune the nulls.",)
    return "distinguishable from null", tuple(_evidence(nulls))


def _of_behaviour(losses: Losses, answers: Said | None) -> list[str]:
    """Why there is nothing to explain, or nothing that explains it."""
    found = []
    full = losses.full if losses.full_calibrated is None else losses.full_calibrated
    if full > BROKEN:
        found.append(
            f"The whole model does not do this task (loss {full:.3f}, chance {math.log(2):.3f}): there is no "
            "behaviour that a circuit could explain."
        )
    if answers is not None and not answers.ever:
        found.append(
            f"The model never says the answers (probability {answers.probability:.1e} where they are right, below one "
            f"in the vocabulary, {answers.chance:.1e}): that their logits tell the prompts apart is no behaviour."
        )
    if losses.circuit > BROKEN:
        found.append(
            f"The circuit alone does not do the task (loss {losses.circuit:.3f}): it is no better than chance."
        )
    return found


def _as_small(null: Control, n_edges: int) -> list[str]:
    """Why a null speaks against a circuit of so many edges, if it does."""
    if null.n_edges is None:
        return []
    if null.n_edges <= n_edges:
        return [f"Pruning finds as small a circuit for {_name(null)}: {null.n_edges} edges, not {n_edges}."]
    if null.times_smaller is not None and null.times_smaller <= 1:
        return [
            f"With the same budget pruning finds a circuit for {_name(null)} that is as small ({null.n_edges} edges) "
            "as for the true task."
        ]
    return []


def _evidence(nulls: Nulls) -> Iterator[str]:
    """What tells the circuit from its nulls: first those that the model can do, which alone weigh."""
    target = nulls.target_loss
    yield from (_beside(null, target) for null in nulls.nulls if null.doable(target))
    undone = [null for null in nulls.nulls if not null.doable(target)]
    if undone:
        none = "; random nodes are all there is to compare with" if len(undone) + 1 >= len(nulls.nulls) else ""
        names = ", ".join(_name(null) for null in undone)
        yield f"What the whole model cannot do is no evidence by itself ({names}){none}."
    yield from (_beside(null, target) for null in undone if null.curve)


def _name(null: Control) -> str:
    return NULL_NAMES[null.name] + ("" if null.about is None else f", {null.about}")


def _beside(null: Control, target: float) -> str:
    name = _name(null)
    if null.name == "random_nodes" and null.n_edges is None:
        return f"Of {len(null.curve)} draws of {name}, none holds the target (best loss {null.best_loss:.3f})."
    if not null.rivals(target):
        return (
            f"For {name} pruning finds {null.n_edges} edges, but their circuit does the true task too (loss "
            f"{null.loss_on_task:.3f}): it is the same one, read off elsewhere."
        )
    assert null.times_smaller is not None  # so it is where the true task has a circuit
    if null.at_least:
        return (
            f"For {name} no set of nodes of any size holds the target (best loss {null.best_loss:.3f}); the true "
            f"circuit is at least {null.times_smaller:,.0f} times smaller."
        )
    return f"For {name} pruning needs {null.n_edges} edges: the true circuit is {null.times_smaller:.1f} times smaller."


def reasons_of_subsets(card: CardData) -> tuple[str, ...]:
    """What the verdict has to add where subset ablation fails."""
    if all(map(_bounded, card.subsets or ())):
        return ()
    return (
        "Subset ablation fails: what lies outside the circuit matters when only some of it is ablated, which ablating "
        "all of it at once hides.",
    )


CHECKS: dict[str, Callable[[CardData], bool | None]] = {
    "sufficiency": lambda card: card.holds_target,
    "zero ablation": lambda card: _survives(card, "zero"),
    "resample ablation": lambda card: _survives(card, "resample_random"),
    "causal scrubbing": lambda card: (
        None if card.scrubbing is None else _at_most(card.scrubbing.loss, card.target_loss + SUSPICIOUS_RISE)
    ),
    "subset ablation": lambda card: None if card.subsets is None else all(map(_bounded, card.subsets)),
    "necessity": lambda card: card.necessity_test.breaks,
    "ablation values": lambda card: not (card.constants.far or card.constants.misrecorded),
    "minimality": lambda card: not card.minimality.needless,
    "completeness": lambda card: (
        None if card.completeness is None else _at_most(card.completeness.incompleteness, LARGEST_INCOMPLETENESS)
    ),
    "agreement": lambda card: _at_least(card.outputs.agreement, SMALLEST_AGREEMENT),
    "activations": lambda card: card.internals.explained is not None and card.internals.explained >= SMALLEST_SHARE,
    "no constants": lambda card: not any(node.constant for node in card.internals.nodes),
    "interchange": lambda card: (
        None
        if card.interchange is None
        else _at_least(card.interchange.flips_all, SMALLEST_SHARE)
        and _at_least(card.interchange.accuracy, SMALLEST_SHARE)
    ),
    "verdict": lambda card: None if card.nulls is None else card.verdict == "distinguishable from null",
}
"""What a circuit should pass: True, False, or None where it was not measured. What was measured and is not defined is
no pass."""


def _survives(card: CardData, ablation: str) -> bool | None:
    """Whether the loss under an ablation is near the target."""
    found = [result.loss for result in card.ablations if result.ablation == ablation]
    return _at_most(found[0], card.target_loss + SUSPICIOUS_RISE) if found else None


def _bounded(subsets: SubsetAblation) -> bool:
    """Whether no subset is much worse than both circuit and model."""
    return subsets.worst is not None and subsets.worst <= subsets.bound + SUSPICIOUS_RISE


def _at_most(estimate: Estimate, bound: float) -> bool:
    """Whether a value is defined and no larger."""
    return estimate.value is not None and estimate.value <= bound


def _at_least(estimate: Estimate, bound: float) -> bool:
    """Whether a value is defined and no smaller."""
    return estimate.value is not None and estimate.value >= bound


def _said(estimate: Estimate) -> str:
    return "not defined" if estimate.value is None else f"{estimate.value:.3f}"


def warnings(card: CardData) -> list[str]:
    """One line for everything in a card that a reader should not overlook (its own `warnings` are not read)."""
    found = [*_of_the_basics(card), *_of_resampling(card), *_of_subsets(card)]
    if card.backups is not None and len(card.backups.ways) > 1:
        found.append(card.backups.words)
    return [*found, *_of_the_rest(card)]


def _there(value: float | None) -> float:
    """A loss that only files of earlier versions lack: every card that is being made has it."""
    assert value is not None
    return value


def _of_the_basics(card: CardData) -> list[str]:
    losses, found, target = card.losses, [], card.target_loss
    order, full, ablated = map(_there, (losses.order_full, losses.full_calibrated, losses.ablated_calibrated))
    if order >= SMALLEST_ORDER and losses.full > target:
        found.append(
            f"The model's raw answer is biased: it puts {order:.0%} of the pairs in the right order, but its raw loss "
            f"is {losses.full:.3f}, above the target {target} ({full:.3f} calibrated)."
        )
    if card.verdict == "not distinguishable from null":
        found.append("This circuit is not distinguishable from null. " + " ".join(card.reasons))
    if not card.holds_target:
        found.append(f"On held-out prompts the circuit misses its target: {losses.circuit:.3f} > {target}.")
    if not card.necessity_test.breaks:
        found.append(
            f"Without the circuit the model still does the task in part (calibrated loss "
            f"{ablated:.3f}, below {BROKEN:.3f}; {_there(losses.order_ablated):.0%} of the pairs in the right order): "
            "other nodes can do it too."
        )
    if card.random_ablated > max(BROKEN / 2, (full + ablated) / 2):
        found.append(
            f"As many random nodes matter about as much as the circuit: without them the loss is "
            f"{card.random_ablated:.3f}."
        )
    return found


def _of_resampling(card: CardData) -> list[str]:
    found, allowed = [], card.target_loss + SUSPICIOUS_RISE
    by_name: dict[str, Sufficiency] = {result.ablation: result for result in card.ablations}
    named = {
        "resample_random": "random prompts of the task",
        "resample_pair": "the pair's other prompt",
        "zero": "zero",
    }
    for name, words in named.items():
        result = by_name.get(name)
        if card.holds_target and result is not None and not _at_most(result.loss, allowed):
            found.append(
                f"With activations of {words} outside the circuit its loss is {_said(result.loss)} "
                f"({result.loss_recalibrated:.3f} recalibrated)."
                if name != "zero"
                else f"With zeros outside the circuit its loss is {_said(result.loss)} "
                f"({result.loss_recalibrated:.3f} recalibrated): it needs the constants of other nodes."
            )
    scrubbed = card.scrubbing
    if card.holds_target and scrubbed is not None and not _at_most(scrubbed.loss, allowed):
        found.append(
            f"Causal scrubbing leaves a loss of {_said(scrubbed.loss)}: its inputs carry more than the answer."
        )
    return found


SUBSETS_AT = {"mean": "at means", "zero": "at zero", "resample_random": "resampled from random prompts of the task"}


def _of_subsets(card: CardData) -> list[str]:
    found = []
    for subsets in card.subsets or ():
        between = f"circuit {subsets.circuit:.3f}, whole model {subsets.full:.3f}"
        how, allowed = SUBSETS_AT.get(subsets.ablation, subsets.ablation), subsets.bound + SUSPICIOUS_RISE
        worst, adversarial = subsets.worst_random, subsets.adversarial
        if worst.worst > allowed:
            found.append(
                f"With a random {worst.share:.0%} of what lies outside the circuit ablated, {how}, the loss is up to "
                f"{worst.worst:.3f} ({between}): nodes outside cancel each other."
            )
        if adversarial is not None and not _at_most(adversarial.loss, allowed):
            found.append(
                f"The worst subset that was found outside the circuit, {adversarial.ablated} of {adversarial.outside} "
                f"nodes and edges ablated, {how}, leaves a loss of {_said(adversarial.loss)} ({between})."
            )
    return found


def _of_the_rest(card: CardData) -> list[str]:
    found, minimality, interchange = [], card.minimality, card.interchange
    if minimality.needless:
        shown = ", ".join(minimality.needless[:5]) + (", …" if len(minimality.needless) > 5 else "")
        found.append(f"{len(minimality.needless)} of {minimality.measured} nodes and edges can be left out: {shown}.")
    values = card.constants
    if values.far or values.misrecorded:
        shown = ", ".join((*values.far, *values.misrecorded)[:5])
        found.append(f"Ablation values that are not like what their nodes do on the task's prompts: {shown}.")
    constant = [node.name for node in card.internals.nodes if node.constant]
    if constant:
        found.append(f"Constant over the task's prompts, so no more than a bias: {', '.join(constant[:5])}.")
    found += _of_patching(interchange) if interchange is not None else []
    for row in [*(card.dilution or ()), *([] if card.transfer is None else [card.transfer.result])]:
        if row.accuracy_circuit < row.accuracy_model - 0.1:
            what = f"with {row.name} {card.dilution_of}" if row.name.isdigit() else "on real code"
            shares = f"the circuit gets {row.accuracy_circuit:.0%} right, the model {row.accuracy_model:.0%}"
            found.append(f"{what[0].upper()}{what[1:]} {shares}.")
    shortcut, right = card.shortcut, card.losses.accuracy
    if shortcut is not None and not shortcut.by_definition and right <= shortcut.accuracy:
        found.append(
            f"A rule that needs no understanding, {shortcut.rule}, gets {shortcut.accuracy:.0%} right, the circuit no "
            f"more than {right:.0%}."
        )
    real = card.transfer
    if real is not None and real.cue_accuracy is not None and real.result.accuracy_circuit < real.cue_accuracy:
        found.append(
            f"On real code the presence of one token, {real.cue!r}, says {real.cue_accuracy:.0%} of the answers, more "
            f"than the circuit ({real.result.accuracy_circuit:.0%})."
        )
    return found


def _of_patching(interchange: Interchange) -> list[str]:
    found, all_at_once, one_by_one = [], interchange.flips_all, interchange.accuracy
    if all_at_once.value is None:
        found.append("What patching all of the circuit's nodes does to the answers is not defined.")
    elif all_at_once.value < SMALLEST_SHARE:
        found.append(f"Patching all of the circuit's nodes turns only {all_at_once.value:.0%} of the answers around.")
    if one_by_one.value is None:
        found.append("Patched node by node, how often the model does what the circuit predicts is not defined.")
    elif one_by_one.value < SMALLEST_SHARE:
        found.append(
            f"Patched node by node, the model does what the circuit predicts in {one_by_one.value:.0%} of cases."
        )
    return found
