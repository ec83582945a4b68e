"""Comparisons and assignments: if_equals (which sign), var_if (how the line ends)."""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.distractors import Composed, from_table
from sparsecircuits.tasks.statements import COMPARED, EQUALS
from sparsecircuits.tasks.words import names, opener, short_names

AT_MARGIN = 0.4  # share of lines that stand in no block; their name is one token behind a space, two at the margin
# What opens the block that the line stands in.
TEMPLATES = {
    "train": (
        "def {b}({a}):\n",
        "for {c} in {b}:\n",
        "while {b}:\n",
        "if {c}:\n",
        "def {b}(self, {a}):\n",
        "if {c} is None:\n",
        "class {b}({c}):\n",
        "while {c} < {b}:\n",
    ),
    "validation": (
        "def {b}({a}, {c}):\n",
        "try:\n",
        "for {c} in {b}.{a}:\n",
        "if {c}.{b}:\n",
        "with {b}:\n",
        "def {b}():\n",
    ),
    "held_out": ("class {b}:\n", "with {b}() as {c}:\n", "if not {b}:\n", "for {c}, {b} in {a}:\n"),
}


def _sample(rng: random.Random, split: str) -> Pair:
    a, b, c = names(rng, split, 3)
    block, indent = rng.choice(TEMPLATES[split]), "    "
    if rng.random() < AT_MARGIN:
        block, indent, a = "", "", short_names(rng, split, 1)[0]
    value = rng.choice([str(rng.randint(0, 99)), "None", c])
    line = block.format(a=a, b=b, c=c) + indent
    closing = "\nexcept ValueError:\n    pass" if block == "try:\n" else ""
    return Pair(f"{line}if {a}", f"{line}{a}", f" {value}:\n{indent}    pass{closing}", f" {value}{closing}")


IF_EQUALS = Task(
    name="if_equals",
    description="compare after `if`, assign without it",
    answers=(" ==", " ="),
    sample=Composed(_sample, from_table(COMPARED)),
)

VALUES = {
    "train": ("True", "{n}", "{b}", "{b} * {n}", "{b} - {c}", "{n}.5"),
    "validation": ("False", "-{n}", "{b} or {c}", "{n} - {b}"),
    "held_out": ("None", "{b} + {n}", "{b}.{c}"),
}


def _line_end(rng: random.Random, split: str) -> Pair:
    a, b, c = names(rng, split, 3)
    before = opener(rng, split) + "    "
    if rng.random() < AT_MARGIN:
        before, a = "", short_names(rng, split, 1)[0]
    value = rng.choice(VALUES[split]).format(b=b, c=c, n=rng.randint(0, 99))
    return Pair(f"{before}if {a} == {value}", f"{before}{a} = {value}", "        pass")


VAR_IF = Task(
    name="var_if",
    description="open a block after `if x == True`, end the line after `x = True`",
    answers=(":\n", "\n"),
    sample=Composed(_line_end, from_table(EQUALS)),
)
