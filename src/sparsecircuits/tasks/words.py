"""Names, words and context lines for prompts; each split has its own."""

import random

# Names and phrases of the splits are about equally long in tokens: how far back a model must look is a difference
# that a circuit would have to stretch over.
NAMES = {
    "train": (
        "count total index value size width height score level limit offset speed weight depth price amount "
        "rate step mode state flag status code kind key name label title color shape user owner item node "
        "row column page line word token path file host port query table field record result answer "
        "temperature threshold coordinate permission directory inventory warehouse keyboard monitor printer museum "
        "bridge airport station valley mountain ocean pressure density voltage battery magnet circuit antenna "
        "satellite patient surgeon deposit broker bakery"
    ).split(),
    "validation": (
        "volume margin length radius angle ratio cursor buffer signal channel branch version parent child "
        "device target source number letter symbol client server message request reply budget counter "
        "schedule platform harbor kitchen vehicle hospital"
    ).split(),
    "held_out": (
        "balance capacity distance duration priority position category language country city season planet "
        "engine camera window button ticket invoice payment salary student teacher course grade chapter author"
    ).split(),
}

# Names that are one token with a space before them in the shipped tokenizer, for tasks whose two sides name
# two different variables.
SHORT_NAMES = {
    "train": "names values items numbers results lines words letters keys text data order point cell book".split(),
    "validation": "paths files nodes users labels options tokens headers room house store ship".split(),
    "held_out": "errors codes args parts tags output card player team game event action".split(),
}

VERBS = {
    "train": "get set make build find add".split(),
    "validation": "check count draw move".split(),
    "held_out": "show update print remove choose".split(),
}

WORDS = {
    "train": (
        "hello world the file was not found please enter your name loading data done error in line missing "
        "value for user start of list end input output name and size too many items no such path "
        "battery removed successfully printer offline weather tomorrow dinner bridge music unlocked"
    ).split(),
    "validation": (
        "good morning welcome back unknown option bad number read only mode invalid date try again later "
        "connection lost saved report empty queue waiting for reply closed"
    ).split(),
    "held_out": (
        "happy birthday total price per unit open the door new message from server access denied ready to go "
        "last page first column wrong password disk full goodbye my friend"
    ).split(),
}

CONTEXT = {
    "train": (
        "{a} = {n}\n",
        "import os\n",
        "{a} = {b} + {n}\n",
        "{a} = [{n}, {m}]\n",
        "for {a} in {b}:\n    {c}({a})\n",
        "{a}, {b} = {n}, {m}\n",
        "{a} = {b}({c})\n",
        "{a}.{b} = {n}\n",
        "{a} = None\n",
        "print({a})\n",
        "from {b} import {a}\n",
        "if {a}:\n    {b} = {n}\n",
        "class {a}:\n    {b} = {n}\n",
        "{a} = {b}.{c}({n}, {m})\n",
        "{a} = {b}[{n}] - {c}[{m}]\n",
        "while {a}({b}):\n    {c} = {n}\n",
    ),
    "validation": (
        "{a} = {b}\n",
        "import sys\n",
        "{a} += {n}\n",
        "def {a}({b}):\n    return {b}\n",
        "{a} = {b}.{c}\n",
        "{a} = {b} or {c}\n",
        "del {a}\n",
        "{a}[{b}] = {c} * {m}\n",
        "{a} = {b}({n}, {c}, {m})\n",
        "if {a} < {n}:\n    {b} += {c}\n",
        "try:\n    {a} = {n}\nfinally:\n    {b}()\n",
    ),
    "held_out": ("{a} = {b} * {n}\n", "import re\n", "{a} = max({b}, {n})\n", "while {a} > {n}:\n    {a} -= {m}\n"),
}

# What opens a block; the line under test stands in it.
OPENERS = {
    "train": (
        "def {a}({b}):\n",
        "for {a} in {b}:\n",
        "if {a}:\n",
        "def {a}(self):\n",
        "class {a}({b}):\n",
        "while {a} < {b}:\n",
        "if {a} is None:\n",
    ),
    "validation": (
        "def {a}({b}, {c}):\n",
        "while {a}:\n",
        "if {a} > {n}:\n",
        "if {a}.{b}:\n",
        "for {a} in range({n}):\n",
        "with {a}:\n",
    ),
    "held_out": ("if not {a}:\n", "for {a}, {b} in {c}:\n", "with {a}.{b} as {c}:\n"),
}


def names(rng: random.Random, split: str, n: int) -> list[str]:
    """n different identifiers of a split."""
    return rng.sample(NAMES[split], n)


def short_names(rng: random.Random, split: str, n: int) -> list[str]:
    """n different identifiers of a split, each one token after a space."""
    return rng.sample(SHORT_NAMES[split], n)


def phrase(rng: random.Random, split: str, low: int = 1, high: int = 8) -> str:
    """A few words, as they stand in a message."""
    return " ".join(rng.choice(WORDS[split]) for _ in range(rng.randint(low, high)))


def context_lines(rng: random.Random, split: str, n: int) -> str:
    """n lines (or short blocks) of plain code without strings."""
    lines = []
    for _ in range(n):
        a, b, c = names(rng, split, 3)
        lines.append(rng.choice(CONTEXT[split]).format(a=a, b=b, c=c, n=rng.randint(1, 99), m=rng.randint(1, 99)))
    return "".join(lines)


def opener(rng: random.Random, split: str) -> str:
    """A line that opens a block at the left margin."""
    a, b, c = names(rng, split, 3)
    return rng.choice(OPENERS[split]).format(a=a, b=b, c=c, n=rng.randint(1, 99))
