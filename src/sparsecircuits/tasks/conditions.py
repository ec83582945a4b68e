"""Branches: else_elif, if_ternary."""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.distractors import Composed, from_table
from sparsecircuits.tasks.statements import BRANCHES, CHOICES
from sparsecircuits.tasks.words import names, opener

CONDITIONS = {
    "train": ("{c}", "{c} == {n}", "{c} > {n}", "{c}.{d}"),
    "validation": ("not {c}", "{c} < {n}", "{c} != {d}"),
    "held_out": ("{c} in {d}", "{c} is None", "{c} >= {n}", "{c} and {d}"),
}


def _condition(rng: random.Random, split: str, c: str, d: str) -> str:
    return rng.choice(CONDITIONS[split]).format(c=c, d=d, n=rng.randint(0, 99))


def _else_elif(rng: random.Random, split: str) -> Pair:
    a, b, c, d = names(rng, split, 4)
    before, indent = (opener(rng, split), "    ") if rng.random() < 0.5 else ("", "")
    body = f"{indent}    {a} = {rng.randint(0, 9)}\n{indent}"
    before += f"{indent}if {_condition(rng, split, c, d)}:\n{body}"
    if rng.random() < 0.3:
        before += f"elif {_condition(rng, split, b, d)}:\n{body}"
    return Pair(f"{before}else", f"{before}elif", f"{indent}    {a} = {b}", f" {b}:\n{indent}    {a} = {c}")


ELSE_ELIF = Task(
    name="else_elif",
    description="a colon after `else`, a condition after `elif`",
    answers=(":\n", " not"),
    sample=Composed(_else_elif, from_table(BRANCHES)),
    loss="class",
)


def _if_ternary(rng: random.Random, split: str) -> Pair:
    a, b, c, d = names(rng, split, 4)
    block, indent = (opener(rng, split), "    ") if rng.random() < 0.6 else ("", "")
    before, test = f"{block}{indent}{a} = {b}", _condition(rng, split, c, d)
    return Pair(f"{before}\n{indent}if {test}", f"{before} if {test}", f"{indent}    {a} = {d}", f" {d}")


IF_TERNARY = Task(
    name="if_ternary",
    description="a colon after an if statement, ` else` inside a ternary",
    answers=(":\n", " else"),
    sample=Composed(_if_ternary, from_table(CHOICES)),
)
