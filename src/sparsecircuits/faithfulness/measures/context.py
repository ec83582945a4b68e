"""Context tests: longer prompts than the circuit was found on, constant queries, other templates."""

import random
from collections.abc import Callable

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.faithfulness.measures.estimate import Estimate, estimate
from sparsecircuits.faithfulness.measures.runs import final_logits, losses_of
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import Calibration
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.task_loss import accuracy, correct_of, in_order, pick_answers
from sparsecircuits.tasks import SPLITS, Pair, PairBatch, Task
from sparsecircuits.tasks.brackets import BRACKET_COUNTING, list_of
from sparsecircuits.tasks.words import context_lines


class Tried(BaseModel):
    """Model and circuit on some prompts, both with their calibrations from training prompts: losses in nats,
    accuracies; beside it the raw losses, and the shares of pairs in the right order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    prompts: int
    loss_model: Estimate
    loss_circuit: Estimate
    accuracy_model: float
    accuracy_circuit: float
    raw_model: float
    raw_circuit: float
    order_model: float
    order_circuit: float


def tried(bound: Bound, whole: Calibration, batch: PairBatch, name: str, seed: int = 0) -> Tried:
    """The whole model, with its calibration `whole`, and the circuit alone on any prompts."""
    raw = [pick_answers(final_logits(bound.model, batch, gating), batch) for gating in (None, bound.alone)]
    full, alone = whole(raw[0]), bound.circuit.calibration(raw[1])
    correct = correct_of(batch)
    return Tried(
        name=name,
        prompts=len(batch.last),
        loss_model=estimate(losses_of(full, batch), seed=seed),
        loss_circuit=estimate(losses_of(alone, batch), seed=seed),
        accuracy_model=accuracy(full, correct),
        accuracy_circuit=accuracy(alone, correct),
        raw_model=losses_of(raw[0], batch).mean().item(),
        raw_circuit=losses_of(raw[1], batch).mean().item(),
        order_model=in_order(raw[0], correct),
        order_circuit=in_order(raw[1], correct),
    )


def splits(bound: Bound, task: Task, whole: Calibration, *, pairs: int = 64, seed: int = 0) -> list[Tried]:
    """Templates and names that the circuit was found on (train), chosen with (validation) and has never seen
    (held_out). A circuit that fits its templates alone is good on the first."""
    return [
        tried(bound, whole, task.encode(found), split, seed)
        for split in SPLITS
        if (found := task.draw(split, pairs, seed))
    ]


def dilution(
    bound: Bound, task: Task, whole: Calibration, *, pairs: int = 48, seed: int = 0
) -> tuple[str, list[Tried]]:
    """What is varied, and model and circuit on ever longer prompts of held-out names (Gao et al. 2025, section 3.2:
    a head that averages over a list is diluted by long ones).

    For bracket_counting the list grows, from 2 to 32 items; for other tasks the code before the prompt does, from 0
    to 16 lines. Prompts that the model's context does not hold are left out.
    """
    lists = task.name == BRACKET_COUNTING.name
    sizes, what = ((2, 4, 8, 16, 32), "items in the list") if lists else ((0, 4, 8, 16), "lines of code before")
    make: Callable[[random.Random, int], Pair] = (
        (lambda rng, n: list_of(rng, "held_out", n)) if lists else (lambda rng, n: _after_lines(task, rng, n))
    )
    found = []
    for size in sizes:
        rng = random.Random(f"dilution/{task.name}/{size}/{seed}")
        batch = fitting(task.encode([make(rng, size) for _ in range(pairs)]), bound.model.config.n_ctx)
        if len(batch.last):
            found.append(tried(bound, whole, batch, str(size), seed))
    return what, found


def _after_lines(task: Task, rng: random.Random, lines: int) -> Pair:
    pair, before = task.sample(rng, "held_out"), context_lines(rng, "held_out", lines)
    return Pair(before + pair.left, before + pair.right, pair.left_rest, pair.right_rest)


def fitting(batch: PairBatch, n_ctx: int) -> PairBatch:
    """The pairs whose two prompts fit a context."""
    fits = (batch.last.reshape(-1, 2) < n_ctx).all(axis=1).repeat(2)
    taken = batch.take(fits.nonzero()[0])
    return taken.rows(0, len(taken.last)) if len(taken.last) else taken


class ConstantQuery(BaseModel):
    """One head with its queries frozen at their mean over the prompts' tokens; losses in nats."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    head: str
    loss_circuit: float
    loss_model: float
    constant: bool
    """The circuit's loss rises by less than 1% of what it gains: where the head looks does not depend on the
    token that looks."""


def constant_queries(bound: Bound, whole: Calibration, batch: PairBatch, *, gained: float) -> list[ConstantQuery]:
    """For every head with a kept channel, make its queries constant in the circuit and in the model (Gao et al.
    2025, section 3.2)."""
    model, circuit, gating = bound.model, bound.circuit, bound.alone
    heads = sorted(
        {(node.layer, node.head) for node in circuit.nodes if node.head is not None and node.layer is not None}
    )
    width, found = model.config.d_head, []
    base = _loss(model, circuit.calibration, batch, gating, None)
    for layer, head in heads:
        site, channels = f"{layer}.attn.q", slice(head * width, (head + 1) * width)
        runs = ((gating, circuit.calibration), (None, whole))
        losses = [_loss(model, fair, batch, g, (site, channels)) for g, fair in runs]
        constant = losses[0] - base < 0.01 * max(gained, 1e-9)
        found.append(
            ConstantQuery(head=f"{layer}.{head}", loss_circuit=losses[0], loss_model=losses[1], constant=constant)
        )
    return found


def _loss(
    model: SparseTransformer,
    calibration: Calibration,
    batch: PairBatch,
    gating: Gating | None,
    frozen: tuple[str, slice] | None,
) -> float:
    def averaged(x: Tensor, last: Tensor, channels: slice) -> Tensor:
        real = (torch.arange(x.shape[1])[None] <= last[:, None]).to(x)[..., None]
        mean = (x[..., channels] * real).sum(dim=(0, 1)) / real.sum()
        x = x.clone()
        x[..., channels] = mean
        return x

    changes = None
    if frozen is not None:
        site, channels = frozen

        def changes(start: int, stop: int, width: int) -> dict[str, Callable[[Tensor], Tensor]]:
            last = torch.from_numpy(batch.last[start:stop])
            return {site: lambda x: averaged(x, last.to(x.device), channels)}

    logits = pick_answers(final_logits(model, batch, gating, changes=changes), batch)
    return losses_of(calibration(logits), batch).mean().item()
