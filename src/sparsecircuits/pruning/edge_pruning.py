"""After the nodes: remove edges to the same loss, then nodes that no longer matter (beyond the paper)."""

from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor

from sparsecircuits.nodes.calibration import unbiased
from sparsecircuits.nodes.edges import Edges
from sparsecircuits.nodes.evaluator import Evaluator
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.discretise import Estimates, drop_needless, smallest_prefix, top_nodes
from sparsecircuits.pruning.learned_gates import learn_edge_gates
from sparsecircuits.tasks import Task

LEARN_ABOVE = 100  # edges; fewer are ranked well enough by leaving out one at a time
MOST_EDGES = 20_000

Tell = Callable[[str], None]


def prune_edges(
    task: Task,
    kept: Bool[Tensor, " nodes"],
    evaluate: Evaluator,
    target: float,
    config: PruneConfig,
    tell: Tell = lambda details: None,
) -> tuple[Bool[Tensor, " nodes"], Edges]:
    """The nodes and edges that are left when what is not needed for the target loss is gone.

    Many edges are first ranked by learned gates; then edges, and nodes, are left out one at a time. More than
    20,000 edges stay as they are.
    """
    edges = evaluate.edges_between(kept)
    on = torch.ones(len(edges), dtype=torch.bool)
    if LEARN_ABOVE < len(edges) <= MOST_EDGES:
        on = _ranked(task, kept, edges, evaluate, target, config, tell)
    while len(edges) <= MOST_EDGES:
        before = int(kept.sum()), int(on.sum())
        on = _drop_edges(kept, edges, on, evaluate, target, tell)
        kept = _drop_nodes(kept, edges[~on], evaluate, target)
        on &= edges.between(kept)
        if (int(kept.sum()), int(on.sum())) == before:
            break
    return kept, edges[on]


def _drop_edges(
    kept: Bool[Tensor, " nodes"],
    edges: Edges,
    on: Bool[Tensor, " E"],
    evaluate: Evaluator,
    target: float,
    tell: Tell,
) -> Bool[Tensor, " E"]:
    def report(left: int) -> None:
        tell(f"dropping the needless of {left} edges")

    estimates = Estimates(
        lambda chosen: evaluate.glance(kept, edges[~chosen]), lambda chosen: evaluate.edge_rises(kept, edges, chosen)
    )
    return drop_needless(on, lambda chosen: evaluate(kept, edges[~chosen]), target, report=report, estimates=estimates)


def _drop_nodes(
    kept: Bool[Tensor, " nodes"], removed: Edges, evaluate: Evaluator, target: float
) -> Bool[Tensor, " nodes"]:
    estimates = Estimates(
        lambda nodes: evaluate.glance(nodes, removed), lambda nodes: evaluate.node_rises(nodes, removed)
    )
    return drop_needless(kept, lambda nodes: evaluate(nodes, removed), target, estimates=estimates)


def _ranked(
    task: Task,
    kept: Bool[Tensor, " nodes"],
    edges: Edges,
    evaluate: Evaluator,
    target: float,
    config: PruneConfig,
    tell: Tell,
) -> Bool[Tensor, " E"]:
    """The smallest set of edges, by learned gates, that holds the target."""

    def report(step: int, loss: float, active: int) -> None:
        tell(f"edges: step {step} · loss {loss:.3f} · {active} edges")

    model, through = evaluate.model, unbiased(evaluate.model, evaluate.batches[0], target)
    tau = learn_edge_gates(model, task, evaluate.frozen, kept, edges, config, target, report, through)
    size = smallest_prefix(tau, lambda chosen: evaluate(kept, edges[~chosen]), target)
    return top_nodes(tau, len(edges) if size is None else size)
