"""Which kind of thing a variable is: set_or_string and set_or_string_fixedvarname."""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.distractors import GAP, Composed, from_table
from sparsecircuits.tasks.statements import ACCUMULATORS
from sparsecircuits.tasks.words import names, short_names

# What leads to the line that uses the variable; it ends with the indentation of that line.
TEMPLATES = {
    "train": (
        "for {a} in {b}:\n    ",
        "if {a} == {b}:\n    ",
        "while {a}:\n    ",
        "if {a} in {b}:\n    ",
        "for {a} in {b}({c}):\n    ",
    ),
    "validation": ("for {a} in {b}.{c}:\n    ", "if {a}:\n    ", "def {a}({b}):\n    ", "while {a} < {b}:\n    "),
    "held_out": ("for {a}, {b} in {c}:\n    ", "if not {a}:\n    ", "with {a} as {b}:\n    "),
}
OTHER_VALUES = {"train": ("[]", "0"), "validation": ("None", "1"), "held_out": ("()", "False")}


def _use(rng: random.Random, split: str) -> tuple[str, str, str]:
    """What leads to the use of the variable, and what follows `.add` and ` +=` there."""
    a, b, c = names(rng, split, 3)
    return rng.choice(TEMPLATES[split]).format(a=a, b=b, c=c), f"({a})", f" {a}"


def _several(rng: random.Random, split: str) -> Pair:
    a_set, a_string, other = short_names(rng, split, 3)
    empty = rng.choice(("''", '""'))
    lines = [f"{a_set} = set()\n", f"{a_string} = {empty}\n"]
    if rng.random() < 0.5:
        lines.append(f"{other} = {rng.choice(OTHER_VALUES[split])}\n")
    rng.shuffle(lines)
    lead, added, joined = _use(rng, split)
    before = "".join(lines) + GAP + lead
    return Pair(before + a_set, before + a_string, added, joined)


def _fixed(rng: random.Random, split: str) -> Pair:
    empty = rng.choice(("''", '""'))
    lead, added, joined = _use(rng, split)
    after = f"{GAP}{lead}current"
    return Pair(f"current = set()\n{after}", f"current = {empty}\n{after}", added, joined)


SET_OR_STRING = Task(
    name="set_or_string",
    description="add to the variable that is a set, append to the one that is a string",
    answers=(".add", " +="),
    sample=Composed(_several, from_table(ACCUMULATORS)),
)

SET_OR_STRING_FIXEDVARNAME = Task(
    name="set_or_string_fixedvarname",
    description="add to `current` if it is a set, append to it if it is a string",
    answers=(".add", " +="),
    sample=Composed(_fixed, from_table(ACCUMULATORS)),
)
