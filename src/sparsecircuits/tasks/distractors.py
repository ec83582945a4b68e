"""What stands before the line under test: code of both kinds, whole and in comments, the same for both prompts.

A prompt whose cue is the only one of its kind can be answered by "is it there". So the context holds the cue of either
answer as often as the other's, resolved (a closed string, a closed list, a loop with its body). And since then a sum
over the prompt still tells what is open (as many `('` as `')` but for one), comments and strings over several lines
hold cues that nothing resolves.
"""

import functools
import random
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsecircuits.tasks.base import Pair
from sparsecircuits.tasks.words import VERBS, context_lines, names, opener, phrase, short_names

if TYPE_CHECKING:
    from sparsecircuits.data.tokenizer import Tokenizer

GAP = "\0"
"""Stands in a core where context may go in between; both prompts of a pair have it at the same place, at the margin."""
ROOM = 120
"""Tokens that a prompt may have: nearly the context of the smallest preset, 128."""
BARE = 0.04  # share of prompts with nothing before them
PLAIN, COMMENT = 0.08, 0.55  # shares of lines: with no cue, with cues that nothing resolves
STRING = 0.4  # share of the latter that are strings over several lines and no comments
MISSES = 4  # lines too long for the room that is left, before it stays empty
BLOCK = 0.3  # share of statements that stand in a block

Core = Callable[[random.Random, str], Pair]
Draw = Callable[[random.Random, str, int], str]
"""(generator, split, side) -> a statement with the cue of that side; `|` stands where the cue is complete."""
Table = Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
"""Per split the statements with the cue of the first answer, and those with the second's."""


@dataclass(frozen=True)
class Composed:
    """Draws pairs: a core (the line under test and what belongs to it) after a context with distractors."""

    core: Core
    draw: Draw

    def __call__(self, rng: random.Random, split: str) -> Pair:
        """One pair. Both prompts have the same context."""
        pair = self.core(rng, split)
        left = ROOM - max(map(length, pair.prompts))
        return self.within(pair, rng, split, 0 if rng.random() < BARE else rng.uniform(0.25, 1) * left)

    def plain(self, rng: random.Random, split: str) -> Pair:
        """One pair after 0 to 4 lines without a cue: as easy as a task can be made."""
        pair, before = self.core(rng, split), context_lines(rng, split, rng.randint(0, 4))
        left, right = (before + prompt.replace(GAP, "") for prompt in pair.prompts)
        return Pair(left, right, pair.left_rest, pair.right_rest)

    def within(self, pair: Pair, rng: random.Random, split: str, room: float) -> Pair:
        """A core's pair with up to `room` tokens of context."""
        shares = (rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9))
        lines: list[str] = []
        line, misses = self._unresolved(rng, split, shares[1]), 0
        while misses < MISSES:
            tokens = length(line)
            if tokens <= room:
                room -= tokens
                lines.insert(rng.randint(0, len(lines)), line)
            else:
                misses += 1
            line = self._line(rng, split, shares)
        cut = rng.randint(0, len(lines)) if GAP in pair.left else len(lines)
        before, between = "".join(lines[:cut]), "".join(lines[cut:])
        left, right = (before + prompt.replace(GAP, between) for prompt in pair.prompts)
        return Pair(left, right, pair.left_rest, pair.right_rest)

    def _line(self, rng: random.Random, split: str, shares: tuple[float, float]) -> str:
        kind = rng.random()
        if kind < PLAIN:
            return context_lines(rng, split, 1)
        # How many of a context are of one side varies from prompt to prompt: the mean is a half.
        if kind < PLAIN + COMMENT:
            return self._unresolved(rng, split, shares[1])
        statement = self.draw(rng, split, int(rng.random() < shares[0])).replace("|", "")
        if rng.random() < BLOCK:
            inside = self._comment(rng, split, shares[1]) if rng.random() < BLOCK else ""
            return opener(rng, split) + textwrap.indent(inside + statement, "    ")
        return statement

    def _unresolved(self, rng: random.Random, split: str, share: float) -> str:
        """Beginnings of statements in a comment or in a string over several lines: nothing resolves them."""
        if rng.random() < STRING:
            begun = self._begun(rng, split, share, 3)
            other = context_lines(rng, split, 1)
            begun.insert(rng.randint(0, len(begun)), other[: rng.randint(0, len(other))].strip())
            lines = "".join(rng.choice(("", "    ")) + text + "\n" for text in begun)
            return rng.choice(('"""{}"""\n', "'''{}'''\n")).format("\n" + lines)
        return self._comment(rng, split, share)

    def _comment(self, rng: random.Random, split: str, share: float) -> str:
        begun = [re.sub(r"\s+", " ", text) for text in self._begun(rng, split, share, 4)]
        join = rng.choice((", ", " ", "\n# ", "\n# "))
        return f"# {join.join(begun)}{rng.choice(('', ':'))}\n"

    def _begun(self, rng: random.Random, split: str, share: float, most: int) -> list[str]:
        """1 to `most` statements, cut where the cue is complete."""
        return [self.draw(rng, split, int(rng.random() < share)).split("|")[0] for _ in range(rng.randint(1, most))]


def length(text: str) -> int:
    """Tokens of a text in the shipped tokenizer: in another one a prompt may be longer than `ROOM`."""
    return len(_tokenizer().encode(text))


@functools.cache
def _tokenizer() -> "Tokenizer":
    from sparsecircuits.data.tokenizer import Tokenizer

    return Tokenizer.default()


def from_table(table: Table) -> Draw:
    """Draw from a table of templates: {a} {b} {c} names, {f} a function's name, {n} {m} numbers, {w} a phrase, {l} a
    few items, Q a quote of either kind."""

    return functools.partial(_draw, table)


def _draw(table: Table, rng: random.Random, split: str, side: int) -> str:
    return fill(rng.choice(table[split][side]), rng, split)


def fill(template: str, rng: random.Random, split: str, **more: str) -> str:
    """A template with names, numbers and words of a split."""
    a, b, c = (rng.choice(both) for both in zip(names(rng, split, 3), short_names(rng, split, 3), strict=True))
    items = rng.choice((names(rng, split, 3), [str(rng.randint(0, 99)) for _ in range(4)]))[: rng.randint(1, 4)]
    return template.replace("Q", rng.choice("'\"")).format(
        a=a,
        b=b,
        c=c,
        f=f"{rng.choice(VERBS[split])}_{c}",
        n=rng.randint(0, 99),
        m=rng.randint(0, 99),
        w=phrase(rng, split, 1, 3),
        l=", ".join(items),
        **more,
    )


def sides(*pairs: tuple[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A row of a table from pairs (statement of the first side, the like of the second)."""
    return tuple(left for left, _ in pairs), tuple(right for _, right in pairs)


def quoted(*templates: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A row of a table from templates whose quotes, Q, are single on one side and double on the other."""
    return sides(*((text.replace("Q", "'"), text.replace("Q", '"')) for text in templates))
