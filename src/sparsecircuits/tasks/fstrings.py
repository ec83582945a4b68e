"""fstring_brace: what follows a word in a printed string, with or without an f before it."""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.distractors import Composed, from_table
from sparsecircuits.tasks.statements import PRINTED
from sparsecircuits.tasks.words import names, phrase

TEMPLATES = {
    "train": ("print(", "if {a}:\n    print(", "for {a} in {b}:\n    print("),
    "validation": ("print({a}, ", "while {a}:\n    print("),
    "held_out": ("def {a}({b}):\n    print(", "if not {a}:\n    print({b}, "),
}


def _sample(rng: random.Random, split: str) -> Pair:
    a, b, c = names(rng, split, 3)
    before = rng.choice(TEMPLATES[split]).format(a=a, b=b)
    quote, text = rng.choice("'\""), phrase(rng, split, 1, rng.choice((2, 5, 10)))
    return Pair(f"{before}f{quote}{text}", f"{before}{quote}{text}", f"{c}}}{quote})", f" {c}{quote})")


FSTRING_BRACE = Task(
    name="fstring_brace",
    description="a value in braces in an f-string, plain text in a plain one",
    answers=(" {", " the"),
    sample=Composed(_sample, from_table(PRINTED)),
)
