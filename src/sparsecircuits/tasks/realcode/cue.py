"""Rules fitted on one half of the places of real code and scored on the other: a token's presence, a threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cue:
    """A rule: this token anywhere in the prompt says the answer. accuracy: balanced over both answers, on the half of
    the places that it was not fitted on."""

    token: str
    answer: int
    """0 or 1: what its presence says."""
    accuracy: float


def best_cue(sides: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]], names: Sequence[str]) -> Cue | None:
    """The best rule of one token, fitted on the first half of each answer's prompts and scored on the second.

    sides: prompts (token ids) of either answer, in the order of their files, so that the halves share one file at
    most; names: the texts of the vocabulary's tokens. None with fewer than two prompts of an answer.
    """
    if min(map(len, sides)) < 2:
        return None
    halves = [_halves(side) for side in sides]
    fit = [_shares(side, len(names)) for side, _ in halves]
    difference = fit[1] - fit[0]
    token = int(np.abs(difference).argmax())
    answer = int(difference[token] > 0)
    there = [np.mean([token in row for row in side]) for _, side in halves]
    return Cue(names[token], answer, float(there[answer] + 1 - there[1 - answer]) / 2)


def shifted_accuracy(margins: tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]) -> float | None:
    """Balanced accuracy of choosing the second answer above a threshold, which is fitted as `best_cue` is: what is left
    of a choice when its bias for one answer is taken away.

    margins: how far the second answer is preferred, at the places of either answer. None with fewer than two of an
    answer.
    """
    if min(map(len, margins)) < 2:
        return None
    (fit, test), (other_fit, other_test) = (_halves(np.asarray(side, dtype=np.float64)) for side in margins)
    values = np.unique([*fit, *other_fit])
    cuts = np.array([values[0] - 1, *(values[1:] + values[:-1]) / 2, values[-1] + 1])
    below, above = np.searchsorted(np.sort(fit), cuts) / len(fit), np.searchsorted(np.sort(other_fit), cuts)
    cut = cuts[(below + 1 - above / len(other_fit)).argmax()]
    return float((test < cut).mean() + (other_test >= cut).mean()) / 2


def _halves(items: Any) -> tuple[Any, Any]:
    return items[: len(items) // 2], items[len(items) // 2 :]


def _shares(prompts: Sequence[Sequence[int]], vocab_size: int) -> np.ndarray:
    """The share of the prompts that each token stands in [vocabulary]."""
    counts = np.zeros(vocab_size)
    for row in prompts:
        counts[np.unique(row)] += 1
    return counts / len(prompts)
