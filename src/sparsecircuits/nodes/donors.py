"""Other prompts that what is off takes its activations from, position by position."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparsecircuits.models.hooks import record
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.tasks import PairBatch


@dataclass(frozen=True)
class Donors:
    """For each prompt of a batch, another prompt that it takes activations from.

    batch: the donors, row by row; place [n, T]: which of the donor's positions stands for each position.
    """

    batch: PairBatch
    place: np.ndarray

    @classmethod
    def pairs(cls, batch: PairBatch) -> "Donors":
        """Each prompt's donor is the other one of its pair."""
        return cls.of(batch, batch.take(np.arange(len(batch.last)) ^ 1))

    @classmethod
    def of(cls, batch: PairBatch, donors: PairBatch) -> "Donors":
        """Given donors, one for each prompt of a batch, aligned with them (see `counterparts`)."""
        return cls(donors, counterparts(batch, donors))

    def rows(self, start: int, stop: int, width: int) -> "Donors":
        """The donors of prompts start..stop, whose tokens are `width` wide."""
        return Donors(self.batch.rows(start, stop), self.place[start:stop, :width])


def other_prompts(model: SparseTransformer, space: NodeSpace, donors: Donors) -> dict[str, Tensor]:
    """Activations [n, T, width] of all node sites, and of `attn.y`, on each row's donor, in place."""
    return on_donors(model, [*space.slices, *(f"{layer}.attn.y" for layer in range(model.config.n_layer))], donors)


@torch.no_grad()
def on_donors(model: SparseTransformer, sites: Sequence[str], donors: Donors) -> dict[str, Tensor]:
    """Activations [n, T, width] of some sites of the whole model on each row's donor, in place."""
    with record(model, sites) as seen:
        model.final_hidden(torch.from_numpy(donors.batch.tokens).to(model.device))
    place = torch.from_numpy(np.ascontiguousarray(donors.place)).to(model.device)
    row = torch.arange(place.shape[0], device=model.device)[:, None]
    return {site: seen[site][row, place] for site in sites}


def counterparts(batch: PairBatch, donors: PairBatch) -> np.ndarray:
    """The position [n, T] on each prompt's donor, row by row, that stands for each of the prompt's positions.

    Positions of their common beginning are each other's counterparts. Those after it are counted from the end, and
    stay after the common beginning: so the last stands for the last, and where the two differ in one place alone, all
    around it stands for its like, though one may be longer. What is patched, what resample ablation carries and what
    interchange interventions take all mean this; only donors that are drawn by `Matched`, which need not begin alike,
    are matched by their role in another pair.
    """
    width = min(batch.tokens.shape[1], donors.tokens.shape[1])
    last, other_last = batch.last[:, None], donors.last[:, None]
    common = (batch.tokens[:, :width] == donors.tokens[:, :width]).cumprod(axis=1).sum(axis=1, keepdims=True)
    common = np.minimum(common, np.minimum(last, other_last))
    place = np.broadcast_to(np.arange(batch.tokens.shape[1]), batch.tokens.shape)
    from_end = np.clip(place - last + other_last, common, None)
    found: np.ndarray = np.minimum(np.where(place < common, place, from_end), other_last)
    return found


@dataclass(frozen=True)
class Matched:
    """A pool of prompts to draw donors from. contrast [n]: the first position where a prompt differs from its
    pair's other one; what a position is to its prompt is told by that position and the last."""

    pool: PairBatch
    contrast: np.ndarray

    @classmethod
    def of(cls, pool: PairBatch) -> "Matched":
        """A pool from whole pairs."""
        other = pool.tokens[np.arange(len(pool.last)) ^ 1]
        shared = np.minimum(pool.last, pool.last[np.arange(len(pool.last)) ^ 1])
        different = (pool.tokens != other) & (np.arange(pool.tokens.shape[1])[None] <= shared[:, None])
        contrast = np.where(different.any(axis=1), different.argmax(axis=1), shared)
        return cls(pool, contrast)

    def draw(self, seed: int, *, same_class: bool = False) -> Donors:
        """Another random prompt of the pool for each of its prompts: of either class, or only of its own.

        Positions before the contrast are matched by their distance to it, the contrast with the contrast, and
        positions after it by their distance from the last token.
        """
        rng, n = np.random.default_rng(seed), len(self.pool.last)
        pairs = n // 2
        if pairs < 2:
            rows = np.arange(n) if same_class else np.arange(n) ^ 1
        else:
            pair = (np.arange(n) // 2 + rng.integers(1, pairs, n)) % pairs
            side = np.arange(n) % 2 if same_class else rng.integers(0, 2, n)
            rows = 2 * pair + side
        return Donors(self.pool.take(rows), self._places(rows))

    def _places(self, rows: np.ndarray) -> np.ndarray:
        here, there = self.contrast[:, None], self.contrast[rows][:, None]
        last, other_last = self.pool.last[:, None], self.pool.last[rows][:, None]
        place = np.broadcast_to(np.arange(self.pool.tokens.shape[1]), self.pool.tokens.shape)
        before = np.clip(place - here + there, 0, np.maximum(there - 1, 0))
        after = np.clip(place - last + other_last, np.minimum(there + 1, other_last), other_last)
        places: np.ndarray = np.where(place < here, before, np.where(place == here, there, after))
        return places
