"""Brackets: bracket_counting (close one level or two), bracket_brace (inside a dict or a list)."""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.distractors import Composed, from_table
from sparsecircuits.tasks.statements import ITEMS, LISTS
from sparsecircuits.tasks.words import names

TEMPLATES = {
    "train": ("{a} = ", "{a}.{b} = ", "{a}[{b}] = ", "{a} += ", "return_{a} = {b} + ", "{a}, {b} = ", "{a} = {b} is "),
    "validation": ("{a} = {b} or ", "{a}_{b} = ", "{a} = not {b} and ", "{a}.{b} += ", "{a} = {b} == "),
    "held_out": ("{a} = {b} if {c} else ", "self.{a} = ", "{a} = {b} = ", "{a} |= "),
}
OVER_LINES = 0.25  # share of lists whose first item stands on a line of its own


def _items(rng: random.Random, split: str, n: int | None = None) -> str:
    """Items of one kind: numbers, names, or short expressions; 2 to 10 if n is not given."""
    kind, n = rng.randrange(3), rng.randint(2, rng.choice((4, 6, 10))) if n is None else n
    if kind == 0:
        return ", ".join(str(rng.randint(0, 99)) for _ in range(n))
    chosen = [name for _ in range(-(-n // 6)) for name in names(rng, split, min(n, 6))][:n]
    if kind == 1:
        return ", ".join(chosen)
    return ", ".join(f"{name} + {rng.randint(1, 9)}" for name in chosen)


def list_of(rng: random.Random, split: str, n: int | None) -> Pair:
    """A pair whose list has n items (2 to 10 if None)."""
    a, b, c = names(rng, split, 3)
    line = rng.choice(TEMPLATES[split]).format(a=a, b=b, c=c)
    items, apart = _items(rng, split, n), "\n    " if rng.random() < OVER_LINES else ""
    return Pair(f"{line}[{apart}{items}", f"{line}[{apart}[{items}")


def _sample(rng: random.Random, split: str) -> Pair:
    return list_of(rng, split, None)


BRACKET_COUNTING = Task(
    name="bracket_counting",
    description="close a list, or a list in a list, at the end of its line",
    answers=("]\n", "]]\n"),
    sample=Composed(_sample, from_table(LISTS)),
)

# What stands before the opening bracket.
LITERALS = {
    "train": ("{a} = ", "{a}.{b} = ", "{a} = {b} or ", "{a} = [{b}, "),
    "validation": ("{a} += ", "{a}[{n}] = ", "{a} = ({n}, "),
    "held_out": ("{a} = {b} and ", "self.{a} = ", "{a} = {b} = ", "{a} = {b}({c}, "),
}
KEYS = {
    "train": ("{c}", "{n}", "{c}.{b}"),
    "validation": ("{c} + {n}", "{b}.{c}.{a}"),
    "held_out": ("-{n}", "{c} - {n}", "{b} * {c}"),
}
CLOSERS = {"[": "]", "(": ")"}


def _first_item(rng: random.Random, split: str) -> Pair:
    a, b, c = names(rng, split, 3)
    before = rng.choice(LITERALS[split]).format(a=a, b=b, c=c, n=rng.randint(0, 9))
    key = rng.choice(KEYS[split]).format(a=a, b=b, c=c, n=rng.randint(0, 99))
    still_open = CLOSERS[next(ch for ch in before if ch in CLOSERS)] if before.endswith(", ") else ""
    value = f" {rng.randint(0, 99)}"
    return Pair(f"{before}{{{key}", f"{before}[{key}", f"{value}}}{still_open}", f"{value}]{still_open}")


BRACKET_BRACE = Task(
    name="bracket_brace",
    description="go on after the first item of a dict (a key) or of a list",
    answers=(":", ","),
    sample=Composed(_first_item, from_table(ITEMS)),
)
