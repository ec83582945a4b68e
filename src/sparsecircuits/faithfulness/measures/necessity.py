"""Necessity, minimality, completeness: what goes when nodes go."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.faithfulness.measures.estimate import Estimate, estimate
from sparsecircuits.faithfulness.measures.runs import final_logits, losses_of
from sparsecircuits.nodes.calibration import fitted
from sparsecircuits.nodes.edges import Edges
from sparsecircuits.nodes.task_loss import correct_of, pick_answers
from sparsecircuits.tasks import PairBatch

T = TypeVar("T")
LN2 = math.log(2)
BROKEN = 0.9 * LN2
"""A task counts as broken above this loss."""


class Necessity(BaseModel):
    """Losses of the whole model, in nats, with nodes ablated; all calibrated, so that no bias looks like damage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ablated: Estimate
    """Only the circuit's nodes are ablated ("inverse pruning")."""
    necessity: Estimate
    """(ablated - full) / (ln 2 - full), at most 1: how far towards chance the model falls."""
    breaks: bool
    """The loss rises above 0.9 ln 2."""
    random: tuple[float, ...]
    """As many random nodes of the same sites, outside the circuit, are ablated instead; one loss per draw."""
    random_mean: float
    random_worst: float


def towards_chance(ablated: np.ndarray, full: np.ndarray) -> np.ndarray:
    """(ablated - full) / (ln 2 - full), at most 1; NaN where the model is no better than chance."""
    span = LN2 - full
    return np.where(span > 0, np.minimum(1, (ablated - full) / np.where(span > 0, span, 1)), np.nan)


def random_nodes_like(bound: Bound, generator: torch.Generator) -> Bool[Tensor, " nodes"]:
    """A mask of as many random nodes per site as the circuit has there, none of them in it."""
    kept, chosen = bound.kept, torch.zeros(bound.space.size, dtype=torch.bool)
    for place in bound.space.slices.values():
        outside = (~kept[place]).nonzero().flatten() + place.start
        wanted = min(int(kept[place].sum()), outside.numel())
        chosen[outside[torch.randperm(outside.numel(), generator=generator)[:wanted]]] = True
    return chosen


def necessity(
    bound: Bound,
    small: PairBatch,
    learn: PairBatch,
    ablated: Float[Tensor, " n"],
    full: Float[Tensor, " n"],
    *,
    draws: int = 5,
    seed: int = 0,
) -> Necessity:
    """What is left of the whole model without the circuit's nodes, and, `draws` times, without as many random ones
    (Gao et al. 2025, section 2.2). A circuit that is one of two ways to the answer is sufficient, and not necessary.

    ablated, full [n]: losses per prompt without the circuit's nodes and of the whole model, calibrated. small: some
    prompts for the random nodes; learn: training prompts for their calibrations.
    """
    model, generator = bound.model, torch.Generator().manual_seed(seed)
    random = []
    for _ in range(draws):
        gating = bound.without(random_nodes_like(bound, generator))
        logits = fitted(model, learn, gating)(pick_answers(final_logits(model, small, gating), small))
        random.append(losses_of(logits, small).mean().item())
    return Necessity(
        ablated=estimate(ablated, seed=seed),
        necessity=estimate(ablated, full, of=towards_chance, seed=seed),
        breaks=ablated.mean().item() > BROKEN,
        random=tuple(random),
        random_mean=float(np.mean(random)),
        random_worst=max(random),
    )


class Part(BaseModel):
    """A node or an edge, and by how much the circuit's loss in nats rises without it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    rise: float


class Minimality(BaseModel):
    """Leave-one-out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: tuple[Part, ...]
    edges: tuple[Part, ...]
    measured: int
    """How many nodes and edges were left out, one at a time; in large circuits, evenly spread ones."""
    needless: tuple[str, ...]
    """Those without which the loss rises by less than 1% of what the circuit gains over nothing."""
    needless_share: float


def minimality(
    bound: Bound,
    batch: PairBatch,
    *,
    gained: float,
    most: int = 100,
    edges: bool = True,
) -> Minimality:
    """Leave out each node, and each edge, of the circuit alone (minimality: Wang et al. 2022, section 4).

    gained: nats between the loss of nothing and of the circuit. most: parts of each kind at most.
    """
    circuit, run = bound.circuit, bound.evaluator(batch)

    def loss(kept: Tensor, removed: Edges) -> float:
        return losses_of(circuit.calibration(run.logits(kept, removed)[0]), batch).mean().item()

    base = loss(bound.kept, bound.removed)
    node_parts, edge_parts = [], []
    for name in _spread(circuit.node_names, most):
        rise = loss(bound.kept & ~bound.space.mask([name]), bound.removed) - base
        node_parts.append(Part(name=name, rise=rise))
    for edge in _spread(circuit.edges, most) if edges else ():
        rise = loss(bound.kept, bound.removed_with(edge)) - base
        edge_parts.append(Part(name=f"{edge.source} → {edge.target}", rise=rise))
    parts = node_parts + edge_parts
    needless = tuple(part.name for part in parts if part.rise < 0.01 * max(gained, 1e-9))
    return Minimality(
        nodes=tuple(node_parts),
        edges=tuple(edge_parts),
        measured=len(parts),
        needless=needless,
        needless_share=len(needless) / max(1, len(parts)),
    )


def _spread(items: Sequence[T], most: int) -> Sequence[T]:
    return items if len(items) <= most else [items[i * len(items) // most] for i in range(most)]


class Knockout(BaseModel):
    """Some of the circuit's nodes ablated, in the circuit and in the whole model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: int
    circuit: float
    """Mean probability of the right answer in the circuit."""
    model: float


class Completeness(BaseModel):
    """Knockouts of subsets of the circuit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    knockouts: tuple[Knockout, ...]
    incompleteness: Estimate
    """Mean over knockouts and prompts of |p(right) in the circuit - p(right) in the model|, between 0 and 1. Large
    when the model has another way that the circuit lacks."""


def completeness(bound: Bound, batch: PairBatch, *, subsets: int = 12, seed: int = 0) -> Completeness:
    """Knock out the same nodes in circuit and model: do both suffer alike (Wang et al. 2022, section 4)?

    Random subsets of the circuit's nodes, each node with probability 1/2, and the whole circuit. The model is raw: a
    knockout brings margins near the boundary, where two calibrations that agree on whole prompts part.
    """
    model, circuit, rng = bound.model, bound.circuit, np.random.default_rng(seed)
    names, correct = circuit.node_names, correct_of(batch)
    chosen = [[name for name in names if rng.random() < 0.5] for _ in range(subsets)]
    found, differences, run = [], [], bound.evaluator(batch)
    for out in [*chosen, names]:
        mask = bound.space.mask(out)
        inside = run.logits(bound.kept & ~mask, bound.removed)[0]
        outside = pick_answers(final_logits(model, batch, bound.without(mask)), batch)
        p, q = (x.softmax(dim=-1).gather(1, correct[:, None])[:, 0] for x in (circuit.calibration(inside), outside))
        found.append(Knockout(nodes=len(out), circuit=p.mean().item(), model=q.mean().item()))
        differences.append((p - q).abs())
    return Completeness(
        knockouts=tuple(found), incompleteness=estimate(torch.stack(differences).mean(dim=0), seed=seed)
    )
