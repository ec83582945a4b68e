"""Edges: nonzero weights between nodes, and gates on them.

An edge that is off carries its source's ablation value in the place of its activation, as a frozen node does
for all of its edges at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.topology import Join, joins

ForwardHook = Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]


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
        both: Tensor = here & (self.target >= target.start) & (self.target < target.stop)
        return both

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

    @classmethod
    def off(cls, edges: Edges) -> "EdgeGates":
        """All of them closed."""
        return cls(edges, torch.zeros(len(edges)))

    def hooks(
        self, model: SparseTransformer, space: NodeSpace, instead: Callable[[str], Tensor]
    ) -> Iterator[tuple[nn.Module, ForwardHook]]:
        """(module, forward hook) pairs that close the gates. Differentiable in the gates.

        instead(site): what an edge from that site carries when off; [width], or as the site's activation.
        """
        for join in joins(model):
            source, target = space.slices[join.source], space.slices[join.target]
            here = self.edges.joining(source, target)
            if here.any():
                yield join.linear, self._hook(join, here, source.start, target.start, instead(join.source))

    def _hook(self, join: Join, here: Tensor, source: int, target: int, instead: Tensor) -> ForwardHook:
        edges, device = self.edges[here], join.weight.device
        columns, column = edges.source.unique(return_inverse=True)
        rows, row = edges.target.unique(return_inverse=True)
        off = (1 - self.gates.to(device)[here.to(device)]) * edges.weight.to(device)
        block = torch.zeros(len(rows), len(columns), device=device).index_put((row, column), off)
        columns, rows = (columns - source).to(device), (rows - target + join.offset).to(device)

        def hook(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            change = (instead[..., columns] - inputs[0][..., columns]) @ block.T
            return output.index_add(-1, rows, change.to(output.dtype))

        return hook
