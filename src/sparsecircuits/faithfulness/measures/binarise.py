"""Feature binarisation: the circuit with its nodes in two values."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.circuits.descriptions import SHARES, activations
from sparsecircuits.faithfulness.measures.estimate import Estimate, estimate
from sparsecircuits.faithfulness.measures.runs import final_logits, losses_of
from sparsecircuits.models.names import split_node
from sparsecircuits.nodes.task_loss import accuracy, correct_of, pick_answers
from sparsecircuits.tasks import PairBatch


class TwoValued(BaseModel):
    """A node as a step: `low` below the threshold, `high` at or above it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    threshold: float
    low: float
    high: float


class Binarised(BaseModel):
    """The circuit with every node replaced by two values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: Estimate
    """Nats, with the circuit's calibration; beside the circuit's own loss on the same prompts."""
    loss_before: float
    accuracy: float
    nodes: tuple[TwoValued, ...]


def binarise(bound: Bound, learn: PairBatch, test: PairBatch, *, seed: int = 0) -> Binarised:
    """Replace each node of the circuit alone by a step between two values (Gao et al. 2025, appendix).

    Node by node, in order of computation, the threshold that leaves the lowest loss on `learn`; the
    two values are the means below and above it. The loss is of `test`. A circuit that survives computes with
    features that are on or off.
    """
    seen = activations(bound, learn, alone=True)
    steps: dict[str, TwoValued] = {}
    for name in bound.circuit.node_names:
        tried = [{**steps, name: step} for step in _steps(name, seen[name])]
        if tried:
            on_learn = [_binary_losses(bound, learn, choice)[0].mean().item() for choice in tried]
            steps = tried[int(np.argmin(on_learn))]
    losses, right = _binary_losses(bound, test, steps)
    before = _binary_losses(bound, test, {})[0].mean().item()
    return Binarised(loss=estimate(losses, seed=seed), loss_before=before, accuracy=right, nodes=tuple(steps.values()))


def _steps(name: str, values: np.ndarray) -> Iterator[TwoValued]:
    x = values[np.isfinite(values)]
    for share in SHARES if x.max() > x.min() else ():
        threshold = float(x.min() + share * (x.max() - x.min()))
        below, above = x[x < threshold], x[x >= threshold]
        yield TwoValued(name=name, threshold=threshold, low=float(below.mean()), high=float(above.mean()))


def _binary_losses(bound: Bound, batch: PairBatch, steps: dict[str, TwoValued]) -> tuple[Tensor, float]:
    by_site: dict[str, list[tuple[int, TwoValued]]] = {}
    for name, step in steps.items():
        site, index = split_node(name)
        by_site.setdefault(site, []).append((index, step))

    def at(nodes: list[tuple[int, TwoValued]]) -> Callable[[Tensor], Tensor]:
        def apply(x: Tensor) -> Tensor:
            x = x.clone()
            for index, step in nodes:
                x[..., index] = torch.where(x[..., index] >= step.threshold, step.high, step.low)
            return x

        return apply

    def changes(start: int, stop: int, width: int) -> dict[str, Callable[[Tensor], Tensor]]:
        return {site: at(nodes) for site, nodes in by_site.items()}

    logits = pick_answers(final_logits(bound.model, batch, bound.alone, changes=changes), batch)
    logits = bound.circuit.calibration(logits)
    return losses_of(logits, batch), accuracy(logits, correct_of(batch))
