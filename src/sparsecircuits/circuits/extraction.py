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
