"""What a model is like: loss, L0, alive neurons, kurtosis."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsecircuits.data import validation_batches
from sparsecircuits.kernels import Linear
from sparsecircuits.models.hooks import hook_points, record
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


UNITS = {"mlp.post_act": "neurons", "attn.q": "q", "attn.k": "k", "attn.v": "v"}
"""Sites of units that a layer's weights make, and what to call these."""


def no_units(model: SparseTransformer) -> dict[str, Tensor]:
    """By site of `UNITS`, False for each unit: bool [n_layer, width]."""
    config = model.config
    widths = {site: config.mlp_width if kind == "neurons" else config.attn_width for site, kind in UNITS.items()}
    return {
        site: torch.zeros(config.n_layer, width, dtype=torch.bool, device=model.device)
        for site, width in widths.items()
    }


def unit_layers(model: SparseTransformer, site: str, layer: int) -> tuple[Linear, slice, Linear | None]:
    """What makes the units of a site of `UNITS`: the layer that reads into them, which rows of it, and the layer whose
    columns write what they hold (None for queries and keys)."""
    block, kind = model.block(layer), UNITS[site]
    if kind == "neurons":
        return block.mlp.c_fc, slice(0, model.config.mlp_width), block.mlp.c_proj
    width = model.config.attn_width
    first = "qkv".index(kind) * width
    return block.attn.c_attn, slice(first, first + width), block.attn.c_proj if kind == "v" else None


@dataclass
class NeuronCounts:
    """MLP neurons that were nonzero, and attention channels, counted over forward passes."""

    units: dict[str, Tensor]
    """By site of `UNITS`, bool [n_layer, width]: nonzero on at least one token."""
    active: float = 0.0
    """Nonzero neurons, summed over tokens and layers."""

    @property
    def fired(self) -> Tensor:
        """bool [n_layer, mlp_width]: the neurons among them."""
        return self.units["mlp.post_act"]

    @property
    def alive(self) -> int:
        """Neurons that fired at least once."""
        return int(self.fired.sum())

    @property
    def total(self) -> int:
        """All neurons."""
        return self.fired.numel()


@contextlib.contextmanager
def count_neurons(model: SparseTransformer) -> Iterator[NeuronCounts]:
    """While open, forward passes count which MLP neurons and attention channels are nonzero (`UNITS`)."""
    counts = NeuronCounts(no_units(model))

    def watch(site: str, layer: int) -> Callable[[nn.Module, tuple, Tensor], None]:
        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            fired = (output.detach() != 0).flatten(0, -2)
            counts.units[site][layer] |= fired.any(dim=0)
            if site == "mlp.post_act":
                counts.active += int(fired.sum())

        return hook

    points = hook_points(model)
    with contextlib.ExitStack() as stack:
        for site in UNITS:
            for layer in range(model.config.n_layer):
                point = points[f"{layer}.{site}"]
                stack.callback(point.register_forward_hook(watch(site, layer)).remove)
        yield counts


@torch.no_grad()
def dead_units(model: SparseTransformer, fired: dict[str, Tensor]) -> dict[str, int]:
    """How many of each kind of `UNITS` do nothing: never nonzero on the text that `fired` is of ([n_layer, width] by
    site), or without a nonzero weight in, or (neurons and v channels) out."""
    found = dict.fromkeys(UNITS.values(), 0)
    for site, kind in UNITS.items():
        for layer, alive in enumerate(fired[site]):
            reads, rows, writes = unit_layers(model, site, layer)
            linked = reads.weight[rows].count_nonzero(dim=1) > 0
            if writes is not None:
                linked &= writes.weight.count_nonzero(dim=0) > 0
            found[kind] += int((~(alive.to(linked.device) & linked)).sum())
    return found


@torch.no_grad()
def model_statistics(model: SparseTransformer, tokens: np.ndarray, max_tokens: int = 65_536) -> dict[str, Any]:
    """Statistics over text.

    val_loss: nats a token. parameters, l0: entries and nonzeros of the sparse matrices. alive_neurons: MLP
    neurons that were ever nonzero, of all. active_neurons_per_token: mean number of nonzero ones.
    kurtosis_mlp, kurtosis_resid: of `mlp.post_act` and `resid_mid`, mean over layers.
    """
    config, losses, seen_tokens = model.config, 0.0, 0
    first_batch: dict[str, Tensor] = {}
    with count_neurons(model) as neurons:
        for inputs, targets in validation_batches(tokens, config.n_ctx, 32, max_tokens):
            with record(model, r"\d+\.(mlp\.post_act|resid_mid)") as seen:
                logits = model(torch.from_numpy(inputs).to(model.device))
            wanted = torch.from_numpy(targets).to(model.device).flatten()
            losses += F.cross_entropy(logits.float().flatten(0, 1), wanted, reduction="sum").item()
            seen_tokens += targets.size
            first_batch = first_batch or dict(seen)
    parameters, nonzeros = count_parameters(model)
    layers = range(config.n_layer)
    return {
        "val_loss": losses / seen_tokens,
        "tokens": seen_tokens,
        "parameters": parameters,
        "l0": nonzeros,
        "density": nonzeros / parameters,
        "alive_neurons": neurons.alive,
        "neurons": neurons.total,
        "active_neurons_per_token": neurons.active / seen_tokens,
        "kurtosis_mlp": float(np.mean([kurtosis(first_batch[f"{i}.mlp.post_act"]) for i in layers])),
        "kurtosis_resid": float(np.mean([kurtosis(first_batch[f"{i}.resid_mid"]) for i in layers])),
        "matrices": matrix_counts(model),
    }
