"""From a ranking of nodes or edges to a set: the smallest prefix that holds the target, cleaned up."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.pruning.compact import CompactForward
from sparsecircuits.pruning.edges import EdgeGates, Edges
from sparsecircuits.pruning.gates import NodeSpace
from sparsecircuits.pruning.gating import Ablation, Gating
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
    """A set's loss on some prompts, after the calibration that suits them best."""

    loss: float
    calibration: Calibration


class Evaluator:
    """Scores sets of nodes and edges: they run, all else is frozen. Calls are counted.

    With several batches (say, of different splits) one calibration is fitted to all their prompts, and the
    loss is the worst batch's: what holds on one kind of prompt alone is not good enough.
    """

    def __init__(
        self,
        model: SparseTransformer,
        frozen: Float[Tensor, " nodes"],
        *batches: PairBatch,
        ablation: Ablation = "mean",
    ) -> None:
        self.model, self.frozen, self.batches, self.ablation = model, frozen, batches, ablation
        self.space = NodeSpace.of(model.config)
        self.calls = 0
        # Donors' activations differ from prompt to prompt: nothing is constant then.
        self._compact = [CompactForward(model, frozen, batch) for batch in batches if ablation != "resample"]

    def logits(self, kept: Bool[Tensor, " nodes"], removed: Edges | None = None) -> list[Float[Tensor, "n 2"]]:
        """Candidate logits of each batch, not calibrated; `removed` edges between kept nodes are off too."""
        self.calls += 1
        if self._compact:
            return [forward(kept, removed).cpu() for forward in self._compact]
        gating = Gating(self.space, kept.float(), self.frozen, self.ablation)
        if removed is not None:
            removed = removed[removed.between(kept)]
            gating = replace(gating, edges=EdgeGates(removed, torch.zeros(len(removed))))
        return [all_candidate_logits(self.model, batch, gating).cpu() for batch in self.batches]

    def __call__(self, kept: Bool[Tensor, " nodes"], removed: Edges | None = None) -> Score:
        """The worst calibrated loss."""
        logits, correct = self.logits(kept, removed), [correct_of(batch) for batch in self.batches]
        calibration = calibrate(torch.cat(logits), torch.cat(correct))
        losses = [task_loss(calibration(x), y).item() for x, y in zip(logits, correct, strict=True)]
        return Score(max(losses), calibration)


Scorer = Callable[[Bool[Tensor, " size"]], Score]


def top_nodes(tau: Float[Tensor, " size"], k: int) -> Bool[Tensor, " size"]:
    """The k nodes or edges with the largest τ (ties: first in order of computation)."""
    order = tau.sort(descending=True, stable=True).indices[:k]
    return torch.zeros(tau.numel(), dtype=torch.bool).index_fill_(0, order, True)


def smallest_prefix(tau: Float[Tensor, " size"], evaluate: Scorer, target: float) -> int | None:
    """Bisect for the smallest k whose top-k set holds the target loss; None if even all of it misses.

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
    kept: Bool[Tensor, " size"],
    evaluate: Scorer,
    target: float,
    limit: int = 200,
    report: Callable[[int], None] | None = None,
) -> Bool[Tensor, " size"]:
    """Remove nodes (or edges) one at a time, the least missed first, while the target still holds.

    Rounds of leave-one-out: a round scores every node's removal, then removes in that order whatever can
    go. Sets of more than `limit` nodes are left alone (the rounds would cost more than they bring).
    report(how many are left) before each round.
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


def _without(kept: Bool[Tensor, " size"], node: int) -> Bool[Tensor, " size"]:
    return kept.clone().index_fill_(0, torch.tensor([node]), False)
