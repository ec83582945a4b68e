"""`with` and files: with_as, with_open."""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.distractors import Composed, fill, from_table
from sparsecircuits.tasks.statements import ENTERED, WAYS
from sparsecircuits.tasks.words import names, opener, short_names

# What is entered or assigned. It ends with a name: after a bracket the line end would be part of its token.
MANAGERS = {
    "train": ("{a}", "self.{a}", "{a}.{b}"),
    "validation": ("open({a}) if {a} else {b}", "self.{a}.{b}"),
    "held_out": ("{a} or {b}", "{a}({b}).{c}", "{a}.{b}.{c}"),
}
# {way}: a word that tells reading from writing.
OPENINGS = {
    "train": (
        ("def {way}_{a}({b}):\n    with open({b}, ", (("read", "write"), ("load", "save"))),
        ("with open({way}_path, ", (("input", "output"),)),
    ),
    "validation": (
        ("# {way} the {a}\nwith open({b}, ", (("read", "write"), ("load", "save"))),
        ("with open({way}_file, ", (("source", "target"),)),
    ),
    "held_out": (
        ("def {way}_{a}(self):\n    with open(self.{b}, ", (("parse", "export"), ("get", "store"))),
        ("with open({way}_path, ", (("in", "out"),)),
    ),
}


def _with_as(rng: random.Random, split: str) -> Pair:
    (a, b, c), (name,) = names(rng, split, 3), short_names(rng, split, 1)
    before, indent = (opener(rng, split), "    ") if rng.random() < 0.5 else ("", "")
    what = rng.choice(MANAGERS[split]).format(a=a, b=b, c=c)
    return Pair(f"{before}{indent}with {what}", f"{before}{indent}{name} = {what}", f" {name}:\n{indent}    pass")


WITH_AS = Task(
    name="with_as",
    description="name what `with` enters; end the line of an assignment",
    answers=(" as", "\n"),
    sample=Composed(_with_as, from_table(ENTERED)),
)


def _with_open(rng: random.Random, split: str) -> Pair:
    a, b = names(rng, split, 2)
    quote = rng.choice("'\"")
    template, ways = rng.choice(OPENINGS[split])
    left, right = (template.format(way=way, a=a, b=b) + quote for way in rng.choice(ways))
    indent = "        " if "\n    with" in template else "    "
    rest = f"{quote}) as {a}:\n{indent}pass"
    return Pair(left, right, rest, rest)


def _mention(rng: random.Random, split: str, side: int) -> str:
    """A statement with a word that tells reading from writing, and no file."""
    variable = rng.random() < 0.5
    ways = [
        words[side] for line, pairs in OPENINGS[split] for words in pairs if ("with open({way}" in line) == variable
    ]
    return fill(rng.choice(WAYS[split][variable]), rng, split, way=rng.choice(ways))


WITH_OPEN = Task(
    name="with_open",
    description="open a file for reading or for writing, as the names say",
    answers=("r", "w"),
    sample=Composed(_with_open, _mention),
)
