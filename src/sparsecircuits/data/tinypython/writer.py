"""The state of one file being written: its random stream, its style, and the names in scope."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sparsecircuits.data.tinypython import words

T = TypeVar("T")
INDENT = "    "
TOPIC = 10  # words of a vocabulary that a file comes back to
KINDS = ("num", "str", "list", "set", "dict", "flag", "obj", "grid")


def indent(lines: Sequence[str]) -> list[str]:
    """The lines one level deeper (empty lines stay empty)."""
    return [INDENT + line if line else line for line in lines]


@dataclass
class Scope:
    """Names that a statement may use, by kind."""

    names: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def add(self, kind: str, name: str) -> None:
        """Bind `name` to `kind`, forgetting what it was before."""
        for known in self.names.values():
            if name in known:
                known.remove(name)
        self.names[kind].append(name)

    def copy(self) -> Scope:
        """A scope for an inner block: sees these names, adds its own."""
        return Scope({kind: list(known) for kind, known in self.names.items()})

    def all(self) -> list[str]:
        """Every name bound here."""
        return [name for known in self.names.values() for name in known]


class Writer:
    """One file's random stream and style; every generator function takes it first.

    `quotes` is "mixed" (each string chooses its own), "'" or '"'. Mixed is the common case, so that only a
    string's opener tells how it closes.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"tinypython:{seed}")
        self.random = self.rng.random
        mode = self.random()
        self.quotes = "mixed" if mode < 0.6 else "'" if mode < 0.8 else '"'
        self.typed = self.chance(0.12)
        self.docstrings = self.rng.choice((0.0, 0.15, 0.5))
        self.comments = self.rng.choice((0.0, 0.05, 0.12))
        self.clutter = self.rng.choice((0.0, 0.0, 0.08, 0.2, 0.5))
        self.default = self.rng.choice(("None", "None", "None", "mixed"))
        self.short_names = self.rng.choice((0.1, 0.3, 0.6))
        self.topical = self.rng.choice((0.0, 0.3, 0.5, 0.7))
        self._topics: dict[int, list[str]] = {}

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices, uniformly."""
        return choices[int(self.random() * len(choices))]

    def skewed(self, choices: Sequence[str]) -> str:
        """One of the choices, the earlier ones more often: a head of common words, a long tail of others. A file
        comes back to a few of its own, as files do."""
        if len(choices) > TOPIC and self.chance(self.topical):
            return self.pick(self._topics.setdefault(id(choices), self.many(choices, TOPIC)))
        draw = self.random()
        return choices[int(draw**3 * len(choices) if self.random() < 0.5 else draw * draw * len(choices))]

    def many(self, choices: Sequence[T], count: int) -> list[T]:
        """Up to `count` different choices."""
        return self.rng.sample(choices, min(count, len(choices)))

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def quote(self) -> str:
        """The quote character of the next string."""
        if self.quotes != "mixed":
            return self.quotes
        return "'" if self.random() < 0.5 else '"'

    def noun(self) -> str:
        """A singular identifier."""
        if self.chance(0.12):
            return f"{self.pick(words.ADJECTIVES)}_{self.skewed(words.NOUNS)}"
        return self.skewed(words.NOUNS)

    def coined(self) -> str:
        """A name of two or three syllables that is no word, so several tokens: most names of real code are as rare."""
        count = self.pick((2, 2, 3))
        return "".join(self.pick(words.ONSETS) + self.pick(words.VOWELS) + self.pick(words.CODAS) for _ in range(count))

    def variable(self) -> str:
        """A plain variable: a letter or a noun."""
        return self.pick(words.LETTERS) if self.chance(self.short_names) else self.noun()

    def plural(self) -> str:
        """An identifier for a collection."""
        return self.skewed(words.PLURALS)

    def function(self) -> str:
        """A function's name."""
        roll = self.random()
        verb = self.skewed(words.VERBS)
        if roll < 0.2:
            return verb
        if roll < 0.75:
            return f"{verb}_{self.skewed(words.NOUNS)}"
        return f"{verb}_{self.plural()}"

    def class_name(self) -> str:
        """A class's name in capitals."""
        parts = (
            [self.skewed(words.NOUNS)] if self.chance(0.7) else [self.pick(words.ADJECTIVES), self.pick(words.NOUNS)]
        )
        return "".join(part.title().replace("_", "") for part in parts)

    def fresh(self, scope: Scope, *pools: Sequence[str]) -> str:
        """A variable name that the scope does not have yet."""
        taken = scope.all()
        for _ in range(20):
            name = self.skewed(self.pick(pools)) if pools else self.variable()
            if name not in taken:
                return name
        return f"{self.noun()}_{self.between(2, 99)}"

    def known(self, scope: Scope, kind: str) -> str | None:
        """A name of that kind in the scope, or None."""
        names = scope.names[kind]
        return self.pick(names) if names else None
