"""single_double_quote: close a string in a call with the quote that opened it."""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.distractors import Composed, from_table
from sparsecircuits.tasks.statements import QUOTED
from sparsecircuits.tasks.words import names, phrase

# The line up to the opening parenthesis, and what follows the closing one. What follows begins with a
# space, so that the closing token is `')` or `")` and not one that has swallowed a line end.
TEMPLATES = {
    "train": (
        ("print", " or {a}"),
        ("{a} = {b}", " + {c}"),
        ("{a} = {b}.get", " or {c}"),
        ("if {a}.startswith", " and {b}:\n    pass"),
        ("return_{a} = {b}.find", " - {n}"),
        ("{a}.append", " if {b} else None"),
    ),
    "validation": (
        ("assert {a}.endswith", " or {b}"),
        ("{a} = open_{b}", " is None"),
        ("{a} = {b}.index", " * {n}"),
        ("while {a}.count", " > {n}:\n    pass"),
    ),
    "held_out": (
        ("{a} = {b}.split", " + [{c}]"),
        ("{a} = {b}.read_{c}", " if {b} else {n}"),
        ("if {a}.has", " and not {b}:\n    pass"),
        ("{a} = len", " + {n}"),
        ("{a}.write", " == {n}"),
    ),
}
LED = 0.4  # share of strings that are not the first argument
# What stands in the call before the string.
LEADS = {"train": ("{c}, ", "{c}="), "validation": ("{n}, ", "{c}, {b}="), "held_out": ("{c}, {n}, ", "{n}, {c}=")}


def _sample(rng: random.Random, split: str) -> Pair:
    a, b, c = names(rng, split, 3)
    before, after = rng.choice(TEMPLATES[split])
    numbers = rng.randint(1, 9)
    line = before.format(a=a, b=b, c=c, n=numbers) + "("
    if rng.random() < LED:
        line += rng.choice(LEADS[split]).format(a=a, b=b, c=c, n=numbers)
    text, rest = phrase(rng, split, 1, rng.choice((4, 8, 10))), after.format(a=a, b=b, c=c, n=numbers)
    return Pair(f"{line}'{text}", f'{line}"{text}', rest, rest)


SINGLE_DOUBLE_QUOTE = Task(
    name="single_double_quote",
    description="close a string that was opened in a call with the quote that opened it",
    answers=("')", '")'),
    sample=Composed(_sample, from_table(QUOTED)),
)
