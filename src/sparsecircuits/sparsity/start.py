"""A model that is sparse before its first step."""

import torch

from sparsecircuits.kernels import project_topk_
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.sparsity.projection import budget, targets
from sparsecircuits.sparsity.schedules import SparsityConfig


@torch.no_grad()
def start_sparse_(model: SparseTransformer, config: SparsityConfig) -> None:
    """Keep as many places of each sparse matrix as its budget, floors included: random ones, with what is there scaled
    by 1/sqrt(density), or the largest (`config.start` given). Does nothing where `config.start` is dense.

    Raises UserError when a floor does not fit in a matrix's budget.
    """
    if config.start == "dense" or config.dense:
        return
    for target in targets(model, config):
        weight = model.get_parameter(target.name)
        if weight.dim() != 2:  # biases begin at 0
            continue
        kept = budget(weight, target.density)
        if config.start == "given":
            project_topk_(weight, kept, target.floor, target.dim)
            continue
        # From 1 up, so that no drawn number is 0: the projection keeps what is largest.
        drawn = torch.rand_like(weight).add_(1.0)
        drawn = project_topk_(drawn, kept, target.floor, target.dim)
        weight.mul_(drawn != 0).mul_(target.density**-0.5)
