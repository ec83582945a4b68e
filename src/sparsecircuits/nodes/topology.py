"""Which nodes the matrices of a layer join."""

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from sparsecircuits.models.names import JOINS, split_site
from sparsecircuits.models.transformer import SparseTransformer


@dataclass(frozen=True)
class Join:
    """A matrix, or a third of one, that joins two sites. v feeds the attention's write through its head:
    `attn.v.j -> attn.resid_delta.c` is c_proj[c, j]."""

    source: str
    target: str
    linear: nn.Linear
    offset: int
    weight: Float[Tensor, "target source"]


def joins(model: SparseTransformer, layer: int | None = None) -> Iterator[Join]:
    """All joins of a model, or of one layer, in order of computation."""
    for place in range(model.config.n_layer) if layer is None else (layer,):
        for source, target, name, third in JOINS:
            linear = model.block(place).get_submodule(name)
            assert isinstance(linear, nn.Linear)
            height = linear.weight.shape[0] // (1 if third is None else 3)
            offset = (third or 0) * height
            weight = linear.weight[offset : offset + height]
            yield Join(f"{place}.{source}", f"{place}.{target}", linear, offset, weight)


def joins_at(model: SparseTransformer, site: str) -> tuple[list[Join], list[Join]]:
    """The joins that lead into a site, and those that lead out of it."""
    layer = split_site(site)[0]
    found = [] if layer is None else list(joins(model, layer))
    return [join for join in found if join.target == site], [join for join in found if join.source == site]


def join_between(model: SparseTransformer, source: str, target: str) -> Join | None:
    """The join of two sites; None if there is none."""
    return next((join for join in joins_at(model, target)[0] if join.source == source), None)
