"""What can be done to a node or an edge while a model runs. Free of torch: `run_with` does it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["mean", "zero", "resample", "scale", "patch"]
Scope = Literal["model", "circuit"]
LARGEST_FACTOR = 1000.0


class Intervention(BaseModel):
    """One change of a forward pass.

    mean, zero: the activation becomes the circuit's frozen value, or 0. scale: it is multiplied by `factor`.
    resample: its value on another prompt drawn at random. patch: its value on the paired prompt. Values of
    other prompts are taken at the same distance from the last token.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Kind
    target: str = Field(max_length=200)
    """A node; or with `source` the upper end of an edge."""
    source: str | None = Field(default=None, max_length=200)
    factor: float = Field(default=0.0, ge=-LARGEST_FACTOR, le=LARGEST_FACTOR)
    before_last: int | None = Field(default=None, ge=0)
    """At one token alone, so many before the last one of each prompt: 0 is the last. None: at every token."""

    @property
    def changed(self) -> str:
        """The node whose activation is replaced: for an edge its source, as its target sees it."""
        return self.source or self.target
