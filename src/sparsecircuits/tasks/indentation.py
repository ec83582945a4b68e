"""How far the next line is indented: indent_for, while_return_true.

The last space of an indentation belongs to the token of the next word, so that 8 columns are a token of 7.
"""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.distractors import Composed, from_table
from sparsecircuits.tasks.statements import ENDINGS
from sparsecircuits.tasks.statements import GROUPS as CONTAINED
from sparsecircuits.tasks.words import VERBS, names, short_names

FUNCTIONS = {
    "train": ("def {f}({a}):\n", "def {f}({a}, {b}):\n", "def {f}(self, {a}):\n", "def {f}({a}, {b}=None):\n"),
    "validation": ("def {f}():\n", "def {f}({a}=None):\n", "def {f}(self):\n", "def {f}({a}, *{b}):\n"),
    "held_out": ("def {f}({a}, {b}={n}):\n", "async def {f}({a}):\n"),
}
GROUPS = {
    "train": ("{b}", "{b}.{c}", "{b}[{c}]", "{b}({c})", "{b}, {c}"),
    "validation": ("self.{b}", "{b} or {c}", "{b}.{c}()", "({b}, {c})"),
    "held_out": ("{b} + {c}", "{b}.{c}.{a}", "not_{b}"),
}
# An ordinary line with `in`, in the place of the `for`.
ORDINARY = {
    "train": ("assert", "{c} =", "return", "{c} = not", "self.{c} ="),
    "validation": ("yield", "{c} +=", "return not", "{c} |="),
    "held_out": ("assert not", "{c} -="),
}
COMMENTED = 0.25  # share of ordinary lines that are the header itself, commented out: they end as it does
BRANCHES = {
    "train": ("if {a}:\n", "if {a} == {n}:\n", "for {a} in {b}:\n", "if {a} is {b}:\n", "while {a} < {n}:\n"),
    "validation": ("if not {a}:\n", "while {a}:\n", "for {a} in {b}.{c}:\n", "if {a} and {b}:\n"),
    "held_out": ("if {a} in {b}:\n", "for {a}, {b} in {c}:\n", "with {a} as {b}:\n"),
}


def _function(rng: random.Random, split: str) -> str:
    a, b = names(rng, split, 2)
    name = f"{rng.choice(VERBS[split])}_{rng.choice(names(rng, split, 1))}"
    return rng.choice(FUNCTIONS[split]).format(f=name, a=a, b=b, n=rng.randint(0, 9))


def _more(rng: random.Random, split: str, indent: str) -> str:
    """0 to 2 lines of the function's body."""
    lines = []
    for _ in range(rng.randint(0, 2)):
        a, b = names(rng, split, 2)
        value = rng.choice((b, str(rng.randint(0, 99))))
        lines.append(f"{indent}{rng.choice((f'{a} = {value}', f'# for {a} in {b}:', f'# {a}', f'# {a} {b}:'))}\n")
    return "".join(lines)


def _indent_for(rng: random.Random, split: str) -> Pair:
    a, b, c = names(rng, split, 3)
    before = _function(rng, split) + _more(rng, split, "    ")
    rest = f" {a} in {rng.choice(GROUPS[split]).format(a=a, b=b, c=c)}"
    if rng.random() < COMMENTED:
        return Pair(f"{before}    for{rest}:\n", f"{before}    # for{rest}:\n", " pass", " pass")
    ordinary = rng.choice(ORDINARY[split]).format(c=short_names(rng, split, 1)[0])
    return Pair(f"{before}    for{rest}:\n", f"{before}    {ordinary}{rest}\n", " pass", " pass")


INDENT_FOR = Task(
    name="indent_for",
    description="indent deeper after the header of a for loop, as before after an ordinary line",
    answers=(" " * 7, " " * 3),
    sample=Composed(_indent_for, from_table(CONTAINED)),
)


def _while_return_true(rng: random.Random, split: str) -> Pair:
    a, b, c = names(rng, split, 3)
    branch = rng.choice(BRANCHES[split]).format(a=a, b=b, c=c, n=rng.randint(0, 9))
    before = f"{_function(rng, split)}{_more(rng, split, '    ')}    {branch}{_more(rng, split, '        ')}        "
    return Pair(f"{before}while True:\n", f"{before}return True\n", " pass", " pass")


WHILE_RETURN_TRUE = Task(
    name="while_return_true",
    description="indent deeper after `while True:`, less after `return True`",
    answers=(" " * 11, " " * 3),
    sample=Composed(_while_return_true, from_table(ENDINGS)),
)
