"""Bootstrap intervals over pairs of prompts."""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

DRAWS = 1000
_COVERED = (2.5, 97.5)


class Estimate(BaseModel):
    """A value, and the 95% percentile-bootstrap interval of it over pairs of prompts (Efron 1979).

    The two prompts of a pair are drawn together, since they differ in few tokens. None: not defined here, as the
    interval is of a single pair.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "not defined"
        return f"{self.value:.4f}" + ("" if self.low is None else f" [{self.low:.4f}, {self.high:.4f}]")


def estimate(
    *per_prompt: torch.Tensor, of: Callable[..., np.ndarray] = lambda x: x, seed: int = 0, draws: int = DRAWS
) -> Estimate:
    """A function of means over prompts, with its interval.

    per_prompt: [2N] each, rows 2i and 2i+1 are a pair. of: takes as many arrays of means (of any shape) and works
    element by element; by default the mean itself.
    """
    pairs = [x.detach().cpu().double().numpy().reshape(-1, 2).mean(axis=1) for x in per_prompt]
    weights = _weights(len(pairs[0]), seed, draws)
    with np.errstate(all="ignore"):
        value = float(of(*(np.asarray(x.mean()) for x in pairs)))
        samples = np.asarray(of(*(weights @ x for x in pairs)), dtype=float)
    samples = samples[np.isfinite(samples)]
    if len(pairs[0]) < 2 or not math.isfinite(value) or not len(samples):
        return Estimate(value=finite(value))
    low, high = np.percentile(samples, _COVERED)
    return Estimate(value=value, low=float(low), high=float(high))


@functools.lru_cache(maxsize=8)
def _weights(n: int, seed: int, draws: int) -> np.ndarray:
    """How often each of n pairs is in each draw with replacement, as shares [draws, n]."""
    drawn = np.random.default_rng(seed).integers(0, n, (draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n) / n


def finite(value: float) -> float | None:
    """The value, or None where it is not a finite number (JSON has no other)."""
    return float(value) if math.isfinite(value) else None
