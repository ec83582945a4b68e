"""if_equals: a comparison after `if`, an assignment without it."""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.words import context, names

# What opens the block that the line stands in.
TEMPLATES = {
    "train": ("def {b}({a}):\n", "for {c} in {b}:\n", "while {b}:\n", "if {c}:\n"),
    "validation": ("def {b}({a}, {c}):\n", "try:\n", "for {c} in {b}.{a}:\n"),
    "held_out": ("class {b}:\n", "with {b}() as {c}:\n", "if not {b}:\n", "for {c}, {b} in {a}:\n"),
}


def _sample(rng: random.Random, split: str) -> Pair:
    a, b, c = names(rng, split, 3)
    before = context(rng, split)
    block = rng.choice(TEMPLATES[split])
    value = rng.choice([str(rng.randint(0, 99)), "None", c])
    line = before + block.format(a=a, b=b, c=c)
    closing = "\nexcept ValueError:\n    pass" if block == "try:\n" else ""
    return Pair(f"{line}    if {a}", f"{line}    {a}", f" {value}:\n        pass{closing}", f" {value}{closing}")


IF_EQUALS = Task(
    name="if_equals",
    description="compare after `if`, assign without it",
    answers=(" ==", " ="),
    sample=_sample,
)
