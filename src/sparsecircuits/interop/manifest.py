"""The manifest of the models that ship with the package: what is in each one's folder, and what it should score."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparsecircuits.errors import UserError, no_such
from sparsecircuits.files import read_json

PLAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
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
    name: str = Field(pattern=PLAIN_NAME)
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

    @classmethod
    def load(cls, path: Path) -> "Manifest":
        """Read one. Raises UserError for a damaged file."""
        try:
            return cls.model_validate(read_json(path, "manifest of the pretrained models"))
        except ValidationError as error:
            fault = error.errors()[0]
            raise UserError(f"{path} is damaged: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
