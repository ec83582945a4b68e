"""Files of short, unrelated snippets that ask again and again what ordinary code asks seldom.

A small model learns what it meets thousands of times in a million tokens. Ordinary files fill a set or a string, trade
two places or open a file a few hundred times, so here these make up most of the text, in the same shapes and with the
same names as elsewhere in `tinypython`.
"""

from __future__ import annotations

from collections.abc import Callable

from sparsecircuits.data.tinypython import bindings, words
from sparsecircuits.data.tinypython.definitions import class_definition, file_function, function
from sparsecircuits.data.tinypython.expressions import (
    any_list,
    atom,
    call,
    comparison,
    dict_literal,
    nested_list,
    number,
)
from sparsecircuits.data.tinypython.file_use import named_path, opened, told, with_open
from sparsecircuits.data.tinypython.statements import (
    assign,
    augment,
    between,
    block,
    literal,
    loop_header,
    plain_call,
    text_call,
)
from sparsecircuits.data.tinypython.strings import called, fstring, string, word
from sparsecircuits.data.tinypython.writer import Scope, Writer, indent

MOST_USES = 6  # lines that fill what was started; elsewhere half as many
Snippet = Callable[[Writer, Scope], list[str]]


def _short(w: Writer, scope: Scope) -> list[str]:
    """The body of a block."""
    return w.pick((assign, augment, plain_call, text_call))(w, scope)


def _filled(w: Writer, scope: Scope) -> list[str]:
    """Names that are started and filled."""
    return bindings.accumulators(w, scope, between, MOST_USES)


def _filled_current(w: Writer, scope: Scope) -> list[str]:
    """One name for all kinds, started and filled several times."""
    lines: list[str] = []
    name = "current" if w.chance(0.7) else w.pick(words.ACCUMULATORS)
    for _ in range(w.between(1, 3)):
        lines += bindings.accumulators(w, scope, between, 3, lambda w: name)
    return lines


def _traded(w: Writer, scope: Scope) -> list[str]:
    """Places that trade their values, once or a few times."""
    return [line for _ in range(w.between(1, 3)) for line in bindings.swap(w, scope, between)]


def _named_open(w: Writer, scope: Scope) -> list[str]:
    """Files opened as their names, or a comment before, say."""
    lines = []
    for _ in range(w.between(1, 3)):
        reading, handle = w.chance(0.5), w.pick(words.HANDLES)
        path = named_path(w, reading)
        if w.chance(0.3):
            lines.append(f"# {told(w, reading)}")
        use = f"{w.fresh(scope)} = {handle}.read()" if reading else f"{handle}.write({atom(w, scope)})"
        if w.chance(0.2):
            lines += [f"{handle} = {opened(w, path, reading)}", use]
        else:
            lines += [f"with {opened(w, path, reading)} as {handle}:", f"    {use}"]
    return lines


def _entered(w: Writer, scope: Scope) -> list[str]:
    """The same expression entered by `with`, and given a name."""
    lines = []
    for _ in range(w.between(1, 3)):
        value = w.pick(
            (
                w.variable(),
                f"{w.noun()}.{w.noun()}",
                f"self.{w.noun()}",
                f"{w.noun()}.{w.function()}({w.variable()})",
                f"{w.pick(words.OBJECTS)}.{w.noun()}.{w.noun()}",
                f"{w.function()}({w.noun()}).{w.noun()}",
                f"{w.noun()} or {w.noun()}",
                f"{w.noun()} if {w.noun()} else {w.noun()}",
                f"{w.plural()}[{w.noun()}]",
                f"open({w.pick(words.FILE_NAMES)})",
            )
        )
        name = w.fresh(scope)
        if w.chance(0.55):
            colon = f" as {name}" if w.chance(0.9) else ""
            lines += [f"with {value}{colon}:", *indent(_short(w, scope))]
        else:
            lines.append(f"{name} = {value}")
        scope.add("obj", name)
    return lines


def _printed(w: Writer, scope: Scope) -> list[str]:
    """Strings with and without an f, in calls."""
    lines = []
    for _ in range(w.between(1, 4)):
        text = fstring(w, scope) if w.chance(0.55) else string(w)
        before = f"{atom(w, scope)}, " if w.chance(0.2) else ""
        lines.append(called(w, before + text))
    return lines


def _enclosed(w: Writer, scope: Scope) -> list[str]:
    """Lists of one or two levels, and dicts."""
    lines = []
    for _ in range(w.between(1, 3)):
        if w.chance(0.4):
            lines += literal(w, scope)
            continue
        value = w.pick((any_list, nested_list, nested_list, dict_literal, dict_literal))(w, scope)
        lines.append(w.pick((f"{w.fresh(scope)} = {value}", called(w, value), f"return_value = {value}")))
    return lines


def _item(w: Writer, scope: Scope, kind: float) -> str:
    """An item of a row whose items are of one sort."""
    if kind < 0.3:
        return number(w)
    if kind < 0.55:
        return w.variable()
    if kind < 0.7:
        return f"{w.variable()} {w.pick('+-*')} {w.between(1, 99)}"
    if kind < 0.8:
        return f"{w.noun()}.{w.noun()}"
    return word(w) if kind < 0.9 else atom(w, scope)


def _row(w: Writer, scope: Scope) -> str:
    kind = w.random()
    return f"[{', '.join(_item(w, scope, kind) for _ in range(w.between(1, 11)))}]"


def _rows(w: Writer, scope: Scope) -> list[str]:
    """Rows that are short or long, alone or in a list, as a value of any kind; some over several lines."""
    lines = []
    for _ in range(w.between(1, 4)):
        rows = [_row(w, scope) for _ in range(w.pick((1, 1, 1, 2, 3)))]
        value = rows[0] if w.chance(0.45) else f"[{', '.join(rows)}]"
        name, tight = w.fresh(scope), value.startswith("[[")
        before = w.pick(
            (
                *(f"{name} = ", f"{name} = ", f"{name} += ", f"{name} = {w.noun()} + ", f"self.{w.noun()} = "),
                *(f"{name} = {w.noun()} or ", f"{name} = {w.noun()} if {w.noun()} else ", "return_value = "),
                *(f"{w.plural()}[{word(w)}] = ", f"{name} = {w.noun()} = ", f"assert {w.noun()} in ", f"{name} = not "),
            )
        )
        if w.chance(0.12):
            body = value[1:-1] if tight else value
            lines += [f"{before}[", *indent([body if tight and w.chance(0.5) else f"{body},"]), "]"]
        else:
            lines.append(called(w, value) if w.chance(0.15) else before + value)
        if w.chance(0.2):
            lines += between(w, scope)
    return lines


def _headed(w: Writer, scope: Scope) -> list[str]:
    """Headers of loops and conditions with short bodies."""
    lines = []
    for _ in range(w.between(1, 3)):
        value = f"{atom(w, scope)} if {comparison(w, scope)} else {atom(w, scope)}"
        lines += w.pick(
            (
                [loop_header(w, scope), *indent(_short(w, scope))],
                [f"if {comparison(w, scope)}:", *indent(_short(w, scope))],
                [f"while {comparison(w, scope)}:", *indent(_short(w, scope))],
                [f"{w.fresh(scope)} = {value}"],
                [f"{w.fresh(scope)} = {comparison(w, scope)}"],
                [f"{w.fresh(scope)} = {call(w, scope)}", f"{w.plural()}[{word(w)}] = {atom(w, scope)}"],
            )
        )
    return lines


def _ordinary(w: Writer, scope: Scope) -> list[str]:
    """What stands in other files."""
    return block(w, scope, 0, w.between(1, 4))


def bound(w: Writer) -> list[str]:
    """Names that are bound and used in short lines, two times in three; else as in other snippets."""
    lines = w.pick(
        (bindings.recalled, bindings.recalled, bindings.recalled, bindings.recalled, _filled, _filled_current)
    )(w, Scope())
    if w.chance(0.3):
        return [f"def {w.function()}({w.variable()}):", *indent(lines)]
    return lines


SNIPPETS: tuple[tuple[Snippet, int], ...] = (
    (_filled, 24), (_filled_current, 12), (_traded, 8), (_named_open, 18), (with_open, 5), (_entered, 6),
    (_printed, 14), (_enclosed, 8), (_rows, 12), (_headed, 6), (_ordinary, 6),
)  # fmt: skip
_SNIPPETS = [snippet for snippet, weight in SNIPPETS for _ in range(weight)]


def section(w: Writer) -> list[str]:
    """One snippet, or a few that share their names; at the margin, in a function, or a definition."""
    roll = w.random()
    if roll < 0.22:
        return file_function(w) if roll < 0.14 else class_definition(w) if roll < 0.19 else function(w)
    scope = Scope()
    lines = [line for _ in range(w.pick((1, 1, 1, 2, 3))) for line in w.pick(_SNIPPETS)(w, scope)]
    if roll < 0.45:
        names = ", ".join(dict.fromkeys(w.variable() for _ in range(w.between(0, 3))))
        return [f"def {w.function()}({names}):", *indent(lines)]
    return lines
