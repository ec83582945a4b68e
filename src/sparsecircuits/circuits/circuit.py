"""`Circuit`: the kept nodes and edges of a model for a task (`schema`); `Bound`: what they are in that model."""

import base64
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.circuits.schema import UNKNOWN_MODEL, CircuitData, Edge, Losses, Node
from sparsecircuits.errors import NoSuchNode, UserError
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import Calibration
from sparsecircuits.nodes.compact_forward import edges_by_site, masks, narrowing_of
from sparsecircuits.nodes.edges import EdgeGates, Edges, edges_between
from sparsecircuits.nodes.evaluator import Evaluator
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.plans.narrowing import Narrowing
from sparsecircuits.plans.plan import Plan
from sparsecircuits.tasks import PairBatch, Task

if TYPE_CHECKING:
    from sparsecircuits.circuits.compiled import CompiledCircuit

__all__ = ["UNKNOWN_MODEL", "Bound", "Circuit", "Edge", "Losses", "Node", "encode_frozen"]


class Circuit(CircuitData):
    """A circuit. `load` and `save` are one JSON file; unknown fields are refused."""

    @property
    def calibration(self) -> Calibration:
        """The calibration as a function of candidate logits."""
        return Calibration(self.scale, self.shift)

    def check_model(self, model: SparseTransformer) -> None:
        """Raise UserError when this circuit was made for another model, or does not say of this one what it is."""
        if self.model_id == UNKNOWN_MODEL:
            raise UserError(
                f"the published file of this circuit does not hold its model {self.model_name}: join the two with "
                "`sparsecircuits convert FILE circuit.json --to native --model MODEL --data CORPUS`"
            )
        if content_hash(model) != self.model_id:
            raise UserError(
                f"this circuit belongs to model {self.model_name} ({self.model_id[:12]}…), not to "
                f"{model.name} ({content_hash(model)[:12]}…): give the model that it was found in, or prune again"
            )
        for node in self.nodes:
            if node.head is not None and node.head != node.index // model.config.d_head:
                raise UserError(f"the circuit says that {node.name} lies in head {node.head}, where it does not")
        self.removed_edges(model)

    def check_task(self, task: Task) -> None:
        """Raise UserError when a task scores answers in another form than the one that the circuit was found with."""
        if self.loss not in (None, task.loss):
            raise UserError(
                f"this circuit was found with the loss {self.loss!r} of its task, {task.name} has {task.loss!r}: "
                "prune again"
            )

    def kept(self, space: NodeSpace) -> Bool[Tensor, " nodes"]:
        """The kept nodes as a mask. Raises UserError for a node that the model lacks."""
        try:
            return space.mask(self.node_names)
        except NoSuchNode as error:
            raise UserError(f"the circuit has a node that the model lacks: {error}") from error

    def frozen_values(self, space: NodeSpace) -> Float[Tensor, " nodes"]:
        """What nodes are frozen at. Raises UserError when a site is missing or of another width."""
        if not self.frozen:
            raise UserError(
                "this circuit holds no ablation values, as published ones do not: compute them with "
                "`sparsecircuits convert FILE circuit.json --to native --model MODEL --data CORPUS`"
            )
        by_site = {}
        for site, place in space.slices.items():
            try:
                values = np.frombuffer(base64.b64decode(self.frozen[site], validate=True), dtype="<f4")
            except (KeyError, ValueError) as error:
                raise UserError(f"the circuit's ablation values of {site} are missing or damaged") from error
            if values.size != place.stop - place.start or not np.isfinite(values).all():
                raise UserError(f"the circuit's ablation values of {site} do not fit the model")
            by_site[site] = torch.from_numpy(values.copy())
        return space.join(by_site)

    def removed_edges(self, model: SparseTransformer) -> Edges:
        """The nonzero weights between kept nodes that the circuit does without. Raises UserError for an edge
        that is no weight of the model, or another than the circuit says."""
        return self.on(model).removed

    def gating(self, model: SparseTransformer) -> Gating:
        """The circuit alone: every node outside it and every edge between its nodes that it lacks is off."""
        return self.on(model).alone

    def without(self, model: SparseTransformer, off: Bool[Tensor, " nodes"]) -> Gating:
        """The whole model with only the nodes in the mask `off` ablated."""
        return self.on(model).without(off)

    def on(self, model: SparseTransformer) -> "Bound":
        """The circuit in a model (see `Bound`)."""
        return Bound(self, model)

    def compile(self, model: SparseTransformer) -> "CompiledCircuit":
        """The circuit alone as a forward pass that costs what its own nodes and edges do. Raises UserError when it does
        not fit the model, or was found with resample ablation."""
        from sparsecircuits.circuits.compiled import CompiledCircuit

        self.check_model(model)
        return CompiledCircuit.of(self.on(model))


@dataclass(frozen=True)
class Bound:
    """A circuit in a model, and what both together say: each thing is read when it is first asked for, and kept.

    The model's weights must not change while it lives. What does not fit the model raises UserError when it is read.
    """

    circuit: Circuit
    model: SparseTransformer

    @cached_property
    def space(self) -> NodeSpace:
        """The model's node space."""
        return NodeSpace.of(self.model.config)

    @cached_property
    def kept(self) -> Bool[Tensor, " nodes"]:
        """The kept nodes as a mask."""
        return self.circuit.kept(self.space)

    @cached_property
    def frozen(self) -> Float[Tensor, " nodes"]:
        """What nodes are frozen at."""
        return self.circuit.frozen_values(self.space)

    @cached_property
    def _between(self) -> tuple[Edges, list[tuple[str, str]]]:
        """The nonzero weights between kept nodes, and the names of their ends."""
        found = edges_between(self.model, self.space, self.kept)
        names = dict(zip(self.kept.nonzero().flatten().tolist(), self.space.names(self.kept), strict=True))
        ends = zip(found.source.tolist(), found.target.tolist(), strict=True)
        return found, [(names[source], names[target]) for source, target in ends]

    @cached_property
    def removed(self) -> Edges:
        """The nonzero weights between kept nodes that the circuit does without."""
        between, ends = self._between
        weights, known = dict(zip(ends, between.weight.tolist(), strict=True)), set(self.space.names(self.kept))
        for edge in self.circuit.edges:
            there = weights.get((edge.source, edge.target))
            if there is None and known.issuperset((edge.source, edge.target)):
                raise UserError(f"the circuit has an edge that the model lacks: {edge.source} → {edge.target}")
            if there is None or edge.weight is None:  # it joins a node of another site than weights do, or is not known
                continue
            if not math.isclose(there, edge.weight, rel_tol=1e-4, abs_tol=1e-7):
                raise UserError(
                    f"the circuit says that the weight of {edge.source} → {edge.target} is {edge.weight:g}; in the "
                    f"model it is {there:g}: prune again"
                )
        return self._all_but(self.circuit.edges)

    def _all_but(self, edges: Iterable[Edge]) -> Edges:
        """The nonzero weights between kept nodes that are none of some edges."""
        between, ends = self._between
        on = {(edge.source, edge.target) for edge in edges}
        return between[torch.tensor([pair not in on for pair in ends], dtype=torch.bool)]

    @cached_property
    def alone(self) -> Gating:
        """The circuit alone: every node outside it and every edge between its nodes that it lacks is off."""
        return Gating(self.space, self.kept.float(), self.frozen, self.circuit.ablation, EdgeGates.off(self.removed))

    def removed_with(self, edge: Edge) -> Edges:
        """The same with one of the circuit's edges."""
        return self._all_but(other for other in self.circuit.edges if other is not edge)

    def without(self, off: Bool[Tensor, " nodes"]) -> Gating:
        """The whole model with only the nodes in the mask `off` ablated."""
        return Gating(self.space, 1 - off.float(), self.frozen, self.circuit.ablation)

    @cached_property
    def nothing(self) -> Gating:
        """Every node ablated."""
        return self.without(torch.ones(self.space.size, dtype=torch.bool))

    @cached_property
    def rest(self) -> Gating:
        """The whole model with the circuit's nodes ablated."""
        return self.without(self.kept)

    @cached_property
    def narrowing(self) -> Narrowing:
        """What the plans of all sets of the model's nodes share, all else frozen as it is in the circuit."""
        return narrowing_of(self.model, self.frozen)

    @cached_property
    def plan(self) -> Plan:
        """What varies where the circuit runs alone. Of no meaning where others carry what they are on other prompts."""
        return self.narrowing.plan(masks(self.space, self.kept), edges_by_site(self.space, self.removed))

    def evaluator(self, batch: PairBatch) -> Evaluator:
        """What scores sets of the model's nodes on some prompts, all else frozen as it is in the circuit."""
        narrowing = None if self.circuit.ablation == "resample" else self.narrowing
        return Evaluator(self.model, self.frozen, batch, ablation=self.circuit.ablation, narrowing=narrowing)


def encode_frozen(space: NodeSpace, frozen: Float[Tensor, " nodes"]) -> dict[str, str]:
    """Ablation values as they stand in the JSON."""
    return {
        site: base64.b64encode(values.numpy().astype("<f4").tobytes()).decode()
        for site, values in space.split(frozen.cpu()).items()
    }
