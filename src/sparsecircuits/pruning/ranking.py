"""How nodes are ranked: learned gates, or one of the baselines that they must beat."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import Calibration
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.pruning.baselines import eap_ig_scores, gate_gradients, midpoints, weight_scores
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.learned_gates import Report, frozen_weights, learn_gates, training_batches
from sparsecircuits.tasks import Task

FIRST_SIZE = 64  # where the search for the size of a baseline's set begins


def rank_nodes(
    model: SparseTransformer,
    task: Task,
    frozen: Float[Tensor, " nodes"],
    config: PruneConfig,
    goal: float,
    report: Report | None = None,
    calibration: Calibration | None = None,
    allowed: Bool[Tensor, " nodes"] | None = None,
) -> Float[Tensor, " nodes"]:
    """A score per node by `config.method`, the larger the more needed; at least 0 for the likely circuit.

    learned: τ of the learned gates, which are to hold the loss `goal`. gradient: the loss's first-order rise
    when a node is frozen (attribution patching). integrated-gradients: the same, averaged over gates between
    0 and 1. eap-ig: edge attribution patching with integrated gradients (Hanna et al. 2024), summed over each
    node's edges. weight-magnitude: the sum of the absolute weights on a node's edges. random: by seed.
    calibration: what the logits go through, by default nothing. allowed: nodes that may run, by default all; learned
    gates and gradients are those of a model where the others are frozen, and what the others score means nothing.
    """
    if config.method == "learned":
        return learn_gates(model, task, frozen, config, goal, report, calibration, allowed)
    space = NodeSpace.of(model.config)
    if config.method == "random":
        scores = torch.rand(space.size, generator=torch.Generator().manual_seed(config.seed))
    elif config.method == "weight-magnitude":
        scores = weight_scores(model, space)
    else:
        batches = training_batches(task, config)
        with frozen_weights(model):
            if config.method == "eap-ig":
                scores = eap_ig_scores(model, space, batches, calibration)
            else:
                at = [1.0] if config.method == "gradient" else midpoints()
                scores = gate_gradients(model, space, frozen, config, batches, at, calibration, allowed)
    ranked = scores if allowed is None else scores[allowed]
    if not len(ranked):
        return scores
    return scores - ranked.sort(descending=True).values[min(FIRST_SIZE, len(ranked)) - 1]
