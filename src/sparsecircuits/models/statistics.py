"""What a model is like: loss, L0, alive neurons, kurtosis."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsecircuits.data import validation_batches
from sparsecircuits.models.hooks import record
from sparsecircuits.models.transformer import SparseTransformer, count_parameters, sparse_matrices


def kurtosis(x: Tensor) -> float:
    """Fourth standardised moment of all entries (3 for a normal distribution)."""
    centred = x.double() - x.double().mean()
    variance = centred.square().mean()
    return (centred.pow(4).mean() / variance.square()).item() if variance > 0 else float("nan")


def matrix_counts(model: SparseTransformer) -> dict[str, dict[str, Any]]:
    """Nonzeros, size and density of each sparse matrix."""
    counts = {}
    for name, matrix in sparse_matrices(model).items():
        nonzeros = int(matrix.count_nonzero())
        counts[name] = {"nonzeros": nonzeros, "size": matrix.numel(), "density": nonzeros / matrix.numel()}
    return counts


@torch.no_grad()
def model_statistics(model: SparseTransformer, tokens: np.ndarray, max_tokens: int = 65_536) -> dict[str, Any]:
    """Statistics over text.

    val_loss: nats a token. parameters, l0: entries and nonzeros of the sparse matrices. alive_neurons: MLP
    neurons that were ever nonzero, of all. active_neurons_per_token: mean number of nonzero ones.
    kurtosis_mlp, kurtosis_resid: of `mlp.post_act` and `resid_mid`, mean over layers.
    """
    config, losses, seen_tokens = model.config, 0.0, 0
    alive = torch.zeros(config.n_layer, config.mlp_width, dtype=torch.bool)
    active = 0.0
    first_batch: dict[str, Tensor] = {}
    for inputs, targets in validation_batches(tokens, config.n_ctx, 32, max_tokens):
        with record(model, r"\d+\.(mlp\.post_act|resid_mid)") as seen:
            logits = model(torch.from_numpy(inputs).to(model.device))
        wanted = torch.from_numpy(targets).to(model.device).flatten()
        losses += F.cross_entropy(logits.float().flatten(0, 1), wanted, reduction="sum").item()
        seen_tokens += targets.size
        for layer in range(config.n_layer):
            fired = (seen[f"{layer}.mlp.post_act"] != 0).flatten(0, 1).cpu()
            alive[layer] |= fired.any(dim=0)
            active += fired.sum().item()
        first_batch = first_batch or dict(seen)
    parameters, nonzeros = count_parameters(model)
    layers = range(config.n_layer)
    return {
        "val_loss": losses / seen_tokens,
        "tokens": seen_tokens,
        "parameters": parameters,
        "l0": nonzeros,
        "density": nonzeros / parameters,
        "alive_neurons": int(alive.sum()),
        "neurons": alive.numel(),
        "active_neurons_per_token": active / seen_tokens,
        "kurtosis_mlp": float(np.mean([kurtosis(first_batch[f"{i}.mlp.post_act"]) for i in layers])),
        "kurtosis_resid": float(np.mean([kurtosis(first_batch[f"{i}.resid_mid"]) for i in layers])),
        "matrices": matrix_counts(model),
    }
