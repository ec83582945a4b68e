"""Claims about circuits that are there: necessary? in two values? past causal scrubbing?"""

import statistics
from collections.abc import Iterator

import torch

from sparsecircuits.circuits.calibrations import Calibrations
from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.claims.claim import Setting
from sparsecircuits.claims.judging import number, numbers, unsaid, verdict, where
from sparsecircuits.claims.schema import Row, Rows, Verdict
from sparsecircuits.faithfulness.measures.binarise import binarise
from sparsecircuits.faithfulness.measures.interchange import causal_scrubbing
from sparsecircuits.faithfulness.measures.necessity import random_nodes_like
from sparsecircuits.faithfulness.measures.runs import by_length, final_logits, losses_of
from sparsecircuits.nodes.calibration import fitted, training_pairs
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.task_loss import pick_answers
from sparsecircuits.tasks import PairBatch, Task, get_task

PAIRS = 128
"""Held-out pairs at scale 1."""
DRAWS = 3
TWO_VALUED_AT_MOST = 20
"""Nodes of a circuit that is put in two values: each is tried at three thresholds, one forward pass each."""


def circuits_of(setting: Setting) -> Iterator[tuple[str, Bound, Task]]:
    """The circuits beside all models of a setting: the model's name, the circuit in it, its task."""
    for subject in setting.subjects:
        for bound in subject.circuits():
            setting.tell(f"{subject.name}, {bound.circuit.task}")
            yield subject.name, bound, get_task(bound.circuit.task, bound.model.tokenizer)


def _held_out(task: Task, setting: Setting) -> PairBatch:
    return by_length(task.batch("held_out", setting.scaled(PAIRS, 8), setting.seed))


def inverse_pruning(setting: Setting) -> list[Row]:
    """Losses without the circuit's nodes, and without as many random nodes of the same sites; raw and calibrated."""
    rows: list[Row] = []
    for name, bound, task in circuits_of(setting):
        batch, learn = _held_out(task, setting), training_pairs(task, setting.scaled(PAIRS, 8))
        generator = torch.Generator().manual_seed(setting.seed)
        random = [bound.without(random_nodes_like(bound, generator)) for _ in range(DRAWS)]
        without = _losses(bound, learn, batch, bound.rest)
        others = [_losses(bound, learn, batch, gating) for gating in random]
        rows.append(
            {
                "model": name,
                "task": task.name,
                "nodes": len(bound.circuit.nodes),
                "whole model": _losses(bound, learn, batch, None)[1],
                "without it": without[1],
                "without it, raw": without[0],
                "without random nodes": statistics.fmean(loss for _, loss in others),
            }
        )
    return rows


def _losses(bound: Bound, learn: PairBatch, batch: PairBatch, gating: Gating | None) -> tuple[float, float]:
    """Task loss of what a gating leaves, raw and with the calibration that suits it on training pairs; nats."""
    logits = pick_answers(final_logits(bound.model, batch, gating), batch)
    fair = fitted(bound.model, learn, gating)
    return losses_of(logits, batch).mean().item(), losses_of(fair(logits), batch).mean().item()


def judge_inverse_pruning(rows: Rows) -> Verdict:
    """Broken: 0.5 nats or more; unharmed: a rise of 0.1 or less."""
    if not rows:
        return unsaid("there is no circuit")
    broken = sum(loss >= 0.5 for loss in numbers(rows, "without it"))
    rises = [
        after - before
        for row in rows
        if (after := number(row, "without random nodes")) is not None
        and (before := number(row, "whole model")) is not None
    ]
    unharmed = sum(rise <= 0.1 for rise in rises)
    share = min(broken, unharmed) / len(rows)
    return verdict(
        share >= 0.9,
        share >= 0.5,
        f"without the circuit the loss is 0.5 or more for {broken} of {len(rows)}; without as many random nodes it "
        f"rises by at most 0.1 for {unharmed}",
    )


def binarisation(setting: Setting) -> list[Row]:
    """Losses of circuits whose nodes have two values each; those of more than 20 nodes are left out."""
    rows: list[Row] = []
    for name, bound, task in circuits_of(setting):
        if len(bound.circuit.nodes) > TWO_VALUED_AT_MOST:
            continue
        learn = task.encode(task.draw("train", setting.scaled(PAIRS // 2, 8), setting.seed))
        found = binarise(bound, learn, _held_out(task, setting), seed=setting.seed)
        rows.append(
            {
                "model": name,
                "task": task.name,
                "nodes": len(bound.circuit.nodes),
                "loss before": found.loss_before,
                "loss after": found.loss.value if found.loss_of_two is None else found.loss_of_two,
                "nodes that need a third": len(found.failed),
                "loss with those": found.loss.value,
                "accuracy with those": found.accuracy,
            }
        )
    return rows


def judge_binarisation(rows: Rows) -> Verdict:
    """By the mean loss afterwards, beside the paper's range and chance (0.693)."""
    after, before = numbers(rows, "loss after"), numbers(rows, "loss before")
    if len(after) < 3:
        return unsaid(f"{len(after)} circuits of at most {TWO_VALUED_AT_MOST} nodes")
    mean = statistics.fmean(after)
    return verdict(
        mean <= 0.54,
        mean <= 0.62,
        f"mean loss {mean:.3f} afterwards, {statistics.fmean(before):.3f} before, over {len(after)} circuits",
    )


def scrubbing(setting: Setting) -> list[Row]:
    """The share of the task that survives causal scrubbing, and resample ablation of all outside alone."""
    rows: list[Row] = []
    for name, bound, task in circuits_of(setting):
        batch, fair = _held_out(task, setting), Calibrations.of(bound, task)
        full = fair.full(pick_answers(final_logits(bound.model, batch), batch))
        found = causal_scrubbing(bound, batch, full, fair.empty, seed=setting.seed)
        rows.append(
            {
                "model": name,
                "task": task.name,
                "loss": found.loss.value,
                "accuracy": found.accuracy.value,
                "kept": found.kept.value,
            }
        )
    return rows


def judge_scrubbing(rows: Rows) -> Verdict:
    """A circuit passes with 0.9 of the task. The claim is that they do not."""
    kept = numbers(rows, "kept")
    if not kept:
        return unsaid("no circuit could be scrubbed")
    passed = sum(share >= 0.9 for share in kept)
    return verdict(
        passed == 0,
        passed <= len(kept) / 2,
        f"{passed} of {len(kept)} pass; median share of the task that survives {statistics.median(kept):.2f}",
    )


QUOTE_TASK = "single_double_quote"
QUOTE_NODES, QUOTE_EDGES = 12, 41
TWO_HOP_TASK = "set_or_string_fixedvarname"
TWO_HOP_EDGES = 100


def circuit_shape(setting: Setting, task: str) -> list[Row]:
    """What the circuits of one task are made of, in each model that has one."""
    rows: list[Row] = []
    for name, bound, found in circuits_of(setting):
        if found.name != task:
            continue
        nodes = bound.circuit.nodes
        heads = {(node.layer, node.head) for node in nodes if node.head is not None}
        kinds = {
            kind: sum(node.site == kind for node in nodes) for kind in ("mlp.post_act", "attn.q", "attn.k", "attn.v")
        }
        losses = bound.circuit.losses
        rows.append(
            {
                "model": name,
                "task": task,
                "nodes": len(nodes),
                "edges": len(bound.circuit.edges),
                "heads": len(heads),
                "layers with heads": len({layer for layer, _ in heads}),
                "neurons": kinds["mlp.post_act"],
                "q": kinds["attn.q"],
                "k": kinds["attn.k"],
                "v": kinds["attn.v"],
                "loss": None if losses is None else losses.circuit,
            }
        )
    return rows


def _holding(rows: Rows, task: str) -> Rows:
    """The circuits of a task that hold the target on held-out prompts, as far as it is known."""
    return [row for row in where(rows, task=task) if (number(row, "loss") or 0.0) <= 0.15]


def quote_circuit(setting: Setting) -> list[Row]:
    """What circuits of single_double_quote are made of."""
    return circuit_shape(setting, QUOTE_TASK)


def judge_quote_circuit(rows: Rows) -> Verdict:
    """The best model decides, at the target loss."""
    done = _holding(rows, QUOTE_TASK)
    if not done:
        return unsaid("no circuit holds the target on held-out prompts")
    best = min(done, key=lambda row: number(row, "nodes") or 0)
    nodes, edges = number(best, "nodes") or 0, number(best, "edges") or 0
    reason = (
        f"{nodes:.0f} nodes, {edges:.0f} edges, {best['heads']} head(s), {best['neurons']} neurons, {best['v']} value "
        f"channels in {best['model']}, found automatically"
    )
    return verdict(nodes <= 2 * QUOTE_NODES and edges <= QUOTE_EDGES, edges <= 4 * QUOTE_EDGES, reason)


def two_hops(setting: Setting) -> list[Row]:
    """What circuits of set_or_string_fixedvarname are made of."""
    return circuit_shape(setting, TWO_HOP_TASK)


def judge_two_hops(rows: Rows) -> Verdict:
    """Two hops need heads in two layers."""
    done = _holding(rows, TWO_HOP_TASK)
    if not done:
        return unsaid("no circuit holds the target on held-out prompts")
    best = min(done, key=lambda row: number(row, "edges") or 0)
    hops, edges = (number(best, "layers with heads") or 0) >= 2, number(best, "edges") or 0
    reason = (
        f"{edges:.0f} edges, {best['heads']} heads in {best['layers with heads']} layers, {best['v']} value channels "
        f"in {best['model']}"
    )
    return verdict(hops and edges <= TWO_HOP_EDGES, hops, reason)
