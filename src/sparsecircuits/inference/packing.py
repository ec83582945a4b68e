"""A plan of a whole model as the flat arrays that the decode kernel reads."""

from dataclasses import dataclass

import numpy as np
import torch

from sparsecircuits.inference.nonzeros import Nonzeros
from sparsecircuits.inference.plan import Plan
from sparsecircuits.inference.shell import position_channels
from sparsecircuits.kernels import _cpu, _cpu_decode
from sparsecircuits.models.config import ModelConfig

SITES = (
    "attn.act_in",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.resid_delta",
    "mlp.act_in",
    "mlp.post_act",
    "mlp.resid_delta",
    "resid_mid",
    "resid_out",
)
"""In the kernel's order (`_cpu_decode.ATTN_IN` and what follows)."""


@dataclass(frozen=True)
class Packed:
    """The kernel's arguments that stay the same from step to step (see `_cpu_decode.decode`)."""

    sizes: np.ndarray
    kept: np.ndarray
    starts: np.ndarray
    bases: np.ndarray
    indices: np.ndarray
    weights: np.ndarray
    flat: np.ndarray
    vectors: np.ndarray
    added: np.ndarray
    beside: np.ndarray
    table: np.ndarray

    @property
    def guesses(self) -> int:
        """Thresholds that are remembered from token to token."""
        return int(self.sizes[_cpu_decode.LAYERS]) * _cpu_decode.SITES

    @property
    def bytes_a_nonzero(self) -> int:
        """Index and value."""
        return self.indices.itemsize + self.weights.itemsize


def pack(plan: Plan, dtype: str) -> Packed:
    """The arrays of a plan in which everything varies. dtype: float32 or bfloat16, of the weights."""
    config = plan.config
    starts, bases, indices, weights = _columns(_matrices(plan), dtype)
    flat, vectors = _vectors(plan)
    added = plan.vector("wpe.weight") if config.positions == "added" else None
    table = plan.vector("bigram.weight")
    return Packed(
        _sizes(config),
        np.array([-1 if k is None else k for k in map(config.abstopk_k, SITES)], dtype=np.int64),
        starts,
        bases,
        indices,
        weights,
        flat,
        vectors,
        np.zeros((0, config.d_model), np.float32) if added is None else added,
        position_channels(plan),
        np.zeros((0, config.vocab_size), np.float32) if table is None else table,
    )


def decode(
    packed: Packed,
    tokens: np.ndarray,
    times: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    guesses: np.ndarray,
    logits: np.ndarray,
    chunks: int,
) -> None:
    """Run the kernel: logits [B, V] of one token of each sequence."""
    p = packed
    with _cpu.LOCK:
        _cpu_decode.decode(
            tokens, times, p.sizes, p.kept, p.starts, p.bases, p.indices, p.weights, p.flat, p.vectors, p.added,
            p.beside, p.table, keys.reshape(-1), values.reshape(-1), keys.shape[-1], guesses, logits, chunks,
        )  # fmt: skip


def _sizes(config: ModelConfig) -> np.ndarray:
    extra = config.d_in - config.d_model
    flags = (config.norm == "layer", config.activation == "relu", config.residual_activation == "relu")
    widths = (config.n_layer, config.d_model, extra, config.heads, config.d_head, config.mlp_width, config.vocab_size)
    return np.array([*widths, *flags], dtype=np.int64)


def _matrices(plan: Plan) -> list[Nonzeros | None]:
    """In the kernel's order: a layer's (`_cpu_decode.C_ATTN` and what follows), then unembedding, embedding, bigram
    table, the last two as they lead from a token to a channel."""
    found: list[Nonzeros | None] = []
    for layer in range(plan.config.n_layer):
        found.append(Nonzeros.stack([plan.products[f"{layer}.attn.{name}"].matrix for name in "qkv"]))
        found += [
            plan.products[f"{layer}.{site}"].matrix for site in ("attn.resid_delta", "mlp.post_act", "mlp.resid_delta")
        ]
    bigram = None if plan.bigram is None else plan.bigram.transposed()
    return [*found, plan.unembedding, plan.embedding.transposed(), bigram]


def _columns(matrices: list[Nonzeros | None], dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All matrices' columns one after another: (starts, bases, indices, weights)."""
    starts, bases, indices, values = [], [], [], []
    begin, nonzeros, tallest = 0, 0, 1
    for matrix in matrices:
        if matrix is None:
            bases.append(-1)
            continue
        by_column = matrix.transposed()
        bases.append(begin)
        here = by_column.starts() + nonzeros
        starts.append(here)
        indices.append(by_column.columns)
        values.append(by_column.values)
        begin, nonzeros, tallest = begin + len(here), nonzeros + len(matrix), max(tallest, matrix.shape[0])
    kind = np.uint16 if tallest <= 1 << 16 else np.uint32
    weights = np.concatenate(values)
    if dtype == "bfloat16":
        weights = torch.from_numpy(weights).bfloat16().view(torch.uint16).numpy()
    return (
        np.concatenate(starts).astype(np.int32 if nonzeros < 2**31 else np.int64),
        np.array(bases, dtype=np.int64),
        np.concatenate(indices).astype(kind),
        weights,
    )


def _vectors(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Norms, biases and sinks one after another, and where each begins."""
    config, parts = plan.config, []

    def norm(name: str) -> list[np.ndarray]:
        weight, bias = plan.vector(f"{name}.weight"), plan.vector(f"{name}.bias")
        assert weight is not None
        return [weight, np.zeros_like(weight) if bias is None else bias]

    def bias(*sites: str) -> np.ndarray:
        return np.concatenate([plan.products[site].constant for site in sites])

    for layer in range(config.n_layer):
        sink = plan.vector(f"blocks.{layer}.attn.sink_logit")
        parts += norm(f"blocks.{layer}.ln_1")
        parts += [bias(*(f"{layer}.attn.{name}" for name in "qkv")), bias(f"{layer}.attn.resid_delta")]
        parts += norm(f"blocks.{layer}.ln_2")
        parts += [bias(f"{layer}.mlp.post_act"), bias(f"{layer}.mlp.resid_delta")]
        parts.append(np.full(config.heads, -np.inf, np.float32) if sink is None else sink)
    shift = plan.vector("logit_bias")
    assert shift is not None
    parts += [*norm("ln_f"), shift]
    begins = np.cumsum([0, *map(len, parts[:-1])]).astype(np.int64)
    return np.concatenate(parts).astype(np.float32), begins
