"""Functions and classes: final_kwarg, class_init, lambda_func."""

import random

from sparsecircuits.tasks.base import Pair, Task
from sparsecircuits.tasks.distractors import Composed, from_table
from sparsecircuits.tasks.statements import DEFAULTS, FUNCTIONS, XY
from sparsecircuits.tasks.words import VERBS, names, short_names

# {d}: the default of the last parameter but one, or nothing.
SIGNATURES = {
    "train": ("def {f}({a}{d}, {c}", "def {f}({a}, {b}{d}, {c}"),
    "validation": ("def {f}(self, {b}{d}, {c}", "async def {f}({a}{d}, {c}"),
    "held_out": ("def {f}({a}, {b}, {e}{d}, {c}", "def {f}(cls, {a}, {b}{d}, {c}"),
}
CLASS_HEADS = {
    "train": ("class {A}:\n", "class {A}(object):\n"),
    "validation": ("class {A}(Base):\n", 'class {A}:\n    """A {b}."""\n\n'),
    "held_out": ("class {A}({B}):\n", "class {A}:\n    {b} = None\n\n", "class {A}(Exception):\n"),
}
# What a lambda stands in, the same line without one (which a function follows), and what closes the first.
LAMBDAS = {
    "train": (("{a} = ", "{a} = {c}\n", ""), ("{a}.sort(key=", "{a}.sort()\n", ")")),
    "validation": (("{a}.{c} = ", "{a}.{c} = {a}\n", ""), ("{a}(key=", "{a}()\n", ")")),
    "held_out": (("{a} += ", "{a} += {c}\n", ""), ("{a}.{c}(key=", "{a}.{c}()\n", ")")),
}
# Parameters that leave the bracket before them a token of its own; they stand after the answer.
PARAMETERS = ("index", "row", "user", "code", "level", "account")


def _final_kwarg(rng: random.Random, split: str) -> Pair:
    a, b, c, e = names(rng, split, 4)
    name = f"{rng.choice(VERBS[split])}_{rng.choice((a, b, c, e))}"
    template = rng.choice(SIGNATURES[split])
    left, right = (template.format(f=name, a=a, b=b, c=c, e=e, d=d) for d in ("=None", ""))
    return Pair(left, right, "):\n    pass", "    pass")


FINAL_KWARG = Task(
    name="final_kwarg",
    description="give the last parameter a default if the one before it has one, else close the list",
    answers=("=None", "):\n"),
    sample=Composed(_final_kwarg, from_table(DEFAULTS)),
)


def _class_init(rng: random.Random, split: str) -> Pair:
    own, base, *others = names(rng, split, 2 + rng.randint(0, 3))
    parameters = ["x", "y", *others]
    rng.shuffle(parameters)
    head = rng.choice(CLASS_HEADS[split]).format(A=own.title(), B=base.title(), b=base)
    stored = [f"        self.{name} = {name}\n" for name in parameters if name in others[: rng.randint(0, 3)]]
    before = f"{head}    def __init__(self, {', '.join(parameters)}):\n{''.join(stored)}"
    return Pair(f"{before}        self.x =", f"{before}        self.y =", "\n", "\n")


CLASS_INIT = Task(
    name="class_init",
    description="store the parameter that bears the attribute's name",
    answers=(" x", " y"),
    sample=Composed(_class_init, from_table(XY)),
)


def _lambda_func(rng: random.Random, split: str) -> Pair:
    a, b, c = short_names(rng, split, 3)
    lead, instead, closer = rng.choice(LAMBDAS[split])
    lead, instead = lead.format(a=a, c=c), instead.format(a=a, c=c)
    parameter = rng.choice(PARAMETERS)
    rest = f" {b} + {c}{closer}", f"{parameter}):\n    return {c}"
    return Pair(f"{lead}lambda {b}", f"{instead}def {b}", *rest)


LAMBDA_FUNC = Task(
    name="lambda_func",
    description="a colon after the parameter of a lambda, a bracket after the name of a function",
    answers=(":", "("),
    sample=Composed(_lambda_func, from_table(FUNCTIONS)),
)
