"""How a circuit's loss depends on its size: sets looser and tighter than the one that was chosen."""

from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.circuits.schema import CircuitData
from sparsecircuits.errors import UserError
from sparsecircuits.nodes.edges import Edges
from sparsecircuits.nodes.evaluator import Evaluator, Point
from sparsecircuits.pruning.discretise import top_nodes

GROWTH = 1.6  # from one size of the ranking's prefixes to the next
LARGEST = 1000
MOST_SMALLER = 40


def size_curve(
    evaluate: Evaluator,
    tau: Float[Tensor, " nodes"],
    kept: Bool[Tensor, " nodes"],
    edges: Edges,
    removed: Edges,
    importance: dict[int, float],
) -> list[Point]:
    """The Pareto front of edges against loss over: prefixes of the ranking larger than the circuit, the
    circuit, and the circuit less its least important nodes, one after the other, down to nothing."""
    points = [(int(kept.sum()), len(edges), evaluate(kept, removed).loss)]
    size = max(4, int(kept.sum()))
    while size < min(LARGEST, tau.numel()):
        size = int(size * GROWTH) + 1
        points.append(evaluate.point(top_nodes(tau, size)))
        if points[-1][2] < 0.01:
            break
    left = kept.clone()
    order = sorted(importance, key=importance.__getitem__)
    for place, node in enumerate(order):
        left[node] = False
        if place % (1 + len(order) // MOST_SMALLER) == 0 or place == len(order) - 1:
            points.append((int(left.sum()), int(edges.between(left).sum()), evaluate(left, removed).loss))
    return pareto_front(points)


def curve_of(circuit: CircuitData) -> list[Point]:
    """The curve that a circuit was found with, as pruning wrote it down. Raises UserError where it is not there."""
    if circuit.found_by.curve is None:
        raise UserError(f"the circuit of {circuit.task} does not hold the curve of its pruning: prune again")
    return list(circuit.found_by.curve)


def pareto_front(points: list[Point]) -> list[Point]:
    """The points that no other beats in both edges and loss, from small to large."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p[1], p[2], p[0])):
        if not front or point[2] < front[-1][2]:
            front.append(point)
    return front


def edges_at(front: list[Point], target: float) -> int | None:
    """The fewest edges of a front that hold a target loss; None if none does."""
    return min((edges for _, edges, loss in front if loss <= target), default=None)
