"""`edit`: a circuit disabled for good, or the union of some circuits alone, as an ordinary model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.bridges.folding import Folded, switch_off
from sparsecircuits.circuits.circuit import Bound, Circuit
from sparsecircuits.errors import UserError
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.edges import EdgeGates, Edges, edges_between
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.space import NodeSpace


@dataclass(frozen=True)
class Operation:
    """What is switched off in a model: nodes, which carry their `frozen` value from then on, and edges."""

    off: Bool[Tensor, " nodes"]
    frozen: Float[Tensor, " nodes"]
    removed: Edges | None = None

    def gating(self, model: SparseTransformer) -> Gating:
        """The same by gates that hooks apply: what the edited model must equal."""
        edges = None if self.removed is None else EdgeGates.off(self.removed)
        return Gating(NodeSpace.of(model.config), 1 - self.off.float(), self.frozen, "mean", edges)


def edit(
    model: SparseTransformer,
    *,
    remove: Sequence[Circuit | str | Path] = (),
    keep: Sequence[Circuit | str | Path] = (),
    spare: Sequence[Circuit | str | Path] = (),
) -> SparseTransformer:
    """A copy of a model without some circuits, or with nothing but some circuits; the model itself stays as it is.

    remove: the nodes of these circuits carry their ablation values for good, but for those that a circuit of `spare`
    has too. keep: all nodes outside these circuits do, and so do the sources of edges that none of them has. Give one
    of the two. The copy is an ordinary model; where a constant cannot be folded into a bias exactly, it has
    `config.frozen_nodes`. Raises UserError for a circuit of another model, or circuits whose ablation values differ.
    """
    return switch_off_all(model, operation(model, remove=remove, keep=keep, spare=spare)).model


def switch_off_all(model: SparseTransformer, planned: Operation) -> Folded:
    """The edited copy, and how its nodes were switched off."""
    return switch_off(model, planned.off, planned.frozen, planned.removed)


def operation(
    model: SparseTransformer,
    *,
    remove: Sequence[Circuit | str | Path] = (),
    keep: Sequence[Circuit | str | Path] = (),
    spare: Sequence[Circuit | str | Path] = (),
) -> Operation:
    """What `edit` switches off. Raises UserError as it does."""
    if bool(remove) == bool(keep):
        raise UserError("say which circuits to remove, or which to keep")
    if keep and spare:
        raise UserError("spare goes with remove: all nodes of the circuits that are kept stay anyway")
    chosen, spared = ([_bound(model, circuit) for circuit in group] for group in (remove or keep, spare))
    frozen = _shared_values(chosen)
    union = _union(chosen)
    if remove:
        off = union & ~_union(spared) if spared else union
        if not bool(off.any()):
            raise UserError("the spared circuits have all nodes of those to remove: nothing is left to switch off")
        return Operation(off, frozen)
    return Operation(~union, frozen, _edges_of_none(model, chosen, union))


def _bound(model: SparseTransformer, circuit: Circuit | str | Path) -> Bound:
    found = circuit if isinstance(circuit, Circuit) else Circuit.load(circuit)
    found.check_model(model)
    return found.on(model)


def _union(circuits: Sequence[Bound]) -> Bool[Tensor, " nodes"]:
    return torch.stack([bound.kept for bound in circuits]).any(dim=0)


def _shared_values(circuits: Sequence[Bound]) -> Float[Tensor, " nodes"]:
    """The constants that all of these circuits freeze nodes at."""
    first = circuits[0]
    for bound in circuits:
        if bound.circuit.ablation == "resample":
            raise UserError(
                f"{bound.circuit.task} was found with resample ablation, which has no constants to keep for good: "
                "prune with --ablation mean"
            )
        if not torch.allclose(bound.frozen, first.frozen, rtol=1e-4, atol=1e-6):
            raise UserError(
                f"{bound.circuit.task} freezes nodes at other values than {first.circuit.task}: give circuits that "
                "were pruned with one ablation and over one text"
            )
    return first.frozen


def _edges_of_none(model: SparseTransformer, circuits: Sequence[Bound], union: Bool[Tensor, " nodes"]) -> Edges:
    """The nonzero weights between nodes of the union that no circuit has."""
    space = NodeSpace.of(model.config)
    between = edges_between(model, space, union)
    held = {pair for bound in circuits for pair in _edges_of(bound)}
    pairs = zip(between.source.tolist(), between.target.tolist(), strict=True)
    return between[torch.tensor([pair not in held for pair in pairs], dtype=torch.bool)]


def _edges_of(bound: Bound) -> set[tuple[int, int]]:
    """The edges that run in a circuit, by the flat ids of their ends."""
    removed = set(zip(bound.removed.source.tolist(), bound.removed.target.tolist(), strict=True))
    own = edges_between(bound.model, bound.space, bound.kept)
    return set(zip(own.source.tolist(), own.target.tolist(), strict=True)) - removed
