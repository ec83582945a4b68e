"""var_swap: complete `x, y = y, x`."""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.distractors import GAP, Composed, from_table
from sparsecircuits.tasks.statements import SWAPPED
from sparsecircuits.tasks.words import names

# What opens the block of the swap, if any.
TEMPLATES = {
    "train": ("", "if {c} > {b}:\n    ", "for {c} in {d}:\n    "),
    "validation": ("if {b} < {c}:\n    ", "while {c}:\n    "),
    "held_out": ("def {c}({b}):\n    ", "if {c}:\n    ", "for {c}, {d} in {b}:\n    "),
}


def _sample(rng: random.Random, split: str) -> Pair:
    b, c, d = names(rng, split, 3)
    defined = [f"{name} = {rng.randint(0, 99)}\n" for name in ("x", "y", b)]
    rng.shuffle(defined)
    lead = rng.choice(TEMPLATES[split]).format(b=b, c=c, d=d)
    before = "".join(defined) + GAP + lead
    return Pair(f"{before}x, {b} = {b},", f"{before}y, {b} = {b},", "\n", "\n")


VAR_SWAP = Task(
    name="var_swap",
    description="complete a swap with the variable that it began with",
    answers=(" x", " y"),
    sample=Composed(_sample, from_table(SWAPPED)),
)
