"""Loop headers: for_while, enumerate_range."""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.distractors import Composed, from_table
from sparsecircuits.tasks.statements import COUNTED, LOOPS
from sparsecircuits.tasks.words import names, opener, short_names

COUNTERS = {"train": "i k n index".split(), "validation": "j pos row".split(), "held_out": "x idx t number".split()}
LISTS = {
    "train": ("{b}", "{b}.{c}"),
    "validation": ("{b}[{n}]", "self.{b}"),
    "held_out": ("{b} + {c}", "{c}({b})"),
}


def _for_while(rng: random.Random, split: str) -> Pair:
    a, b, c = names(rng, split, 3)
    before, indent = (opener(rng, split) + "    ", "    ") if rng.random() < 0.6 else ("", "")
    return Pair(f"{before}for {a}", f"{before}while {a}", f" {b}:\n{indent}    {c} = {a}", f"{indent}    {c} = {b}")


FOR_WHILE = Task(
    name="for_while",
    description="after the loop variable of a `for`, or the condition of a `while`",
    answers=(" in", ":\n"),
    sample=Composed(_for_while, from_table(LOOPS)),
)


def _enumerate_range(rng: random.Random, split: str) -> Pair:
    (b, c), (item,) = names(rng, split, 2), short_names(rng, split, 1)
    counter = rng.choice(COUNTERS[split])
    group = rng.choice(LISTS[split]).format(b=b, c=c, n=rng.randint(0, 9))
    before, indent = (opener(rng, split), "    ") if rng.random() < 0.5 else ("", "")
    rest = f"({group}):\n{indent}    pass"
    return Pair(f"{before}{indent}for {counter}, {item} in", f"{before}{indent}for {counter} in", rest, rest)


ENUMERATE_RANGE = Task(
    name="enumerate_range",
    description="enumerate for two loop variables, range for one",
    answers=(" enumerate", " range"),
    sample=Composed(_enumerate_range, from_table(COUNTED)),
)
