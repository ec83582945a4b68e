"""What each node of a circuit fires on, in words: computed, not invented."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.circuits.rules import Place, Rule
from sparsecircuits.models.names import split_node
from sparsecircuits.nodes.donors import Matched
from sparsecircuits.nodes.recording import recordings
from sparsecircuits.tasks import PairBatch, Task

SHARES = (0.03, 0.1, 0.25, 0.5, 0.75)
"""Thresholds that are tried, as shares of a node's observed range: the paper's three, and two for long tails."""
MOST_NODES = 40
MOST_TOKENS = 4


def activations(bound: Bound, batch: PairBatch, *, alone: bool) -> dict[str, np.ndarray]:
    """Kept nodes' activations [n, T] by name, NaN at padding."""
    places = {name: split_node(name) for name in bound.circuit.node_names}
    sites = {site for site, _ in places.values()}
    found: dict[str, list[np.ndarray]] = {name: [] for name in places}
    width = batch.tokens.shape[1]
    for chunk, seen in recordings(bound.model, batch, sites, bound.alone if alone and places else None):
        for name, (site, index) in places.items():
            x = np.where(chunk.real, seen[site][..., index].double().cpu().numpy(), np.nan)
            found[name].append(np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=np.nan))
    return {name: np.concatenate(parts) for name, parts in found.items()}


class Description(BaseModel):
    """What a node fires on, in the whole model, over the task's prompts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    words: str
    threshold: float | None
    above: bool
    """It fires above the threshold, or below it."""
    precision: float | None
    """Share of its firings on held-out prompts that the words name."""
    recall: float | None
    """Share of what the words name, on held-out prompts, where it fires."""
    top_tokens: tuple[str, ...]
    rule: Rule | None = None
    """None where there is none; descriptions of earlier versions lack it."""


@dataclass(frozen=True)
class _Tried:
    rule: Rule
    holds: np.ndarray
    """bool [n, T] on the prompts that rules are chosen on."""
    again: np.ndarray
    """The same on held-out prompts."""


def describe(
    bound: Bound,
    task: Task,
    *,
    pairs: int = 64,
    seed: int = 0,
    lock: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[Description]:
    """For each node, the rule among some that fits best when it fires.

    Rules name tokens (up to four, those with the most extreme activations), the place where the two prompts of a
    pair differ, what comes from there on, and the last token, each of either answer's prompts or of both. Rule,
    threshold and direction are chosen by F1 on training prompts; precision and
    recall are of held-out prompts. Both between 0 and 1. lock: entered for each time that the model runs.
    """
    learn, test = (task.encode(task.draw(split, pairs, seed)) for split in ("train", "held_out"))

    def seen(batch: PairBatch) -> dict[str, np.ndarray]:
        with lock():
            return activations(bound, batch, alone=False)

    here, there = seen(learn), seen(test)
    shared = _prompt_rules(learn, test, task.answers)
    return [
        _described(name, here[name], there[name], learn, test, shared, task)
        for name in bound.circuit.node_names[:MOST_NODES]
    ]


def _prompt_rules(learn: PairBatch, test: PairBatch, answers: tuple[str, str]) -> list[_Tried]:
    """Rules about places of prompts."""

    def parts(batch: PairBatch) -> dict[Place, np.ndarray]:
        place = np.arange(batch.tokens.shape[1])[None]
        start, last = Matched.of(batch).contrast[:, None], batch.last[:, None]
        return {
            "difference": (place == start) & (place <= last),
            "onwards": (place >= start) & (place <= last),
            "last": place == last,
        }

    here, there, rules = parts(learn), parts(test), []
    for place in here:
        rules.append(_Tried(Rule(place=place), here[place], there[place]))
        for side, answer in enumerate(answers):
            masks = (m[place] & (b.correct == side)[:, None] for m, b in ((here, learn), (there, test)))
            rules.append(_Tried(Rule(place=place, answer=answer), *masks))
    return rules


def _described(
    name: str,
    x: np.ndarray,
    again: np.ndarray,
    learn: PairBatch,
    test: PairBatch,
    shared: list[_Tried],
    task: Task,
) -> Description:
    real, real_again = np.isfinite(x), np.isfinite(again)
    low, high = float(np.nanmin(x)), float(np.nanmax(x))
    if high - low < 1e-9 * (1 + abs(high)):
        words = f"is constant ({high:.3g}) over the task's prompts"
        return Description(
            name=name, words=words, threshold=None, above=True, precision=None, recall=None, top_tokens=()
        )
    best, score = None, -1.0
    for above in (True, False):
        sign = 1 if above else -1
        top = _top_tokens(sign * x, learn)
        rules = [*_token_rules(top, learn, test, task), *shared]
        for share in SHARES:
            threshold = low + share * (high - low)
            fires = real & ((x >= threshold) if above else (x < threshold))
            if fires.sum() * 2 > real.sum():
                continue  # firing is the exception
            for tried in rules:
                value = f1(fires, tried.holds & real)
                if value > score + 1e-9:
                    best, score = (above, threshold, tried, top), value
    if best is None:
        words = "has no direction in which it fires on less than half of the tokens"
        return Description(
            name=name, words=words, threshold=None, above=True, precision=None, recall=None, top_tokens=()
        )
    above, threshold, tried, top = best
    fires = real_again & ((again >= threshold) if above else (again < threshold))
    named = tried.again & real_again
    precision, recall = _ratio(fires & named, fires), _ratio(fires & named, named)
    shown = ", ".join(
        f"{kind} {value:.2f}" for kind, value in (("precision", precision), ("recall", recall)) if value is not None
    )
    verb = f"is {'at or above' if above else 'below'} {threshold:.3g} on"
    return Description(
        name=name,
        words=f"{verb} {tried.rule.words} ({shown or 'never'} on held-out prompts)",
        threshold=threshold,
        above=above,
        precision=precision,
        recall=recall,
        top_tokens=tuple(task.require_tokenizer().token(token) for token in top),
        rule=tried.rule,
    )


def _top_tokens(x: np.ndarray, batch: PairBatch) -> list[int]:
    """Tokens by their mean activation, the largest first."""
    real = np.isfinite(x)
    ids, inverse = np.unique(batch.tokens[real], return_inverse=True)
    means = np.bincount(inverse, weights=x[real]) / np.bincount(inverse)
    return [int(ids[place]) for place in means.argsort(kind="stable")[::-1][:MOST_TOKENS]]


def _token_rules(top: list[int], learn: PairBatch, test: PairBatch, task: Task) -> Iterator[_Tried]:
    names = [task.require_tokenizer().token(token) for token in top]
    for count in range(1, len(top) + 1):
        yield _Tried(
            Rule(tokens=tuple(names[:count])),
            np.isin(learn.tokens, top[:count]),
            np.isin(test.tokens, top[:count]),
        )


def f1(fires: np.ndarray, named: np.ndarray) -> float:
    """Harmonic mean of precision and recall, between 0 and 1."""
    both = (fires & named).sum()
    return float(2 * both / max(1, fires.sum() + named.sum()))


def _ratio(part: np.ndarray, whole: np.ndarray) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None
