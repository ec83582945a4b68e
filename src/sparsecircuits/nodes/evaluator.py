"""The calibrated loss of a set of nodes and edges, and how it depends on each of them."""

import copy
import math
from collections.abc import Callable, Sequence
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
CHALLENGED_PAIRS = 64  # of each batch, on which challenges are met


@dataclass(frozen=True)
class Part:
    """Some nodes and edges of a model."""

    nodes: Bool[Tensor, " nodes"]
    edges: Edges

    def has(self, edges: Edges) -> Bool[Tensor, " E"]:
        """Which of some edges are among its own."""
        return torch.isin(self._keys(edges), self._keys(self.edges))

    def __sub__(self, other: "Part") -> "Part":
        return Part(self.nodes & ~other.nodes, self.edges[~other.has(self.edges)])

    def _keys(self, edges: Edges) -> Tensor:
        return edges.source * len(self.nodes) + edges.target


@dataclass(frozen=True)
class _Demands:
    """What a set must hold beside its own loss (see `Evaluator.challenged`)."""

    challenges: tuple[Part, ...]
    allowance: float
    """What a loss under a challenge is multiplied by before it is compared."""
    enough: float
    """Sets whose own loss is larger are not put to challenges."""
    required: Part

    def misses(self, kept: Bool[Tensor, " nodes"], removed: Edges | None) -> bool:
        """Whether a set lacks anything required."""
        required = self.required
        return bool((required.nodes & ~kept).any() or (removed is not None and required.has(removed).any()))


@dataclass
class _Spent:
    """What an evaluator and those made from it have done."""

    calls: int = 0
    glances: int = 0


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
        self.space, self.spent = NodeSpace.of(model.config), _Spent()
        self._demands: _Demands | None = None
        # Donors' activations differ from prompt to prompt: nothing is constant then.
        self._narrowing = None if ablation == "resample" else narrowing or narrowing_of(model, frozen)
        self._compact = [
            CompactForward(model, batch, self._narrowing) for batch in batches if self._narrowing is not None
        ]

    @property
    def calls(self) -> int:
        """Sets scored on all prompts."""
        return self.spent.calls

    @property
    def glances(self) -> int:
        """Sets scored on the first few."""
        return self.spent.glances

    def challenged(self, challenges: Sequence[Part], goal: float, target: float, required: Part) -> "Evaluator":
        """One that counts together with this one and scores sets by the worse of their loss and of what it is under
        challenges, times goal / target: a set that holds the goal by itself is to hold the target under each.

        A challenge says what is ablated where it lies outside a set; all else that lies outside runs. Challenges
        are met on a part of the prompts, each with a calibration of its own: a bias is no damage. A set that misses the
        target by itself is not put to them. One that lacks anything required is as bad as can be.
        """
        other = copy.copy(self)
        other.__dict__.pop("_few", None)
        other._demands = _Demands(tuple(challenges), goal / target, target, required)
        return other

    @property
    def challenges(self) -> tuple[Part, ...]:
        """Those under which a set is scored too."""
        return () if self._demands is None else self._demands.challenges

    @property
    def challenged_batches(self) -> list[PairBatch]:
        """The part of the prompts that challenges are met on."""
        return [batch.rows(0, 2 * CHALLENGED_PAIRS) for batch in self.batches]

    def glance(self, kept: Bool[Tensor, " nodes"], removed: Edges | None = None) -> Score:
        """The worst calibrated loss on the first few pairs of each batch. Counted apart from `calls`."""
        self.spent.glances += 1
        return self._few(kept, removed)

    @cached_property
    def _few(self) -> "Evaluator":
        few = (batch.rows(0, 2 * GLANCED_PAIRS) for batch in self.batches)
        found = Evaluator(self.model, self.frozen, *few, ablation=self.ablation, narrowing=self._narrowing)
        found._demands = self._demands
        return found

    def logits(self, kept: Bool[Tensor, " nodes"], removed: Edges | None = None) -> list[Float[Tensor, "n 2"]]:
        """Candidate logits of each batch, not calibrated; `removed` edges between kept nodes are off too."""
        self.spent.calls += 1
        if self._compact:
            return [forward(kept, removed).cpu() for forward in self._compact]
        off = None if removed is None else EdgeGates.off(removed[removed.between(kept)])
        gating = self.gating(kept.float(), off)
        return [all_candidate_logits(self.model, batch, gating).cpu() for batch in self.batches]

    def node_rises(self, kept: Bool[Tensor, " nodes"], removed: Edges | None = None) -> Float[Tensor, " nodes"]:
        """About how much the calibrated loss rises without each of the kept nodes, to first order."""
        off = None if removed is None else EdgeGates.off(removed)
        return self._rises(kept, removed, kept, lambda gates: self.gating(gates, off))

    def edge_rises(self, kept: Bool[Tensor, " nodes"], edges: Edges, on: Bool[Tensor, " E"]) -> Float[Tensor, " E"]:
        """The same without each of the edges that are on."""
        nodes = kept.float()
        return self._rises(kept, edges[~on], on, lambda gates: self.gating(nodes, EdgeGates(edges, gates)))

    def _rises(
        self, kept: Tensor, removed: Edges | None, on: Tensor, gating: Callable[[Tensor], Gating]
    ) -> Float[Tensor, " size"]:
        chunks = [chunk for batch in self.batches for chunk in in_chunks(batch)[1]]
        return first_order_rises(self.model, chunks, on.float(), gating, self(kept, removed).calibration)

    def gating(self, gates: Float[Tensor, " nodes"], edges: EdgeGates | None = None) -> Gating:
        """What runs with gates on nodes and edges, all else frozen."""
        return Gating(self.space, gates, self.frozen, self.ablation, edges)

    def __call__(self, kept: Bool[Tensor, " nodes"], removed: Edges | None = None) -> Score:
        """The worst calibrated loss."""
        demands = self._demands
        if demands is not None and demands.misses(kept, removed):
            return Score(math.inf, Calibration())
        score = _worst(self.logits(kept, removed), self.batches)
        if demands is None or score.loss > demands.enough:
            return score
        return Score(max(score.loss, self._challenged_loss(demands, kept, removed)), score.calibration)

    def _challenged_loss(self, demands: _Demands, kept: Bool[Tensor, " nodes"], removed: Edges | None) -> float:
        """The worst loss under the challenges, with the allowance. The first that is more than enough is given as it
        is: a challenge is a pass of the whole model, and how far a set misses is not asked."""
        worst = 0.0
        for challenge in demands.challenges:
            worst = max(worst, demands.allowance * self.under(challenge, kept, removed))
            if worst > demands.enough:
                break
        return worst

    def under(self, challenge: Part, kept: Bool[Tensor, " nodes"], removed: Edges | None = None) -> float:
        """The worst calibrated loss of a set under a challenge, in nats."""
        off = None
        if removed is not None:
            removed = removed[removed.between(kept)]
            off = EdgeGates.off(removed[challenge.has(removed)])
        gating = self.gating((kept | ~challenge.nodes).float(), off)
        few = self.challenged_batches
        return _worst([all_candidate_logits(self.model, batch, gating).cpu() for batch in few], few).loss

    def edges_between(self, kept: Bool[Tensor, " nodes"]) -> Edges:
        """All edges between the nodes of a set."""
        return edges_between(self.model, self.space, kept)

    def point(self, kept: Bool[Tensor, " nodes"]) -> Point:
        """The size of a set of nodes with all edges between them, and its loss."""
        return int(kept.sum()), len(self.edges_between(kept)), self(kept).loss


def _worst(logits: Sequence[Float[Tensor, "n 2"]], batches: Sequence[PairBatch]) -> Score:
    """The largest loss of some batches, calibrated on the first."""
    correct = [correct_of(batch) for batch in batches]
    calibration = calibrate(logits[0], correct[0])
    losses = [task_loss(calibration(x), y).item() for x, y in zip(logits, correct, strict=True)]
    return Score(max(losses), calibration)
