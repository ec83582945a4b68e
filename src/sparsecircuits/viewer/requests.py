"""What the page may ask for, and how much of it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sparsecircuits.circuits.intervention import Intervention, Scope

MOST_CHARACTERS, MOST_INTERVENTIONS, MOST_WATCHED = 8_000, 300, 40


class RunRequest(BaseModel):
    """What to run: a shown pair, or a prompt of one's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pair: int = Field(default=0, ge=0, le=1000)
    prompt: str | None = Field(default=None, max_length=MOST_CHARACTERS)
    patch_prompt: str | None = Field(default=None, max_length=MOST_CHARACTERS)
    """What "patch" takes values from when `prompt` is given."""
    scope: Scope = "model"
    size: int | None = Field(default=None, ge=0)
    """Keep only so many of the most important nodes (scope "circuit")."""
    interventions: tuple[Intervention, ...] = Field(default=(), max_length=MOST_INTERVENTIONS)
    watch: tuple[str, ...] = Field(default=(), max_length=MOST_WATCHED)
    """Nodes outside the circuit whose activations are wanted too."""
    heads: tuple[tuple[int, int], ...] = Field(default=(), max_length=8)
    """(layer, head) whose patterns are wanted."""
    seed: int = Field(default=0, ge=0, le=2**31)


class SteerRequest(BaseModel):
    """What to steer a dense model from, where to, and on which prompts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: tuple[str, ...] = Field(default=(), max_length=MOST_INTERVENTIONS)
    """Reads of the residual stream; none: all that the circuit has."""
    toward: Literal["left", "right"] = "right"
    """The side whose answer is to be given: prompts of the other side are steered."""
    over: Literal["prompt", "task"] = "prompt"
    """The shown pair, or the prompt of one's own; or held-out prompts of the task."""
    pair: int = Field(default=0, ge=0, le=1000)
    prompt: str | None = Field(default=None, max_length=MOST_CHARACTERS)
    patch_prompt: str | None = Field(default=None, max_length=MOST_CHARACTERS)
    """The counterpart of a prompt of one's own."""
