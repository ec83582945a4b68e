"""The constants that nodes are frozen at: their means over pretraining text, or zero."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.data import Tokenizer, prepare_tokens, validation_batches
from sparsecircuits.errors import UserError, no_such
from sparsecircuits.models.hooks import record
from sparsecircuits.models.storage import load_means
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.ablation import ABLATIONS
from sparsecircuits.nodes.space import NodeSpace


@torch.no_grad()
def pretraining_means(
    model: SparseTransformer, tokens: np.ndarray, max_tokens: int = 65_536
) -> Float[Tensor, " nodes"]:
    """Each node's mean activation over pretraining text, pooled over positions.

    tokens: 1-d array of token ids; sequences of the model's full context are read from its start.
    """
    space = NodeSpace.of(model.config)
    totals, count = torch.zeros(space.size, dtype=torch.float64), 0
    for inputs, _ in validation_batches(tokens, model.config.n_ctx, 32, max_tokens):
        with record(model, space.slices) as seen:
            model(torch.from_numpy(inputs).to(model.device))
        sums = {site: seen[site].flatten(0, 1).sum(dim=0, dtype=torch.float64).cpu() for site in space.slices}
        totals += space.join(sums)
        count += inputs.size
    return (totals / count).float()


def training_means(model: SparseTransformer, tokens: np.ndarray | None = None) -> torch.Tensor:
    """Means of all nodes [nodes] over `tokens`, or over the text that the model was trained on: those that were saved
    beside it, or computed from that text."""
    if tokens is not None:
        return pretraining_means(model, tokens)
    saved = load_means(model)
    if saved is not None:
        if saved.numel() != (size := NodeSpace.of(model.config).size):
            raise UserError(f"{model.folder}: {saved.numel()} means were saved for a model of {size} nodes")
        return saved
    if model.corpus is None:
        raise UserError("the model does not say what text it was trained on: give prune its tokens or means")
    tokens = prepare_tokens(model.corpus, model.tokenizer or Tokenizer.default()).train
    return pretraining_means(model, tokens)


def ablation_values(ablation: str, means: Float[Tensor, " nodes"]) -> Float[Tensor, " nodes"]:
    """The constants of an ablation (those of `resample` are not used). Raises UserError for an unknown one."""
    if ablation not in ABLATIONS:
        raise UserError(no_such("no ablation", ablation, ABLATIONS))
    return means if ablation == "mean" else torch.zeros_like(means)
