"""What a node of the sparse model is in the dense one: a direction of what a sublayer reads there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sparsecircuits.bridges.bridge import Bridge, Side
from sparsecircuits.errors import UserError
from sparsecircuits.models.sites import FINAL_SITE, split_node, split_site
from sparsecircuits.models.transformer import SparseTransformer

READS = {"attn.act_in": 0, "mlp.act_in": 1}
"""Sites of normed reads, and how far behind the layer's first boundary they lie."""


def _boundary_read(sparse: SparseTransformer, site: str) -> int | None:
    """The boundary whose residual stream a site reads; None for any that reads something else."""
    layer, kind = split_site(site)
    if site == FINAL_SITE:
        return sparse.last_boundary
    if layer is None or kind not in READS or layer >= sparse.config.n_layer:
        return None
    return 2 * layer + READS[kind]


def place_of(bridge: Bridge, site: str) -> int:
    """The place whose residual stream a site of the sparse model reads. Raises UserError for a site that is no read of
    the stream, or reads it where the models are not joined."""
    boundary = _boundary_read(bridge.sparse, site)
    if boundary is None:
        reads = f"{', '.join(f'LAYER.{name}' for name in READS)} or {FINAL_SITE}"
        raise UserError(f"{site} is no read of the residual stream, which is what a bridge maps: give nodes of {reads}")
    if boundary not in bridge.joined.sparse:
        raise UserError(f"{site} reads the residual stream where this bridge does not join the models")
    return bridge.joined.sparse.index(boundary)


def dense_site(bridge: Bridge, site: str) -> str:
    """Where the dense model reads what a site of the sparse one reads: what follows on the same place."""
    boundary = bridge.boundary("dense", place_of(bridge, site))
    if boundary == bridge.dense.last_boundary:
        return FINAL_SITE
    return f"{boundary // 2}.{list(READS)[boundary % 2]}"


def read_channel(bridge: Bridge, node: str) -> tuple[str, int]:
    """(site, channel) of a node that reads the residual stream. Raises UserError for any other."""
    site, channel = split_node(node)
    place_of(bridge, site)
    if channel >= bridge.sparse.config.d_model:
        raise UserError(f"{node} is no channel of the residual stream, which has {bridge.sparse.config.d_model}")
    return site, channel


def stream_reads(sparse: SparseTransformer, nodes: Iterable[str], boundaries: Sequence[int] | None = None) -> list[str]:
    """Those of some nodes of a sparse model that read the residual stream and can be steered from: no position channels
    beside it. boundaries: where it is joined to a dense one; None: everywhere."""
    found = []
    for node in nodes:
        site, channel = split_node(node)
        boundary = _boundary_read(sparse, site)
        joined = boundary is not None and (boundaries is None or boundary in boundaries)
        if joined and channel < sparse.config.d_model:
            found.append(node)
    return found


@dataclass(frozen=True)
class Norms:
    """How large the residual streams of both models are at each place: the root mean squares of their channels,
    averaged over the tokens of a reference set (about the channels' mean where a LayerNorm reads them)."""

    dense: Float[Tensor, " places"]
    sparse: Float[Tensor, " places"]


@torch.no_grad()
def residual_norms(bridge: Bridge, input_ids: Int[Tensor, "B T"], real: Bool[Tensor, "B T"]) -> Norms:
    """The norms over the real tokens of some prompts."""

    def of(side: Side) -> Tensor:
        model = bridge.model(side)
        centred = model.config.norm == "layer"
        streams = (x - x.mean(dim=-1, keepdim=True) if centred else x for x in bridge.streams(side, input_ids))
        return torch.stack([x.square().mean(dim=-1).sqrt()[real].mean() for x in streams])

    return Norms(of("dense"), of("sparse"))


@torch.no_grad()
def direction(bridge: Bridge, site: str, channel: int, norms: Norms) -> Float[Tensor, " Dd"]:
    """The change of the dense model's read (`dense_site`) for a change of 1 of the sparse model's read of a channel.

    The decoder's column of the channel, scaled by the ratio of the streams' root mean squares, since both reads are
    normed, and by the norms' weights, where they are not folded (Gao et al. 2025, section 5). At `final_resid`, which
    is not normed, the decoder's column alone.
    """
    place, other = place_of(bridge, site), dense_site(bridge, site)
    column = bridge.maps.decoder(place).weight[:, channel]
    if site == FINAL_SITE:
        return column
    if bridge.dense.config.norm == "layer":
        column = column - column.mean()
    weight, own = _norm_weight(bridge.dense, other), _norm_weight(bridge.sparse, site)
    if own[channel] == 0:  # the read is 0 whatever the stream is
        return torch.zeros_like(column)
    return weight * column * (norms.sparse[place] / norms.dense[place]) / own[channel]


def _norm_weight(model: SparseTransformer, site: str) -> Float[Tensor, " D"]:
    layer, kind = split_site(site)
    assert layer is not None
    norm: nn.Module = model.block(layer).ln_1 if kind == "attn.act_in" else model.block(layer).ln_2
    weight = norm.weight
    assert isinstance(weight, Tensor)
    return weight.detach()


@torch.no_grad()
def dense_change(
    bridge: Bridge, nodes: Iterable[tuple[str, int]], moved: Mapping[str, Float[Tensor, "n T Ds"]], norms: Norms
) -> dict[str, Float[Tensor, "n T Dd"]]:
    """What is added to the dense model's reads, by its sites, when sparse nodes change as `moved` says of theirs."""
    found: dict[str, Tensor] = {}
    for site, channel in nodes:
        added = moved[site][..., channel, None] * direction(bridge, site, channel, norms)
        there = dense_site(bridge, site)
        found[there] = found[there] + added if there in found else added
    return found
