"""What a claim's measurement is as data: one JSON file each, with a versioned schema. Free of torch."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparsecircuits.errors import UserError
from sparsecircuits.files import read_json, write_text

Value = str | int | float | bool | None
Row = dict[str, Value]
"""One line of a claim's table. None: not defined here, as the size of a circuit that no ranking finds."""
Rows = Sequence[Row]

Word = Literal["reproduced", "partly", "not reproduced", "cannot be said at this scale"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Verdict(_Strict):
    """Whether what was measured agrees with the paper, and the figures that say so."""

    word: Word
    reason: str


Judge = Callable[[Rows], Verdict]


class ModelUsed(_Strict):
    """A model that was measured: how it was named, and the hash of its config and weights."""

    name: str
    content_hash: str


class Result(_Strict):
    """A measurement. The verdict is not in it: it follows from `rows` by the claim's rule."""

    schema_version: Annotated[int, Field(ge=1, le=1)] = 1
    claim: str
    version: int
    """Of the claim's function: what an earlier one measured is measured again."""
    models: tuple[ModelUsed, ...]
    """Those that were measured as they are; claims that train say their models in `rows`."""
    seed: int
    seeds: int
    """Of trainings, counted from `seed`."""
    scale: float
    program: str
    """Version of this package."""
    commit: str | None
    """Of the sources, with + where they differ from it; None for an installed package."""
    machine: str
    seconds: float
    rows: tuple[Row, ...]

    def save(self, path: Path) -> None:
        """Write the JSON file, atomically."""
        write_text(path, json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Read one. Raises UserError for a file that is missing, damaged, or of a later version."""
        raw = read_json(path, "result of a claim")
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise UserError(f"{path} is no result of a claim: {where}: {fault['msg']}") from error
