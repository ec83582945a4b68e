"""The calibrated loss of a set of nodes and edges, and how it depends on each of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.ablation import Ablation
from sparsecircuits.nodes.attribution import first_order_rises
from sparsecircuits.nodes.calibration import Calibration, calibrate
from sparsecircuits.nodes.compact_forward import CompactForward, narrowing_of
from sparsecircuits.nodes.edges import EdgeGates, Edges, edges_between
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.task_loss import all_candidate_logits, correct_of, in_chunks, task_loss
from sparsecircuits.plans.narrowing import Narrowing
from sparsecircuits.tasks import PairBatch

Point = tuple[int, int, float]
"""Nodes, edges, loss in nats (the worst of the batches, calibrated): a set's place on a curve."""

GLANCED_PAIRS = 48  # of each batch: enough to put members of a set in order


@dataclass(frozen=True)
class Score:
    """A set's loss on some prompts, calibrated."""

    loss: float
    calibration: Calibration


class Evaluator:
    """Scores sets of nodes and edges: they run, all else is frozen. Calls are counted.

    The calibration is fitted to the first batch, the training prompts, and used on all of them; the loss is the
    worst batch's: what holds on one kind of prompt alone is not good enough. narrowing: `narrowing_of` the model and
    its frozen nodes, where it is known.
    """

    def __init__(
        self,
        model: SparseTransformer,
        frozen: Float[Tensor, " nodes"],
        *batches: PairBatch,
        ablation: Ablation = "mean",
        narrowing: Narrowing | None = None,
    ) -> None:
        self.model, self.frozen, self.batches, self.ablation = model, frozen, batches, ablation
        self.space = NodeSpace.of(model.config)
        self.calls = self.glances = 0
        # Donors' activations differ from prompt to prompt: nothing is constant then.
        self._narrowing = None if ablation == "resample" else narrowing or narrowing_of(model, frozen)
        self._compact = [
            CompactForward(model, batch, self._narrowing) for batch in batches if self._narrowing is not None
        ]

    def glance(self, kept: Bool[Tensor, " nodes"], removed: Edges | None = None) -> Score:
        """The worst calibrated loss on the first few pairs of each batch. Counted apart from `calls`."""
        self.glances += 1
        return self._few(kept, removed)

    @cached_property
    def _few(self) -> "Evaluator":
        few = (batch.rows(0, 2 * GLANCED_PAIRS) for batch in self.batches)
        return Evaluator(self.model, self.frozen, *few, ablation=self.ablation, narrowing=self._narrowing)

    def logits(self, kept: Bool[Tensor, " nodes"], removed: Edges | None = None) -> list[Float[Tensor, "n 2"]]:
        """Candidate logits of each batch, not calibrated; `removed` edges between kept nodes are off too."""
        self.calls += 1
        if self._compact:
            return [forward(kept, removed).cpu() for forward in self._compact]
        off = None
        if removed is not None:
            removed = removed[removed.between(kept)]
            off = EdgeGates(removed, torch.zeros(len(removed)))
        gating = self._gating(kept.float(), off)
        return [all_candidate_logits(self.model, batch, gating).cpu() for batch in self.batches]

    def node_rises(self, kept: Bool[Tensor, " nodes"], removed: Edges | None = None) -> Float[Tensor, " nodes"]:
        """About how much the calibrated loss rises without each of the kept nodes, to first order."""
        off = None if removed is None else EdgeGates(removed, torch.zeros(len(removed)))
        return self._rises(kept, removed, kept, lambda gates: self._gating(gates, off))

    def edge_rises(self, kept: Bool[Tensor, " nodes"], edges: Edges, on: Bool[Tensor, " E"]) -> Float[Tensor, " E"]:
        """The same without each of the edges that are on."""
        nodes = kept.float()
        return self._rises(kept, edges[~on], on, lambda gates: self._gating(nodes, EdgeGates(edges, gates)))

    def _rises(
        self, kept: Tensor, removed: Edges | None, on: Tensor, gating: Callable[[Tensor], Gating]
    ) -> Float[Tensor, " size"]:
        chunks = [chunk for batch in self.batches for chunk in in_chunks(batch)[1]]
        return first_order_rises(self.model, chunks, on.float(), gating, self(kept, removed).calibration)

    def _gating(self, gates: Tensor, edges: EdgeGates | None) -> Gating:
        return Gating(self.space, gates, self.frozen, self.ablation, edges)

    def __call__(self, kept: Bool[Tensor, " nodes"], removed: Edges | None = None) -> Score:
        """The worst calibrated loss."""
        logits, correct = self.logits(kept, removed), [correct_of(batch) for batch in self.batches]
        calibration = calibrate(logits[0], correct[0])
        losses = [task_loss(calibration(x), y).item() for x, y in zip(logits, correct, strict=True)]
        return Score(max(losses), calibration)

    def edges_between(self, kept: Bool[Tensor, " nodes"]) -> Edges:
        """All edges between the nodes of a set."""
        return edges_between(self.model, self.space, kept)

    def point(self, kept: Bool[Tensor, " nodes"]) -> Point:
        """The size of a set of nodes with all edges between them, and its loss."""
        return int(kept.sum()), len(self.edges_between(kept)), self(kept).loss
