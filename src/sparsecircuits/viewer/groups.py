"""Names and supernodes that a person gave: a JSON file beside the circuit's."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparsecircuits.circuits.schema import CircuitData
from sparsecircuits.errors import UserError
from sparsecircuits.files import read_json, write_text

MOST_NODES = 20_000
LARGEST_FILE = 20_000_000  # bytes


class Group(BaseModel):
    """Nodes that belong together, under one name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=80)
    nodes: tuple[str, ...] = Field(min_length=1, max_length=MOST_NODES)


class Groups(BaseModel):
    """The sidecar of a circuit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(default=1, ge=1, le=1)
    circuit: str | None = Field(default=None, max_length=200)
    """Checksum of the circuit whose nodes these are; files of earlier versions do not say it."""
    groups: tuple[Group, ...] = Field(default=(), max_length=500)
    names: dict[str, str] = Field(default_factory=dict, max_length=MOST_NODES)
    """Names of single nodes."""

    def check_circuit(self, circuit: CircuitData, path: Path) -> None:
        """Raise UserError when these are names and groups of another circuit than the one they lie beside."""
        if self.circuit is not None and self.circuit != circuit.checksum():
            raise UserError(f"the names and groups in {path.name} were given to another circuit")

    def save(self, path: Path) -> Path:
        """Write the JSON file atomically."""
        return write_text(path, json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Groups":
        """Read a JSON file. Raises UserError for a missing or a damaged one."""
        raw = read_json(path, "groups file", LARGEST_FILE)
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise UserError(f"{path} is no groups file: {error.errors()[0]['msg']}") from error
