"""What a circuit's file holds: one JSON with a versioned schema, and the one reader that checks it. Free of torch, so
that a picture can stand before the model is loaded."""

import base64
import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer, model_validator

from sparsecircuits.errors import UserError
from sparsecircuits.files import read_json, write_text
from sparsecircuits.models.names import split_node, split_site
from sparsecircuits.nodes.ablation import Ablation

LARGEST_FILE = 200_000_000  # bytes
_HEADED = ("attn.q", "attn.k", "attn.v")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# Of JSON's numbers alone: no text, no truth value.
Whole = Annotated[int, Field(strict=True, ge=0, lt=10**9)]
Real = Annotated[float, Field(strict=True)]
Name = Annotated[str, Field(max_length=200)]


class Node(_Strict):
    """One channel of one site."""

    name: Name
    """`{layer}.{site}.{index}`, or `final_resid.{index}`."""
    layer: Whole | None
    site: Name
    index: Whole
    head: Whole | None = None
    """Attention head of a q, k or v channel."""
    mean: Real | None
    """Mean activation over pretraining text; None where a published file does not say it."""
    importance: Real | None = None
    """Rise of the circuit's loss in nats when this node alone is frozen."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """The name is a node's, and says the same as the fields beside it."""
        site, index = split_node(self.name)
        if (*split_site(site), index) != (self.layer, self.site, self.index):
            place = self.site if self.layer is None else f"{self.layer}.{self.site}"
            raise ValueError(f"the node {self.name!r} is described as channel {self.index} of {place}")
        if self.head is not None and (self.site not in _HEADED or self.head > self.index):
            raise ValueError(f"the node {self.name!r} cannot lie in head {self.head}")
        return self


class Edge(_Strict):
    """A nonzero weight between two kept nodes that runs; others between them carry the source's ablation value."""

    source: Name
    target: Name
    weight: Real | None
    """None where a published file does not hold it."""
    importance: Real | None = None
    """Rise of the circuit's loss in nats when this edge alone is ablated."""


UNKNOWN_MODEL = "unknown"
"""The model id of a published circuit that was read without its model."""


class Losses(_Strict):
    """Task losses in nats on one split; chance is ln 2."""

    split: Name
    n_pairs: Annotated[Whole, Field(ge=1)]
    seed: Annotated[int, Field(strict=True)]
    circuit: Real
    """All nodes and edges outside ablated (sufficiency); calibrated."""
    full: Real
    """The whole model; raw."""
    empty: Real
    """Every node frozen; raw."""
    ablated: Real
    """Only the circuit's nodes frozen (necessity); raw."""
    accuracy: Real
    """Of the circuit, calibrated."""
    accuracy_full: Real
    # Files of earlier versions lack what follows.
    circuit_raw: Real | None = None
    """Without the calibration that `circuit` has."""
    full_calibrated: Real | None = None
    """Calibrated on training pairs, as the circuit is; likewise below."""
    empty_calibrated: Real | None = None
    ablated_calibrated: Real | None = None
    order: Real | None = None
    """Share of pairs whose two prompts the circuit puts in the right order, ties counted as half: no bias hides it,
    and no calibration makes it."""
    order_full: Real | None = None
    order_empty: Real | None = None
    order_ablated: Real | None = None

    @property
    def rows(self) -> list[tuple[str, float | None, float | None, float | None]]:
        """What ran; its loss calibrated, and raw; and the share of pairs in the right order."""
        return [
            ("circuit alone (sufficiency)", self.circuit, self.circuit_raw, self.order),
            ("whole model", self.full_calibrated, self.full, self.order_full),
            ("nothing (every node frozen)", self.empty_calibrated, self.empty, self.order_empty),
            ("all but the circuit (necessity)", self.ablated_calibrated, self.ablated, self.order_ablated),
        ]


class ShownLosses(BaseModel):
    """Of `Losses`, what a picture shows: all of it was measured, or a published file says some of it of itself."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    split: Name | None = None
    n_pairs: Whole | None = None
    circuit: Real | None = None
    full: Real | None = None
    empty: Real | None = None
    ablated: Real | None = None
    full_calibrated: Real | None = None
    ablated_calibrated: Real | None = None


class SearchRecord(_Strict):
    """The search that a circuit is the best of."""

    trials: Whole
    best_trial: Whole


class Hardening(_Strict):
    """What became of a circuit under mixtures of itself and the whole model (see `pruning.hardening`)."""

    rounds: Whole
    """Of pruning again under what had broken the circuit."""
    challenges: Whole
    """Subsets under which the circuit was made to hold the target."""
    worst: Real
    """The largest loss under the subsets of the last round, which were fresh ones, in nats, calibrated."""
    held: bool
    """Whether it keeps to the target."""


class FoundBy(BaseModel):
    """How a circuit was found. A file holds what is known of it; what other programs and later versions say beside
    that is kept as it is."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    method: str | None = None
    version: str | None = None
    """Of this package."""
    config: dict[str, object] = Field(default_factory=dict)
    """Hyperparameters by name (see `pruning.config`)."""
    ranked_size: Whole | None = None
    """Nodes of the smallest prefix of the ranking that holds the goal, before any clean-up."""
    edges_before_edge_pruning: Whole | None = None
    forbidden: tuple[Name, ...] | None = None
    """Nodes that had to stay outside."""
    validation_loss: Real | None = None
    curve: tuple[tuple[Whole, Whole, Real], ...] | None = None
    """Nodes, edges and loss of looser and tighter sets (see `pruning.size_curve`)."""
    evaluations: Whole | None = None
    """Sets scored on all prompts; `glances` on the first few."""
    glances: Whole | None = None
    seconds: Real | None = None
    search: SearchRecord | None = None
    hardening: Hardening | None = None
    # What a published file says of itself.
    file: str | None = None
    published_losses: ShownLosses | None = None
    nodes_of_the_model: Whole | None = None
    prune_config: dict[str, object] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _plain(self) -> Self:
        _check_plain([self.config, self.prune_config, self.model_extra])
        return self

    @model_serializer
    def _as_given(self) -> dict[str, object]:
        """What is not known is not written, so that a file's checksum outlives fields that come later."""
        return {name: value for name, value in self if name in self.model_fields_set}


class CircuitData(_Strict):
    """A circuit as data. `load` and `save` are one JSON file; unknown fields are refused."""

    schema_version: Literal[1] = 1
    task: Name
    answers: tuple[Name, Name]
    model_name: Annotated[str, Field(max_length=1000)]
    model_id: Name
    """Content hash of the model that it belongs to."""
    ablation: Ablation = "mean"
    """What nodes outside carry (see `Gating`)."""
    loss: Literal["pair", "class"] | None = None
    """The form of the task's loss (see `Task.loss`); None where an earlier version or a published file does not say."""
    target_loss: Real
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    scale: Real = 1.0
    shift: tuple[Real, Real] = (0.0, 0.0)
    """Calibration: candidate logits become scale * logits + shift."""
    losses: Losses | None = None
    frozen: dict[str, str]
    """What nodes outside are frozen at: per site, base64 of little-endian float32, one per channel."""
    found_by: FoundBy = Field(default_factory=FoundBy)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Edges lie between nodes, nothing is there twice, and what is written down twice agrees."""
        names = {node.name for node in self.nodes}
        ends = {(edge.source, edge.target) for edge in self.edges}
        if len(names) < len(self.nodes) or len(ends) < len(self.edges):
            raise ValueError("a node or an edge is there twice")
        loose = next((name for pair in ends for name in pair if name not in names), None)
        if loose is not None:
            raise ValueError(f"an edge ends at {loose!r}, which is no node of the circuit")
        self._check_frozen()
        return self

    def _check_frozen(self) -> None:
        """Ablation values can be read, and under mean ablation they are what the kept nodes say as their means."""
        values = {}
        for site, text in self.frozen.items():
            try:
                values[site] = base64.b64decode(text, validate=True)
            except ValueError as error:
                raise ValueError(f"the ablation values of {site[:40]} are damaged: {error}") from error
        for node in self.nodes if self.ablation == "mean" else ():
            raw = values.get(split_node(node.name)[0], b"")
            if node.mean is None or len(raw) < 4 * node.index + 4:
                continue  # what a site lacks is told where the model's widths are known
            [frozen] = struct.unpack_from("<f", raw, 4 * node.index)
            if not abs(frozen - node.mean) <= 1e-5 * (1 + abs(node.mean)):
                raise ValueError(f"the mean of {node.name} is {node.mean:g}, but it is ablated at {frozen:g}")

    @property
    def node_names(self) -> list[str]:
        """Names of the kept nodes, in order of computation."""
        return [node.name for node in self.nodes]

    @property
    def shown_losses(self) -> ShownLosses:
        """The losses that were measured, or those that a published file says of itself; else nothing."""
        if self.losses is not None:
            return ShownLosses.model_validate(self.losses.model_dump())
        return self.found_by.published_losses or ShownLosses()

    def checksum(self) -> str:
        """Hash of the content. What a later version adds does not count while it has its default."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write the JSON file, with a checksum of its content, atomically and return its path."""
        content = {**self.model_dump(mode="json"), "checksum": self.checksum()}
        return write_text(Path(path), json.dumps(content, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a JSON file. Raises UserError that names what is wrong with it, or says that it is not what was saved
        (a file without a checksum is taken as it is)."""
        raw = read_json(Path(path), "circuit", LARGEST_FILE)
        if not isinstance(raw, dict):
            raise UserError(f"{path} is not a circuit: it holds no object")
        checksum = raw.pop("checksum", None)
        try:
            circuit = cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise UserError(f"{path} is not a circuit: {where}: {first['msg']}") from error
        if checksum is not None and checksum != circuit.checksum():
            raise UserError(f"{path} was changed after it was saved: its content does not have its checksum")
        return circuit


def _check_plain(value: object) -> None:
    """Raise ValueError for what JSON does not hold: other types, keys that are no text, numbers that are not finite."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            waiting += [*found, *found.values()]
            if not all(isinstance(key, str) for key in found):
                raise ValueError("found_by has a key that is no text")
        elif isinstance(found, list | tuple):
            waiting += found
        elif not isinstance(found, str | int | float | None) or (isinstance(found, float) and not math.isfinite(found)):
            raise ValueError(f"found_by holds {str(found)[:40]}, which is no plain value")
