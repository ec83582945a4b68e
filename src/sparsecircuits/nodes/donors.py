"""Other prompts that what is off takes its activations from, position by position."""

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
        return cls(batch.take(np.arange(len(batch.last)) ^ 1), counterparts(batch))

    def rows(self, start: int, stop: int, width: int) -> "Donors":
        """The donors of prompts start..stop, whose tokens are `width` wide."""
        return Donors(self.batch.rows(start, stop), self.place[start:stop, :width])


@torch.no_grad()
def other_prompts(model: SparseTransformer, space: NodeSpace, donors: Donors) -> dict[str, Tensor]:
    """Activations [n, T, width] of all node sites, and of `attn.y`, on each row's donor, in place."""
    sites = [*space.slices, *(f"{layer}.attn.y" for layer in range(model.config.n_layer))]
    with record(model, "|".join(site.replace(".", r"\.") for site in sites)) as seen:
        model(torch.from_numpy(donors.batch.tokens).to(model.device))
    place = torch.from_numpy(np.ascontiguousarray(donors.place)).to(model.device)
    row = torch.arange(place.shape[0], device=model.device)[:, None]
    return {site: seen[site][row, place] for site in sites}


def counterparts(batch: PairBatch) -> np.ndarray:
    """The position [2N, T] on a row's other prompt (row ^ 1) that stands for each of its positions."""
    tokens, last = batch.tokens, batch.last
    other = np.arange(len(tokens)) ^ 1
    common = (tokens == tokens[other]).cumprod(axis=1).sum(axis=1)
    common = np.minimum(common, np.minimum(last, last[other]))[:, None]
    place = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    from_end = np.clip(place - last[:, None] + last[other][:, None], common, None)
    return np.minimum(np.where(place < common, place, from_end), last[other][:, None])
