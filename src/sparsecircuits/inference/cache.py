"""Keys and values of the tokens that sequences have seen."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.inference.packing import lists_values
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.transformer import KVCache

STEP = 64  # tokens that a cache grows by at least


@dataclass
class SparseCache:
    """Of B sequences, each with its own length, in L layers of A channels, with room for some tokens.

    keys: [B, L, A, room], time contiguous, zero where AbsTopK kept nothing: only the channels where a query is not
    zero are read. values: a list for each token of what AbsTopK kept, [B, L, room, k], with the channels in `places`;
    or by channel as keys are, where it keeps more than half (`dense`).
    """

    keys: np.ndarray
    values: np.ndarray
    places: np.ndarray
    lengths: np.ndarray
    dense: bool

    @classmethod
    def empty(cls, config: ModelConfig, batch: int) -> "SparseCache":
        """For fresh sequences."""
        width, room, listed = config.attn_width, _room(STEP), lists_values(config)
        keys = np.zeros((batch, config.n_layer, width, room), dtype=np.float32)
        kind = np.uint16 if width < 1 << 16 else np.uint32
        lengths = np.zeros(batch, dtype=np.int64)
        if listed is None:
            return cls(keys, np.zeros_like(keys), np.zeros((batch, config.n_layer, 0, 0), kind), lengths, True)
        values = np.zeros((batch, config.n_layer, room, listed), dtype=np.float32)
        return cls(keys, values, np.full(values.shape, width, dtype=kind), lengths, False)

    @property
    def length(self) -> int:
        """Tokens seen by the longest sequence."""
        return int(self.lengths.max(initial=0))

    def fit(self, length: int) -> None:
        """Make room for some tokens."""
        old = self.keys.shape[-1]
        if length <= old:
            return
        room = _room(max(length, 2 * old))
        self.keys = _grown(self.keys, -1, room, 0)
        self.values = _grown(self.values, -1 if self.dense else -2, room, 0)
        if not self.dense:
            self.places = _grown(self.places, -2, room, self.keys.shape[2])

    def put(
        self, layer: int, k: Float[Tensor, "B T A"], v: Float[Tensor, "B T A"], last: Int[Tensor, " B"] | None
    ) -> None:
        """Write a prompt's keys and values where nothing was yet, without those after each one's last token."""
        if last is not None:
            real = (torch.arange(k.shape[1]) <= last[:, None]).unsqueeze(-1)
            k, v = k * real, v * real
        length = k.shape[1]
        self.keys[:, layer, :, :length] = k.transpose(1, 2).numpy()
        if self.dense:
            self.values[:, layer, :, :length] = v.transpose(1, 2).numpy()
            return
        b, t, channel = (places.numpy() for places in v.nonzero(as_tuple=True))
        counts = (v != 0).sum(dim=-1).flatten().numpy()
        place = np.arange(len(b)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.values[b, layer, t, place] = v[b, t, channel].numpy()
        self.places[b, layer, t, place] = channel


@dataclass(frozen=True)
class Filling:
    """What a prompt's pass gives keys and values to: an empty cache, and each prompt's last token."""

    cache: SparseCache
    last: Int[Tensor, " B"] | None

    @property
    def length(self) -> int:
        """No token was seen before."""
        return 0

    def extend(
        self, layer: int, k: Float[Tensor, "B T A"], v: Float[Tensor, "B T A"]
    ) -> tuple[Float[Tensor, "B T A"], Float[Tensor, "B T A"]]:
        """Keep a layer's; they are all that there are."""
        self.cache.put(layer, k, v, self.last)
        return k, v


@dataclass(frozen=True)
class PlainCache:
    """The model's own caches, one a sequence: for models with frozen nodes, whose tokens the kernel does not make."""

    sequences: tuple[KVCache, ...]

    @classmethod
    def empty(cls, config: ModelConfig, batch: int) -> "PlainCache":
        """For fresh sequences."""
        return cls(tuple(KVCache.empty(config.n_layer) for _ in range(batch)))

    @property
    def length(self) -> int:
        """Tokens seen by the longest sequence."""
        return max((sequence.length for sequence in self.sequences), default=0)


def _room(length: int) -> int:
    """Not a power of two, by which channels would share sets of the processor's cache."""
    return -(-length // STEP) * STEP + 16


def _grown(old: np.ndarray, axis: int, room: int, empty: int) -> np.ndarray:
    shape = list(old.shape)
    here: list[slice] = [slice(None)] * old.ndim
    here[axis] = slice(0, shape[axis])
    shape[axis] = room
    new = np.full(shape, empty, dtype=old.dtype)
    new[tuple(here)] = old
    return new
