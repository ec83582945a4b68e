"""A plan of a whole model as the flat arrays that the decode kernel reads."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sparsecircuits.inference.shell import position_channels
from sparsecircuits.kernels import _cpu, _cpu_decode
from sparsecircuits.kernels._cpu_columns import GROUP
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.names import NODE_SITES
from sparsecircuits.plans.nonzeros import Nonzeros
from sparsecircuits.plans.plan import Plan

if TYPE_CHECKING:
    from sparsecircuits.inference.cache import SparseCache

SITES = (*NODE_SITES, "resid_mid", "resid_out")
"""In the kernel's order (`_cpu_decode.ATTN_IN` and what follows)."""


@dataclass(frozen=True)
class Packed:
    """The kernel's arguments that stay the same from step to step (see `_cpu_decode.decode`)."""

    sizes: np.ndarray
    kept: np.ndarray
    starts: np.ndarray
    bases: np.ndarray
    entries: np.ndarray
    stream: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    streamed: np.ndarray
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
        return self.rows.itemsize + self.streamed.itemsize


def pack(plan: Plan, dtype: str) -> Packed:
    """The arrays of a plan in which everything varies. dtype: float32 or bfloat16, of the weights."""
    config = plan.config
    kind = _index_type(plan.config)
    starts, bases, entries = _columns(_matrices(plan), kind, dtype)
    stream, rows, columns, streamed = _stream(plan, kind, dtype)
    flat, vectors = _vectors(plan)
    added = plan.vector("wpe.weight") if config.positions == "added" else None
    table = plan.vector("bigram.weight")
    return Packed(
        _sizes(config),
        np.array([-1 if k is None else k for k in map(config.abstopk_k, SITES)], dtype=np.int64),
        starts,
        bases,
        entries,
        stream,
        rows,
        columns,
        streamed,
        flat,
        vectors,
        np.zeros((0, config.d_model), np.float32) if added is None else added,
        position_channels(plan),
        np.zeros((0, config.vocab_size), np.float32) if table is None else table,
    )


def lists_values(config: ModelConfig) -> int | None:
    """How many entries a token's list of values has, in whole groups; None where they are kept by channel."""
    k = config.abstopk_k("attn.v")
    return None if k is None or 2 * k > config.attn_width else -(-k // GROUP) * GROUP


class Decoder:
    """The kernel with its arguments and its working memory."""

    def __init__(self, plan: Plan, dtype: str) -> None:
        self.packed = pack(plan, dtype)
        self._guesses = np.zeros((0, 0), dtype=np.int32)
        self._rooms = np.zeros((0, 0), dtype=np.float32)
        self._lists = np.zeros((0, 0), dtype=np.int32)

    def __call__(self, tokens: np.ndarray, cache: "SparseCache", logits: np.ndarray, chunks: int) -> None:
        """Logits [B, V] of one token of each sequence. chunks: of sequences, each in a thread of its own."""
        p, capacity = self.packed, cache.keys.shape[-1]
        self._make_room(capacity, chunks)
        with _cpu.LOCK:
            _cpu_decode.decode(
                tokens, cache.lengths, p.sizes, p.kept, p.starts, p.bases, p.entries, p.stream, p.rows, p.columns,
                p.streamed, p.flat, p.vectors, p.added, p.beside, p.table, cache.keys.reshape(-1),
                cache.values.reshape(-1), cache.places.reshape(-1), capacity, cache.dense, self._guesses, self._rooms,
                self._lists, logits, chunks,
            )  # fmt: skip

    def _make_room(self, capacity: int, chunks: int) -> None:
        floats, integers = _cpu_decode.room_for(self.packed.sizes, capacity)
        if self._rooms.shape[0] < chunks or self._rooms.shape[1] < floats:
            self._guesses = np.zeros((chunks, self.packed.guesses), dtype=np.int32)
            self._rooms = np.zeros((chunks, floats), dtype=np.float32)
            self._lists = np.zeros((chunks, integers), dtype=np.int32)


def _sizes(config: ModelConfig) -> np.ndarray:
    extra = config.d_in - config.d_model
    activation = _cpu_decode.ACTIVATIONS.index(config.activation)
    flags = (config.norm == "layer", activation, config.residual_activation == "relu")
    widths = (config.n_layer, config.d_model, extra, config.heads, config.d_head, config.mlp_width, config.vocab_size)
    reach = config.offsets or 0
    return np.array([*widths, reach, *flags], dtype=np.int64)


def _index_type(config: ModelConfig) -> type:
    """Of rows and columns, one past the last row of the tallest matrix among them."""
    tallest = max(3 * config.attn_width, config.mlp_width, config.d_model, config.vocab_size)
    return np.uint16 if tallest < 1 << 16 else np.uint32


def _matrices(plan: Plan) -> list[Nonzeros | None]:
    """In the kernel's order: a layer's (`_cpu_decode.C_ATTN` and what follows), then, as they lead from a token to a
    channel, the embedding and the bigram table."""
    found: list[Nonzeros | None] = []
    for layer in range(plan.config.n_layer):
        found.append(Nonzeros.stack([plan.products[f"{layer}.attn.{name}"].matrix for name in "qkv"]))
        found += [plan.products[f"{layer}.mlp.{site}"].matrix for site in ("post_act", "resid_delta")]
    bigram = None if plan.bigram is None else plan.bigram.transposed()
    return [*found, plan.embedding.transposed(), bigram]


def _columns(matrices: list[Nonzeros | None], kind: type, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All matrices' columns one after another: (starts in groups, bases, entries as bytes: of each group the indices,
    then the values). Each column is filled up to whole groups with zeros at one past the last row."""
    starts, bases, indices, values = [], [], [], []
    begin, groups = 0, 0
    for matrix in matrices:
        if matrix is None:
            bases.append(-1)
            continue
        bases.append(begin)
        by_column = matrix.transposed()
        before = by_column.starts()
        here = np.concatenate(([0], np.cumsum(-(-np.diff(before) // GROUP))))
        place = np.arange(len(matrix)) + (here[:-1] * GROUP - before[:-1])[by_column.rows]
        filled = np.full(here[-1] * GROUP, matrix.shape[0], kind), np.zeros(here[-1] * GROUP, np.float32)
        filled[0][place], filled[1][place] = by_column.columns, by_column.values
        starts.append(here + groups)
        indices.append(filled[0])
        values.append(filled[1])
        begin, groups = begin + len(here), groups + int(here[-1])
    parts = [
        part.reshape(groups, GROUP).view(np.uint8)
        for part in (np.concatenate(indices), _as(np.concatenate(values), dtype))
    ]
    return (
        np.concatenate(starts).astype(np.int32),
        np.array(bases, dtype=np.int64),
        np.concatenate(parts, axis=1).reshape(-1),
    )


def _stream(plan: Plan, kind: type, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What reads an input without zeros, each layer's attention write and the unembedding: (where each begins, rows,
    columns, weights), column by column, so that neighbours lead to different rows."""
    matrices = [plan.products[f"{layer}.attn.resid_delta"].matrix for layer in range(plan.config.n_layer)]
    turned = [matrix.transposed() for matrix in (*matrices, plan.unembedding)]
    return (
        np.cumsum([0, *map(len, turned)]).astype(np.int64),
        np.concatenate([matrix.columns for matrix in turned]).astype(kind),
        np.concatenate([matrix.rows for matrix in turned]).astype(kind),
        _as(np.concatenate([matrix.values for matrix in turned]), dtype),
    )


def _as(values: np.ndarray, dtype: str) -> np.ndarray:
    return values if dtype == "float32" else torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()


def _vectors(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Norms, biases, sinks and offsets one after another, and where each begins."""
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
        offsets = plan.vector(f"blocks.{layer}.attn.offset_logit")
        parts.append(np.zeros(0, np.float32) if offsets is None else offsets.reshape(-1))
    shift = plan.vector("logit_bias")
    assert shift is not None
    parts += [*norm("ln_f"), shift]
    begins = np.cumsum([0, *map(len, parts[:-1])]).astype(np.int64)
    return np.concatenate(parts).astype(np.float32), begins
