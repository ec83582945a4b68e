"""What a node of the sparse model is in the dense one: a direction of what a sublayer reads there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sparsecircuits.bridges.bridge import Bridge, Side, residual_streams
from sparsecircuits.errors import UserError
from sparsecircuits.models.sites import FINAL_SITE, split_node, split_site
from sparsecircuits.models.transformer import SparseTransformer

READS = {"attn.act_in": 0, "mlp.act_in": 1}
"""Sites of normed reads, and how far behind the layer's first boundary they lie."""


def boundary_of(bridge: Bridge, site: str) -> int:
    """The boundary whose residual stream a site reads. Raises UserError for a site that is no read of the stream."""
    layer, kind = split_site(site)
    if site == FINAL_SITE:
        return bridge.boundaries - 1
    if layer is None or kind not in READS or layer >= bridge.sparse.config.n_layer:
        reads = f"{', '.join(f'LAYER.{name}' for name in READS)} or {FINAL_SITE}"
        raise UserError(f"{site} is no read of the residual stream, which is what a bridge maps: give nodes of {reads}")
    return 2 * layer + READS[kind]


def read_channel(bridge: Bridge, node: str) -> tuple[str, int]:
    """(site, channel) of a node that reads the residual stream. Raises UserError for any other."""
    site, channel = split_node(node)
    boundary_of(bridge, site)
    if channel >= bridge.sparse.config.d_model:
        raise UserError(f"{node} is no channel of the residual stream, which has {bridge.sparse.config.d_model}")
    return site, channel


def stream_reads(sparse: SparseTransformer, nodes: Iterable[str]) -> list[str]:
    """Those of some nodes of a sparse model that read the residual stream and can be steered from: no position channels
    beside it."""
    found = []
    for node in nodes:
        site, channel = split_node(node)
        reads = site == FINAL_SITE or split_site(site)[1] in READS
        if reads and channel < sparse.config.d_model:
            found.append(node)
    return found


@dataclass(frozen=True)
class Norms:
    """How large the residual streams of both models are at each boundary: the root mean squares of their channels,
    averaged over the tokens of a reference set (about the channels' mean where a LayerNorm reads them)."""

    dense: Float[Tensor, " boundaries"]
    sparse: Float[Tensor, " boundaries"]


@torch.no_grad()
def residual_norms(bridge: Bridge, input_ids: Int[Tensor, "B T"], real: Bool[Tensor, "B T"]) -> Norms:
    """The norms over the real tokens of some prompts."""

    def of(side: Side) -> Tensor:
        model = bridge.model(side)
        centred = model.config.norm == "layer"
        streams = (x - x.mean(dim=-1, keepdim=True) if centred else x for x in residual_streams(model, input_ids))
        return torch.stack([x.square().mean(dim=-1).sqrt()[real].mean() for x in streams])

    return Norms(of("dense"), of("sparse"))


@torch.no_grad()
def direction(bridge: Bridge, site: str, channel: int, norms: Norms) -> Float[Tensor, " Dd"]:
    """The change of the dense model's read at a site for a change of 1 of the sparse model's read of a channel.

    The decoder's column of the channel, scaled by the ratio of the streams' root mean squares, since both reads are
    normed, and by the norms' weights, where they are not folded (Gao et al. 2025, section 5). At `final_resid`, which
    is not normed, the decoder's column alone.
    """
    boundary = boundary_of(bridge, site)
    column = bridge.maps.decoder(boundary).weight[:, channel]
    if site == FINAL_SITE:
        return column
    if bridge.dense.config.norm == "layer":
        column = column - column.mean()
    weight, own = (_norm_weight(model, site) for model in (bridge.dense, bridge.sparse))
    if own[channel] == 0:  # the read is 0 whatever the stream is
        return torch.zeros_like(column)
    return weight * column * (norms.sparse[boundary] / norms.dense[boundary]) / own[channel]


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
    """What is added to the dense model's reads, by site, when sparse nodes change as `moved` says of their sites."""
    found: dict[str, Tensor] = {}
    for site, channel in nodes:
        added = moved[site][..., channel, None] * direction(bridge, site, channel, norms)
        found[site] = found[site] + added if site in found else added
    return found
