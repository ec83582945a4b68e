"""Edges: nonzero weights between nodes, and gates on them.

An edge that is off carries its source's ablation value in the place of its activation, as a frozen node does
for all of its edges at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sparsecircuits.models.sites import split_site
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.space import NodeSpace

# Which sites a layer's matrices join: (source, target, module, which third of its rows or None for all).
_JOINS = (
    ("attn.act_in", "attn.q", "attn.c_attn", 0),
    ("attn.act_in", "attn.k", "attn.c_attn", 1),
    ("attn.act_in", "attn.v", "attn.c_attn", 2),
    ("attn.v", "attn.resid_delta", "attn.c_proj", None),
    ("mlp.act_in", "mlp.post_act", "mlp.c_fc", None),
    ("mlp.post_act", "mlp.resid_delta", "mlp.c_proj", None),
)


@dataclass(frozen=True)
class Join:
    """A matrix, or a third of one, that joins two sites. v feeds the attention's write through its head:
    `attn.v.j -> attn.resid_delta.c` is c_proj[c, j]."""

    source: str
    target: str
    linear: nn.Linear
    offset: int
    weight: Float[Tensor, "target source"]


def joins(model: SparseTransformer) -> Iterator[Join]:
    """All joins of a model, in order of computation."""
    for layer in range(model.config.n_layer):
        for source, target, name, third in _JOINS:
            linear = model.block(layer).get_submodule(name)
            assert isinstance(linear, nn.Linear)
            height = linear.weight.shape[0] // (1 if third is None else 3)
            offset = (third or 0) * height
            weight = linear.weight[offset : offset + height]
            yield Join(f"{layer}.{source}", f"{layer}.{target}", linear, offset, weight)


@dataclass(frozen=True)
class Edges:
    """A list of edges: flat ids of both ends in the node space, and weights; all [E]."""

    source: Int[Tensor, " E"]
    target: Int[Tensor, " E"]
    weight: Float[Tensor, " E"]

    def __len__(self) -> int:
        return self.source.numel()

    def __getitem__(self, chosen: Tensor) -> "Edges":
        return Edges(self.source[chosen], self.target[chosen], self.weight[chosen])

    def joining(self, source: slice, target: slice) -> Bool[Tensor, " E"]:
        """Which edges lead from one site's place in the node space to another's."""
        here = (self.source >= source.start) & (self.source < source.stop)
        return here & (self.target >= target.start) & (self.target < target.stop)

    def between(self, kept: Bool[Tensor, " nodes"]) -> Bool[Tensor, " E"]:
        """Which edges have both ends in a set of nodes."""
        return kept[self.source] & kept[self.target]


@torch.no_grad()
def edges_between(model: SparseTransformer, space: NodeSpace, kept: Bool[Tensor, " nodes"]) -> Edges:
    """The nonzero weights between the nodes of a set, matrix by matrix, row by row."""
    found = []
    for join in joins(model):
        source, target = space.slices[join.source], space.slices[join.target]
        columns, rows = kept[source].nonzero().flatten(), kept[target].nonzero().flatten()
        block = join.weight.detach().cpu()[rows][:, columns]
        r, c = block.nonzero(as_tuple=True)
        found.append(Edges(columns[c] + source.start, rows[r] + target.start, block[r, c].float()))
    return Edges(*(torch.cat([getattr(part, name) for part in found]) for name in ("source", "target", "weight")))


@dataclass(frozen=True)
class EdgeGates:
    """Gates on a list of edges, 1 on and 0 off; weights that are not in the list run as they are."""

    edges: Edges
    gates: Float[Tensor, " E"]

    def hooks(
        self, model: SparseTransformer, space: NodeSpace, instead: Callable[[str], Callable[[Tensor], Tensor]]
    ) -> Iterator[tuple[nn.Module, Callable]]:
        """(module, forward hook) pairs that close the gates. Differentiable in the gates.

        instead(site)(x): what an edge from that site carries when off, where x is the site's activation; [width],
        or as x.
        """
        for join in joins(model):
            source, target = space.slices[join.source], space.slices[join.target]
            here = self.edges.joining(source, target)
            if here.any():
                yield join.linear, self._hook(join, here, source.start, target.start, instead(join.source))

    def _hook(
        self, join: Join, here: Tensor, source: int, target: int, instead: Callable[[Tensor], Tensor]
    ) -> Callable:
        edges, device = self.edges[here], join.weight.device
        columns, column = edges.source.unique(return_inverse=True)
        rows, row = edges.target.unique(return_inverse=True)
        off = (1 - self.gates.to(device)[here.to(device)]) * edges.weight.to(device)
        block = torch.zeros(len(rows), len(columns), device=device).index_put((row, column), off)
        columns, rows = (columns - source).to(device), (rows - target + join.offset).to(device)

        def hook(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            constant = instead(inputs[0])[..., columns]
            change = (constant - inputs[0][..., columns]) @ block.T
            return output.index_add(-1, rows, change.to(output.dtype))

        return hook


def weight_of(model: SparseTransformer, source: str, target: str) -> Tensor | None:
    """The weight matrix [target channels, source channels] that joins two sites; None if none does."""
    if split_site(source)[0] is None:
        return None
    return next((join.weight for join in joins(model) if (join.source, join.target) == (source, target)), None)
