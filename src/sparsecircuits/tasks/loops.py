"""Loop headers: for_while, enumerate_range."""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.words import context, names, opener, short_names

# One-line statements before the loop show that this one's body stands on its line too, so that the colon is
# not the token that holds a line end.
ONE_LINERS = {
    "train": ("if {a}: {b} = {n}\n", "if {a} == {n}: {b} = {c}\n"),
    "validation": ("if not {a}: {b} += {n}\n", "if {a} < {n}: {b} -= {n}\n"),
    "held_out": ("if {a} > {n}: {b} = {a}\n", "if {a} is None: {b} = {n}\n"),
}
COUNTERS = {"train": "i k n index".split(), "validation": "j pos row".split(), "held_out": "x idx t number".split()}
LISTS = {
    "train": ("{b}", "{b}.{c}"),
    "validation": ("{b}[{n}]", "self.{b}"),
    "held_out": ("{b} + {c}", "{c}({b})"),
}


def _for_while(rng: random.Random, split: str) -> Pair:
    a, b, c = names(rng, split, 3)
    indent, block = "    ", opener(rng, split)
    style = rng.choice(ONE_LINERS[split]).format(a=b, b=c, c=a, n=rng.randint(0, 9))
    before = context(rng, split, 2) + block + indent + style + indent
    return Pair(f"{before}for {a}", f"{before}while {a}", f" {b}: {c} = {a}", f" {c} = {b}")


FOR_WHILE = Task(
    name="for_while",
    description="after the loop variable of a `for`, or the condition of a `while`",
    answers=(" in", ":"),
    sample=_for_while,
)


def _enumerate_range(rng: random.Random, split: str) -> Pair:
    (b, c), (item,) = names(rng, split, 2), short_names(rng, split, 1)
    counter = rng.choice(COUNTERS[split])
    group = rng.choice(LISTS[split]).format(b=b, c=c, n=rng.randint(0, 9))
    before, indent = context(rng, split), ""
    if rng.random() < 0.5:
        before, indent = before + opener(rng, split), "    "
    rest = f"({group}):\n{indent}    pass"
    return Pair(f"{before}{indent}for {counter}, {item} in", f"{before}{indent}for {counter} in", rest, rest)


ENUMERATE_RANGE = Task(
    name="enumerate_range",
    description="enumerate for two loop variables, range for one",
    answers=(" enumerate", " range"),
    sample=_enumerate_range,
)
