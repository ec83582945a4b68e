"""The space of nodes, and their means over pretraining text.

Node space: all channels of all node sites side by side, in order of computation, in one flat vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.data import validation_batches
from sparsecircuits.errors import NoSuchNode
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.hooks import record
from sparsecircuits.models.sites import node_sites, split_node, split_site
from sparsecircuits.models.transformer import SparseTransformer


@dataclass(frozen=True)
class NodeSpace:
    """Where each site's channels stand in the flat vector of all nodes."""

    slices: dict[str, slice]
    size: int

    @classmethod
    def of(cls, config: ModelConfig) -> "NodeSpace":
        """The node space of a model with this config."""
        slices, start = {}, 0
        for site in node_sites(config.n_layer):
            width = config.site_width(split_site(site)[1])
            slices[site] = slice(start, start + width)
            start += width
        return cls(slices, start)

    def split(self, flat: Float[Tensor, " nodes"]) -> dict[str, Tensor]:
        """A flat vector as views by site."""
        return {site: flat[place] for site, place in self.slices.items()}

    def join(self, by_site: Mapping[str, Tensor]) -> Float[Tensor, " nodes"]:
        """The inverse of `split`."""
        return torch.cat([by_site[site] for site in self.slices])

    def names(self, kept: Bool[Tensor, " nodes"]) -> list[str]:
        """Names of the nodes that are on, in order of computation."""
        return [
            f"{site}.{index}"
            for site, place in self.slices.items()
            for index in kept[place].nonzero().flatten().tolist()
        ]

    def mask(self, names: list[str]) -> Bool[Tensor, " nodes"]:
        """The inverse of `names`. Raises NoSuchNode, a UserError, for a name that is none of the model's nodes."""
        mask = torch.zeros(self.size, dtype=torch.bool)
        for name in names:
            site, index = split_node(name)
            place = self.slices.get(site)
            if place is None:
                raise NoSuchNode(f"the model has no node {name!r}: it has no site {site}")
            if index >= place.stop - place.start:
                raise NoSuchNode(f"the model has no node {name!r}: {site} has {place.stop - place.start} channels")
            mask[place.start + index] = True
        return mask


@torch.no_grad()
def pretraining_means(
    model: SparseTransformer, tokens: np.ndarray, max_tokens: int = 65_536
) -> Float[Tensor, " nodes"]:
    """Each node's mean activation over pretraining text, pooled over positions.

    tokens: 1-d array of token ids; sequences of the model's full context are read from its start.
    """
    space = NodeSpace.of(model.config)
    totals, count = torch.zeros(space.size, dtype=torch.float64), 0
    pattern = "|".join(site.replace(".", r"\.") for site in space.slices)
    for inputs, _ in validation_batches(tokens, model.config.n_ctx, 32, max_tokens):
        with record(model, pattern) as seen:
            model(torch.from_numpy(inputs).to(model.device))
        sums = {site: seen[site].flatten(0, 1).sum(dim=0, dtype=torch.float64).cpu() for site in space.slices}
        totals += space.join(sums)
        count += inputs.size
    return (totals / count).float()
