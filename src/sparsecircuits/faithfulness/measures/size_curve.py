"""Loss against size, and MIB's areas under it with a logarithmic size axis."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.circuits.sizes import loss_at_size, nodes_by_importance, shown_sizes
from sparsecircuits.faithfulness.measures.estimate import finite
from sparsecircuits.nodes.attribution import first_order_rises
from sparsecircuits.nodes.evaluator import Evaluator
from sparsecircuits.tasks import PairBatch

GROWTH = 2.0  # from one size outside the circuit to the next


class CurvePoint(BaseModel):
    """A set of nodes and its loss in nats, with the calibration that suits it best."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: int
    edges: int
    loss: float


class SizeCurve(BaseModel):
    """Loss against size, from nothing to the whole model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: tuple[CurvePoint, ...]
    cpr_log: float | None
    """Area under faithfulness f against log size, per unit of the axis: the larger the better."""
    cmd_log: float | None
    """Area of |1 - f| likewise: the smaller the better, 0 at best."""
    cpr_linear: float | None
    cmd_linear: float | None


def size_curve(bound: Bound, batch: PairBatch, *, sizes: int = 12) -> SizeCurve:
    """Nested sets: the circuit's most important nodes; the circuit; then more nodes around it, by the gradient of
    the loss in their gates, up to all. Recomputes from model and circuit.

    f(k) = (empty - loss(k)) / (empty - full); CPR and CMD are MIB's (Mueller et al. 2025), whose linear axis of
    sizes hardly sees circuits below 1% of the model, so both are given over log size too.
    """
    space, evaluate = bound.space, bound.evaluator(batch)
    order, points = nodes_by_importance(bound, batch), []
    on = {(edge.source, edge.target) for edge in bound.circuit.edges}
    for size in shown_sizes(len(order), sizes):
        inside = set(order[:size])
        edges = sum(source in inside and target in inside for source, target in on)
        points.append(CurvePoint(nodes=size, edges=edges, loss=loss_at_size(bound, evaluate, order, size).loss))
    around = _around(bound, batch)
    kept, size = bound.kept, max(8, 2 * len(order))
    while size < 2 * space.size:
        size_here = min(size, space.size)
        mask = kept.clone()
        mask[around[: max(0, size_here - int(kept.sum()))]] = True
        points.append(_point(evaluate, mask))
        size = int(size * GROWTH)
    if points[-1].nodes < space.size:
        points.append(_point(evaluate, torch.ones(space.size, dtype=torch.bool)))
    areas = {name: areas_under(points, log) for name, log in (("log", True), ("linear", False))}
    return SizeCurve(
        points=tuple(points),
        cpr_log=areas["log"][0],
        cmd_log=areas["log"][1],
        cpr_linear=areas["linear"][0],
        cmd_linear=areas["linear"][1],
    )


def _point(evaluate: Evaluator, kept: Bool[Tensor, " nodes"]) -> CurvePoint:
    nodes, edges, loss = evaluate.point(kept)
    return CurvePoint(nodes=nodes, edges=edges, loss=loss)


def areas_under(points: list[CurvePoint], log: bool) -> tuple[float | None, float | None]:
    """(CPR, CMD) of a curve from nothing to the whole model, over size or log size, each per unit of the axis."""
    empty, full = points[0].loss, points[-1].loss
    if empty <= full:
        return None, None
    f = np.array([(empty - point.loss) / (empty - full) for point in points])
    size = np.array([point.nodes for point in points], dtype=float)
    x = np.log(np.maximum(size, 1)) if log else size
    span = x[-1] - x[0]
    return finite(np.trapezoid(f, x) / span), finite(np.trapezoid(np.abs(1 - f), x) / span)


def _around(bound: Bound, batch: PairBatch) -> Tensor:
    """Ids of nodes outside the circuit, the most wanted first: by how much the loss of the circuit alone falls per
    unit of their gates, to first order."""
    kept = bound.kept
    chunk, alone = batch.rows(0, min(64, len(batch.last))), replace(bound.alone, edges=None)
    wanted = first_order_rises(bound.model, [chunk], kept.float(), lambda gates: replace(alone, gates=gates))
    wanted[kept] = -torch.inf
    return wanted.sort(descending=True, stable=True).indices[: int((~kept).sum())]
