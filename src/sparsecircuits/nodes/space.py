"""The node space: all channels of all node sites side by side, in order of computation, in one flat vector."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from sparsecircuits.errors import NoSuchNode
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.sites import node_sites, split_node, split_site


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

    def split(self, flat: Shaped[Tensor, " nodes"]) -> dict[str, Tensor]:
        """A flat vector as views by site."""
        return {site: flat[place] for site, place in self.slices.items()}

    def join(self, by_site: Mapping[str, Tensor]) -> Shaped[Tensor, " nodes"]:
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
