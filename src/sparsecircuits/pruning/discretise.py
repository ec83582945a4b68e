"""From learned gates to a set of nodes: the smallest prefix of the ranking that holds the target, cleaned up."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.pruning.gates import NodeSpace, gated
from sparsecircuits.pruning.objective import (
    Calibration,
    all_candidate_logits,
    calibrate,
    correct_of,
    task_loss,
)
from sparsecircuits.tasks import PairBatch


@dataclass(frozen=True)
class Score:
    """A node set's loss on some prompts, after the calibration that suits them best."""

    loss: float
    calibration: Calibration


class Evaluator:
    """Scores node sets: kept nodes run, all others are frozen. Calls are counted.

    With several batches (say, of different splits) one calibration is fitted to all their prompts, and the
    loss is the worst batch's: what holds on one kind of prompt alone is not good enough.
    """

    def __init__(self, model: SparseTransformer, frozen: Float[Tensor, "nodes"], *batches: PairBatch) -> None:
        self.model, self.frozen, self.batches = model, frozen, batches
        self.space = NodeSpace.of(model.config)
        self.calls = 0

    def logits(self, kept: Bool[Tensor, "nodes"]) -> list[Float[Tensor, "n 2"]]:
        """Candidate logits of each batch, not calibrated."""
        self.calls += 1
        with gated(self.model, self.space, kept.float(), self.frozen):
            return [all_candidate_logits(self.model, batch).cpu() for batch in self.batches]

    def __call__(self, kept: Bool[Tensor, "nodes"]) -> Score:
        """The worst calibrated loss."""
        logits, correct = self.logits(kept), [correct_of(batch) for batch in self.batches]
        calibration = calibrate(torch.cat(logits), torch.cat(correct))
        losses = [task_loss(calibration(x), y).item() for x, y in zip(logits, correct, strict=True)]
        return Score(max(losses), calibration)


def top_nodes(tau: Float[Tensor, "nodes"], k: int) -> Bool[Tensor, "nodes"]:
    """The k nodes with the largest τ (ties: first in order of computation)."""
    order = tau.sort(descending=True, stable=True).indices[:k]
    return torch.zeros(tau.numel(), dtype=torch.bool).index_fill_(0, order, True)


def smallest_prefix(tau: Float[Tensor, "nodes"], evaluate: Evaluator, target: float) -> int | None:
    """Bisect for the smallest k whose top-k nodes hold the target loss; None if even all nodes miss it.

    Begins at the number of gates that are on, where the answer is near.
    """
    size = tau.numel()
    low, high = 0, max(1, int((tau >= 0).sum()))  # low misses the target, high is to be shown to hold it
    while evaluate(top_nodes(tau, high)).loss > target:
        if high == size:
            return None
        low, high = high, min(size, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        if evaluate(top_nodes(tau, middle)).loss <= target:
            high = middle
        else:
            low = middle
    return high


def drop_needless(
    kept: Bool[Tensor, "nodes"],
    evaluate: Evaluator,
    target: float,
    limit: int = 200,
    report: Callable[[int], None] | None = None,
) -> Bool[Tensor, "nodes"]:
    """Remove nodes one at a time, the least missed first, while the target still holds.

    Rounds of leave-one-out: a round scores every node's removal, then removes in that order whatever can
    go. Sets of more than `limit` nodes are left alone (the rounds would cost more than they bring).
    report(nodes left) before each round.
    """
    kept = kept.clone()
    while 0 < int(kept.sum()) <= limit:
        if report is not None:
            report(int(kept.sum()))
        losses = {node: evaluate(_without(kept, node)).loss for node in kept.nonzero().flatten().tolist()}
        removed = 0
        for node, loss in sorted(losses.items(), key=lambda item: item[1]):
            if loss > target:
                break
            without = _without(kept, node)
            if removed == 0 or evaluate(without).loss <= target:
                kept, removed = without, removed + 1
        if removed == 0:
            break
    return kept


def _without(kept: Bool[Tensor, "nodes"], node: int) -> Bool[Tensor, "nodes"]:
    return kept.clone().index_fill_(0, torch.tensor([node]), False)
