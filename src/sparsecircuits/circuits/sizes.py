"""Smaller circuits inside a circuit: its nodes by importance, and the loss at each size."""

from dataclasses import replace

import torch
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.nodes.attribution import first_order_rises
from sparsecircuits.nodes.evaluator import Evaluator, Score
from sparsecircuits.tasks import PairBatch


def nodes_by_importance(bound: Bound, batch: PairBatch) -> list[str]:
    """Node names, the most important first: by the recorded rise of the loss without each; where that was
    not measured (large circuits), by the gradient of the loss in each node's gate."""
    circuit = bound.circuit
    scores = {node.name: node.importance for node in circuit.nodes if node.importance is not None}
    if len(scores) < len(circuit.nodes):
        scores = dict(zip(circuit.node_names, _attribution(bound, batch).tolist(), strict=True))
    return sorted(scores, key=lambda name: -scores[name])


def _attribution(bound: Bound, batch: PairBatch) -> Tensor:
    """A first-order leave-one-out of each node of the circuit, all gates on."""
    kept = bound.kept
    rises = first_order_rises(bound.model, [batch], kept.float(), lambda gates: replace(bound.alone, gates=gates))
    place = dict(zip(bound.space.names(kept), rises[kept], strict=True))
    return torch.stack([place[name] for name in bound.circuit.node_names])


def loss_at_size(bound: Bound, evaluate: Evaluator, order: list[str], size: int) -> Score:
    """Loss of the `size` most important nodes alone, with the calibration that suits them on the evaluator's prompts
    (see `Bound.evaluator`)."""
    return evaluate(bound.space.mask(order[:size]), bound.removed)


def shown_sizes(n_nodes: int, most: int = 40) -> list[int]:
    """The sizes of a loss-vs-size curve: every one, or about `most` evenly spaced on a log scale."""
    if n_nodes <= most:
        return list(range(n_nodes + 1))
    ratio = n_nodes ** (1 / (most - 1))
    return sorted({0, *(min(n_nodes, round(ratio**i)) for i in range(most)), n_nodes})
