"""Nodes and edges of a kept set, read off the weights."""

import torch
from torch import Tensor

from sparsecircuits.circuits.circuit import Edge, Node
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.names import split_node, split_site
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.edges import Edges, edges_between
from sparsecircuits.nodes.space import NodeSpace


def nodes_of(names: list[str], config: ModelConfig, means: dict[str, Tensor]) -> list[Node]:
    """Node records of node names; means: [width] per site."""
    found = []
    for name in names:
        full_site, index = split_node(name)
        layer, site = split_site(full_site)
        head = index // config.d_head if site in ("attn.q", "attn.k", "attn.v") else None
        mean = means[full_site][index].item()
        found.append(Node(name=name, layer=layer, site=site, index=index, head=head, mean=mean))
    return found


def weight_between(model: SparseTransformer, source: str, target: str) -> Tensor | None:
    """The weight matrix [target channels, source channels] that joins two sites; None if none does.

    v feeds the attention's write through its head: attn.v.j -> attn.resid_delta.c is c_proj[c, j].
    """
    (layer, source_site), (target_layer, target_site) = split_site(source), split_site(target)
    if layer is None or layer != target_layer:
        return None
    block = model.block(layer)
    if source_site == "attn.act_in" and target_site in ("attn.q", "attn.k", "attn.v"):
        part = ("attn.q", "attn.k", "attn.v").index(target_site)
        return block.attn.c_attn.weight.chunk(3, dim=0)[part]
    return {
        ("attn.v", "attn.resid_delta"): block.attn.c_proj.weight,
        ("mlp.act_in", "mlp.post_act"): block.mlp.c_fc.weight,
        ("mlp.post_act", "mlp.resid_delta"): block.mlp.c_proj.weight,
    }.get((source_site, target_site))


def by_site(names: list[str]) -> dict[str, list[int]]:
    """Channel indices of node names, per full site name."""
    grouped: dict[str, list[int]] = {}
    for name in names:
        site, index = split_node(name)
        grouped.setdefault(site, []).append(index)
    return grouped


def edges_of(names: list[str], model: SparseTransformer) -> list[Edge]:
    """The nonzero weights between kept nodes (the count that the paper reports)."""
    space = NodeSpace.of(model.config)
    return edge_records(edges_between(model, space, space.mask(names)), space)


def edge_records(edges: Edges, space: NodeSpace) -> list[Edge]:
    """Edges by the names of their ends."""
    ends = torch.zeros(space.size, dtype=torch.bool)
    ends[edges.source], ends[edges.target] = True, True
    name = dict(zip(ends.nonzero().flatten().tolist(), space.names(ends), strict=True))
    return [
        Edge(source=name[source], target=name[target], weight=weight)
        for source, target, weight in zip(
            *(x.tolist() for x in (edges.source, edges.target, edges.weight)), strict=True
        )
    ]
