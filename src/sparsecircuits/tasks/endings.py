"""while_true_colon: how the line ends after `while True` and `return True` (Gao et al. 2025, section 3.3).

Beside the paper's twenty, for bridges: their demonstration is about this pair of answers, while_return_true about the
indentation after it. The colon of a line that opens a block is one token with the line end, as in var_if.
"""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.distractors import Composed, from_table
from sparsecircuits.tasks.statements import ENDINGS
from sparsecircuits.tasks.words import VERBS, names

HEADS = {
    "train": ("def {f}({a}):\n", "def {f}(self, {a}):\n", "def {f}({a}, {b}=None):\n"),
    "validation": ("def {f}(self):\n", "async def {f}({a}):\n", "def {f}():\n"),
    "held_out": ("def {f}({a}, {b}):\n", "def {f}(cls, {a}):\n", "def {f}({a}={n}):\n"),
}
# Blocks of the function before the line: with a `while`, with a `return`, with both, with neither.
BLOCKS = {
    "train": (
        "    while True:\n        {a}({b})\n",
        "    if {a} == {b}:\n        return True\n",
        "    while {a}:\n        if {b}:\n            return {a}\n",
        "    {a} = {n}\n",
        "    while {a} < {n}:\n        {a} = {b}\n",
        "    if {a}:\n        return {b}\n",
    ),
    "validation": (
        "    while not {a}:\n        {a} = {b}\n",
        "    if {a} > {n}:\n        return True\n",
        "    while True:\n        if {a}:\n            return True\n",
        "    {a} += {n}\n",
    ),
    "held_out": (
        "    while True:\n        {a} -= {b}\n",
        "    if not {a}:\n        return True\n",
        "    while {a} > {b}:\n        if {a}.{b}:\n            return {n}\n",
        "    {a} = {a} * {n}\n",
    ),
}
BRANCHES = {
    "train": ("if {a}:\n", "for {a} in {b}:\n", "if {a} is {b}:\n"),
    "validation": ("if {a} or {b}:\n", "for {a} in {b}.{a}:\n"),
    "held_out": ("with {a}:\n", "if {a} in {b}:\n"),
}


def _fill(rng: random.Random, split: str, template: str) -> str:
    a, b = names(rng, split, 2)
    return template.format(f=f"{rng.choice(VERBS[split])}_{b}", a=a, b=b, n=rng.randint(0, 99))


def _sample(rng: random.Random, split: str) -> Pair:
    blocks = [_fill(rng, split, rng.choice(BLOCKS[split])) for _ in range(rng.randint(0, 3))]
    before = _fill(rng, split, rng.choice(HEADS[split])) + "".join(blocks)
    indent = "    "
    if rng.random() < 0.5:
        before, indent = before + indent + _fill(rng, split, rng.choice(BRANCHES[split])), 2 * indent
    return Pair(f"{before}{indent}while True", f"{before}{indent}return True", f"{indent}    pass")


WHILE_TRUE_COLON = Task(
    name="while_true_colon",
    description="open a block after `while True`, end the line after `return True`",
    answers=(":\n", "\n"),
    sample=Composed(_sample, from_table(ENDINGS)),
)
