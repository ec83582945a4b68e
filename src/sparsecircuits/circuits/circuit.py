"""`Circuit`: the kept nodes and edges of a model for a task (`schema`), and what they are in that model."""

import base64
import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.circuits.schema import UNKNOWN_MODEL, CircuitData, Edge, Losses, Node
from sparsecircuits.errors import NoSuchNode, UserError
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import Calibration
from sparsecircuits.nodes.edges import EdgeGates, Edges, edges_between
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.space import NodeSpace

__all__ = ["UNKNOWN_MODEL", "Circuit", "Edge", "Losses", "Node", "encode_frozen"]


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
        space = NodeSpace.of(model.config)
        everything = edges_between(model, space, self.kept(space))
        on = {(edge.source, edge.target): edge.weight for edge in self.edges}
        names = dict(zip(self.kept(space).nonzero().flatten().tolist(), space.names(self.kept(space)), strict=True))
        ends = zip(everything.source.tolist(), everything.target.tolist(), strict=True)
        weights = dict(zip(((names[a], names[b]) for a, b in ends), everything.weight.tolist(), strict=True))
        known = set(names.values())
        for (source, target), weight in on.items():
            there = weights.get((source, target))
            if there is None and known.issuperset((source, target)):
                raise UserError(f"the circuit has an edge that the model lacks: {source} → {target}")
            if there is None or weight is None:  # it joins a node of another site than weights do, or is not known
                continue
            if not math.isclose(there, weight, rel_tol=1e-4, abs_tol=1e-7):
                raise UserError(
                    f"the circuit says that the weight of {source} → {target} is {weight:g}; in the model it is "
                    f"{there:g}: prune again"
                )
        return everything[torch.tensor([pair not in on for pair in weights], dtype=torch.bool)]

    def gating(self, model: SparseTransformer) -> Gating:
        """The circuit alone: every node outside it and every edge between its nodes that it lacks is off."""
        space, removed = NodeSpace.of(model.config), self.removed_edges(model)
        off = EdgeGates(removed, torch.zeros(len(removed)))
        return Gating(space, self.kept(space).float(), self.frozen_values(space), self.ablation, off)

    def without(self, model: SparseTransformer, off: Bool[Tensor, " nodes"]) -> Gating:
        """The whole model with only the nodes in the mask `off` ablated."""
        space = NodeSpace.of(model.config)
        return Gating(space, 1 - off.float(), self.frozen_values(space), self.ablation)


def encode_frozen(space: NodeSpace, frozen: Float[Tensor, " nodes"]) -> dict[str, str]:
    """Ablation values as they stand in the JSON."""
    return {
        site: base64.b64encode(values.numpy().astype("<f4").tobytes()).decode()
        for site, values in space.split(frozen.cpu()).items()
    }
