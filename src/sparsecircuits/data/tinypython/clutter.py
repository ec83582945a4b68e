"""Comments and strings over several lines: prose, and code that somebody took out, often only the beginning of it.

What stands there opens quotes, brackets and blocks that nothing closes, so that a model which counts them over the file
is wrong, and one that looks where it stands is right.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sparsecircuits.data.tinypython import words
from sparsecircuits.data.tinypython.strings import CONTRACTIONS, sentence, string
from sparsecircuits.data.tinypython.writer import Scope, Writer

Statement = Callable[[Writer, Scope], list[str]]
"""Draws the lines of one statement, to be taken out."""
MARKS = ("TODO: ", "FIXME: ", "NOTE: ", "XXX ", "e.g. ", "was: ", "see ", "like ", "old: ", "not ", "then ")


def prose(w: Writer) -> str:
    """A line of words; now and then a bracket or a quote in it."""
    noun = w.skewed(words.NOUNS).replace("_", " ")
    if w.chance(0.55):
        return f"{w.pick(words.VERBS)} the {noun}"
    return w.pick(
        (
            sentence(w).strip(),
            f"{w.pick(CONTRACTIONS)} {w.pick(words.VERBS)} the {noun}",
            f"{noun} [{w.between(0, 9)}",
            f"({sentence(w).strip()}",
            f"{string(w)} is a {noun}",
            f"if the {noun} is {w.pick(words.ADJECTIVES)}",
            f"for each {noun}",
        )
    )


def _begun(w: Writer, line: str) -> str:
    """The beginning of a line, cut between two of its tokens."""
    parts = re.findall(r"\w+|\s+|[^\w\s]", line)
    return "".join(parts[: w.between(1, len(parts))]).rstrip()


def _taken_out(w: Writer, scope: Scope, statement: Statement) -> list[str]:
    lines = statement(w, scope.copy())
    if w.chance(0.25):
        return lines
    return [*lines[: w.between(0, len(lines) - 1)][:2], _begun(w, w.pick(lines))]


def _lines(w: Writer, scope: Scope, statement: Statement, count: int) -> list[str]:
    lines: list[str] = []
    while len(lines) < count:
        lines += [prose(w)] if w.chance(0.25) else _taken_out(w, scope, statement)
    return [line.rstrip() for line in lines[:count]]


def remark(w: Writer, scope: Scope, statement: Statement) -> list[str]:
    """Comment lines: a sentence, or code that was taken out."""
    if w.chance(0.3):
        return [f"# {prose(w)}"]
    lines = _lines(w, scope, statement, w.pick((1, 1, 2, 3, 4)))
    if w.chance(0.35):
        joined = w.pick((", ", " ", "; ", " or ")).join(line.strip() for line in lines)
        lines = [joined + w.pick(("", "", ":", "."))]
    if w.chance(0.25):
        lines[0] = w.pick(MARKS) + lines[0]
    return [f"# {line}".rstrip() for line in lines]


def long_string(w: Writer, scope: Scope, statement: Statement) -> list[str]:
    """A string over several lines, as a statement of its own, given a name, or passed on."""
    lines = _lines(w, scope, statement, w.pick((1, 2, 2, 3, 4, 5)))
    if w.chance(0.5):
        lines = [(w.pick(("", "    ")) + line).rstrip() for line in lines]
    text = "\n".join(lines)
    marks = [mark for mark in ('"""', "'''") if mark not in text]
    if not marks:
        return remark(w, scope, statement)
    quote = w.pick(marks)
    before = w.pick(("", "", f"{w.fresh(scope)} = ", f"{w.function()}(", f"{w.plural()}.append("))
    after = ")" if before.endswith("(") else ""
    first = prose(w) if w.chance(0.3) else ""
    return [f"{before}{quote}{first}", *text.split("\n"), f"{quote}{after}"]


def clutter(w: Writer, scope: Scope, statement: Statement) -> list[str]:
    """Comment lines, or a string over several lines."""
    return long_string(w, scope, statement) if w.chance(0.35) else remark(w, scope, statement)
