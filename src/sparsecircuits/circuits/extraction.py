"""Nodes and edges of a kept set, read off the weights."""

import torch
from torch import Tensor

from sparsecircuits.circuits.circuit import Edge, Node
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.sites import FINAL_SITE, split_node, split_site
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.pruning.edges import Edges, edges_between
from sparsecircuits.pruning.gates import NodeSpace

_WRITES = ("attn.resid_delta", "mlp.resid_delta")
_READS = ("attn.act_in", "mlp.act_in")


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


def residual_links(names: list[str], config: ModelConfig) -> list[tuple[str, str]]:
    """(write, read) pairs of kept nodes on one residual channel: what is written is read later. Not edges:
    the residual stream has no weights. A write reaches every later read of its channel."""
    order = {name: place for place, name in enumerate(names)}
    writes, reads = [], []
    for name in names:
        full_site, index = split_node(name)
        site = split_site(full_site)[1]
        if site in _WRITES:
            writes.append((name, index))
        elif (site in _READS and index < config.d_model) or site == FINAL_SITE:
            reads.append((name, index))
    return [(w, r) for w, i in writes for r, j in reads if i == j and order[r] > order[w]]
