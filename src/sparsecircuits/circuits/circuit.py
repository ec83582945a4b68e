"""`Circuit`: the kept nodes and edges of a model for a task, as one JSON with a versioned schema."""

import base64
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from sparsecircuits.errors import UserError
from sparsecircuits.files import parse_json, read_text, write_text
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.pruning.edges import EdgeGates, Edges, edges_between
from sparsecircuits.pruning.gates import NodeSpace
from sparsecircuits.pruning.gating import Ablation, Gating
from sparsecircuits.pruning.objective import Calibration


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Node(_Strict):
    """One channel of one site."""

    name: str
    """`{layer}.{site}.{index}`, or `final_resid.{index}`."""
    layer: int | None
    site: str
    index: int = Field(ge=0)
    head: int | None = None
    """Attention head of a q, k or v channel."""
    mean: float | None
    """Mean activation over pretraining text; None where a published file does not say it."""
    importance: float | None = None
    """Rise of the circuit's loss in nats when this node alone is frozen."""


class Edge(_Strict):
    """A nonzero weight between two kept nodes that runs; others between them carry the source's ablation value."""

    source: str
    target: str
    weight: float | None
    """None where a published file does not hold it."""
    importance: float | None = None
    """Rise of the circuit's loss in nats when this edge alone is ablated."""


UNKNOWN_MODEL = "unknown"
"""The model id of a published circuit that was read without its model."""


class Losses(_Strict):
    """Task losses in nats on one split; chance is ln 2."""

    split: str
    n_pairs: int
    seed: int
    circuit: float
    """All nodes and edges outside ablated (sufficiency)."""
    full: float
    """The whole model."""
    empty: float
    """Every node frozen."""
    ablated: float
    """Only the circuit's nodes frozen (necessity)."""
    accuracy: float
    accuracy_full: float


class Circuit(_Strict):
    """A circuit. `load` and `save` are one JSON file; unknown fields are refused."""

    schema_version: Literal[1] = 1
    task: str
    answers: tuple[str, str]
    model_name: str
    model_id: str
    """Content hash of the model that it belongs to."""
    ablation: Ablation = "mean"
    """What nodes outside carry (see `Gating`)."""
    target_loss: float
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    """Calibration: candidate logits become scale * logits + shift."""
    losses: Losses | None = None
    frozen: dict[str, str]
    """What nodes outside are frozen at: per site, base64 of little-endian float32, one per channel."""
    found_by: dict[str, Any] = Field(default_factory=dict)
    """How it was found: method, hyperparameters, seconds."""

    @model_validator(mode="after")
    def _consistent(self) -> "Circuit":
        """Names say the same as the fields beside them, and edges lie between nodes; nothing is there twice."""
        names = set()
        for node in self.nodes:
            place = node.site if node.layer is None else f"{node.layer}.{node.site}"
            if node.name != f"{place}.{node.index}":
                raise ValueError(f"the node {node.name!r} is described as channel {node.index} of {place}")
            names.add(node.name)
        ends = {(edge.source, edge.target) for edge in self.edges}
        if len(names) < len(self.nodes) or len(ends) < len(self.edges):
            raise ValueError("a node or an edge is there twice")
        loose = next((name for pair in ends for name in pair if name not in names), None)
        if loose is not None:
            raise ValueError(f"an edge ends at {loose!r}, which is no node of the circuit")
        return self

    @property
    def calibration(self) -> Calibration:
        """The calibration as a function of candidate logits."""
        return Calibration(self.scale, self.shift)

    @property
    def node_names(self) -> list[str]:
        """Names of the kept nodes, in order of computation."""
        return [node.name for node in self.nodes]

    def save(self, path: str | Path) -> Path:
        """Write the JSON file atomically and return its path."""
        return write_text(Path(path), json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Circuit":
        """Read a JSON file. Raises UserError that names what is wrong with it."""
        text = read_text(Path(path), "circuit")
        try:
            return cls.model_validate(parse_json(text))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise UserError(f"{path} is not a circuit: {where}: {first['msg']}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not a circuit: {error}") from error

    def check_model(self, model: SparseTransformer) -> None:
        """Raise UserError when this circuit was made for another model."""
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

    def kept(self, space: NodeSpace) -> Bool[Tensor, " nodes"]:
        """The kept nodes as a mask. Raises UserError for a node that the model lacks."""
        try:
            return space.mask(self.node_names)
        except (KeyError, IndexError, ValueError) as error:
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
        that is no weight of the model."""
        space = NodeSpace.of(model.config)
        everything = edges_between(model, space, self.kept(space))
        on = {(edge.source, edge.target) for edge in self.edges}
        names = dict(zip(self.kept(space).nonzero().flatten().tolist(), space.names(self.kept(space)), strict=True))
        ends = zip(everything.source.tolist(), everything.target.tolist(), strict=True)
        there = [(names[source], names[target]) for source, target in ends]
        known = set(names.values())
        unknown = {pair for pair in on - set(there) if known.issuperset(pair)}
        if unknown:
            source, target = min(unknown)
            raise UserError(f"the circuit has an edge that the model lacks: {source} → {target}")
        return everything[torch.tensor([pair not in on for pair in there], dtype=torch.bool)]

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
