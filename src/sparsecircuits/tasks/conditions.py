"""Branches: else_elif, if_ternary."""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.words import context, names, opener

CONDITIONS = {
    "train": ("{c}", "{c} == {n}", "{c} > {n}", "{c}.{d}"),
    "validation": ("not {c}", "{c} < {n}", "{c} != {d}"),
    "held_out": ("{c} in {d}", "{c} is None", "{c} >= {n}", "{c} and {d}"),
}


def _condition(rng: random.Random, split: str, c: str, d: str) -> str:
    return rng.choice(CONDITIONS[split]).format(c=c, d=d, n=rng.randint(0, 99))


def _else_elif(rng: random.Random, split: str) -> Pair:
    a, b, c, d = names(rng, split, 4)
    before, indent = context(rng, split, 3), ""
    if rng.random() < 0.5:
        before, indent = before + opener(rng, split), "    "
    # Branches on one line, so that the colon is not the token that holds a line end.
    before += f"{indent}if {_condition(rng, split, c, d)}: {a} = {rng.randint(0, 9)}\n{indent}"
    if rng.random() < 0.3:
        before += f"elif {_condition(rng, split, b, d)}: {a} = {rng.randint(0, 9)}\n{indent}"
    return Pair(f"{before}else", f"{before}elif", f" {a} = {b}", f" {b}: {a} = {c}")


ELSE_ELIF = Task(
    name="else_elif",
    description="a colon after `else`, a condition after `elif`",
    answers=(":", " not"),
    sample=_else_elif,
    loss="class",
)


def _if_ternary(rng: random.Random, split: str) -> Pair:
    a, b, c, d = names(rng, split, 4)
    before = f"{context(rng, split)}{opener(rng, split)}    {a} = {b}"
    test = _condition(rng, split, c, d)
    return Pair(f"{before}\n    if {test}", f"{before} if {test}", f" {a} = {d}", f" {d}")


IF_TERNARY = Task(
    name="if_ternary",
    description="a colon after an if statement, ` else` inside a ternary",
    answers=(":", " else"),
    sample=_if_ternary,
)
