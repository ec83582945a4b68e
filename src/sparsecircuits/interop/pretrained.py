"""Models that ship with the package, by name: `pretrained:NAME`. `pretrained/manifest.json` says which there are.

Imports no torch, so that the command line can resolve a name at once.
"""

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparsecircuits.errors import UserError, no_such
from sparsecircuits.files import read_json, sha256

PREFIX = "pretrained:"
MANIFEST_NAME = "manifest.json"
_PLAIN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
_STRICT = ConfigDict(extra="forbid", frozen=True)


class ShippedCircuit(BaseModel):
    """A circuit of a shipped model. Losses on held-out prompts, calibrated."""

    model_config = _STRICT
    nodes: int
    edges: int
    loss: float
    model_loss: float


class Shipped(BaseModel):
    """A model that ships: what is in its folder, and what it should score."""

    model_config = _STRICT
    name: str = Field(pattern=_PLAIN)
    about: str
    command: str
    """What trained it."""
    tokens: int
    """Read in training."""
    hours: float
    machine: str
    parameters: int
    nonzeros: int
    validation_loss: float
    """Nats a token."""
    content_hash: str
    files: dict[str, str]
    """SHA-256 by path in its folder."""
    tasks: dict[str, tuple[float, float]]
    """Loss on held-out prompts by task: raw, calibrated."""
    circuits: dict[str, ShippedCircuit]


class Manifest(BaseModel):
    """All that ship."""

    model_config = _STRICT
    schema_version: int = Field(default=1, ge=1, le=1)
    models: tuple[Shipped, ...] = ()

    def find(self, name: str) -> Shipped:
        """One by name. Raises UserError that lists them."""
        for model in self.models:
            if model.name == name:
                return model
        if not self.models:
            raise UserError(f"no pretrained model {name!r}: none came with this installation")
        raise UserError(no_such("no pretrained model", name, [model.name for model in self.models]))


def root() -> Path:
    """The folder that they lie in: inside an installed package, or beside the sources."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "pretrained"
    return inside if inside.is_dir() else package.parents[1] / "pretrained"


def manifest() -> Manifest:
    """What ships. Raises UserError for a damaged manifest; without one there are no models."""
    path = root() / MANIFEST_NAME
    if not path.exists():
        return Manifest()
    raw: Any = read_json(path, "manifest of the pretrained models")
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(f"{path} is damaged: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


def is_pretrained(text: object) -> bool:
    """Whether a text is `pretrained:NAME`."""
    return str(text).startswith(PREFIX)


def folder_of(text: str) -> Path:
    """The folder of `pretrained:NAME`. Raises UserError for a name that does not ship, and for a file that is not
    the one that shipped."""
    name = text.removeprefix(PREFIX)
    if not re.fullmatch(_PLAIN, name):
        raise UserError(f"{text!r} names no pretrained model: pretrained:NAME, and `sparsecircuits models` lists them")
    shipped = manifest().find(name)
    folder = root() / name
    for file, expected in shipped.files.items():
        if not (folder / file).is_file():
            raise UserError(f"{folder / file} is missing: install the package anew")
        if sha256(folder / file) != expected:
            raise UserError(f"{folder / file} is not the file that shipped (its checksum differs)")
    return folder


def ships(path: Path) -> bool:
    """Whether a path lies among the models that ship: nothing is written there."""
    return path.resolve().is_relative_to(root())
