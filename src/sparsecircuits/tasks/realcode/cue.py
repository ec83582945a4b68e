"""The cue's shortcut: how far the presence of one token gets on places of real code."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    fit = [_shares(side[: len(side) // 2], len(names)) for side in sides]
    difference = fit[1] - fit[0]
    token = int(np.abs(difference).argmax())
    answer = int(difference[token] > 0)
    there = [np.mean([token in row for row in side[len(side) // 2 :]]) for side in sides]
    return Cue(names[token], answer, float(there[answer] + 1 - there[1 - answer]) / 2)


def _shares(prompts: Sequence[Sequence[int]], vocab_size: int) -> np.ndarray:
    """The share of the prompts that each token stands in [vocabulary]."""
    counts = np.zeros(vocab_size)
    for row in prompts:
        counts[np.unique(row)] += 1
    return counts / len(prompts)
