"""Expressions: numbers, comparisons, list and dict literals, calls, lambdas."""

from __future__ import annotations

from collections.abc import Callable

from sparsecircuits.data.tinypython import words
from sparsecircuits.data.tinypython.strings import string, string_value, text_value, word
from sparsecircuits.data.tinypython.writer import Scope, Writer, indent


def number(w: Writer) -> str:
    """A number literal, mostly small."""
    roll = w.random()
    if roll < 0.7:
        return str(w.between(0, 12))
    if roll < 0.92:
        return str(
            w.pick((15, 20, 24, 25, 30, 32, 40, 50, 60, 64, 80, 99, 100, 128, 200, 255, 256, 365, 500, 512, 1000))
        )
    return f"{w.between(0, 9)}.{w.pick((0, 1, 2, 25, 5, 75, 8))}"


def num_name(w: Writer, scope: Scope) -> str:
    """A number by name where there is one."""
    return w.known(scope, "num") or number(w)


def arithmetic(w: Writer, scope: Scope) -> str:
    """A number from one or two operands."""
    roll = w.random()
    left = num_name(w, scope)
    if roll < 0.25:
        return number(w)
    if roll < 0.65:
        right = number(w) if w.chance(0.5) else num_name(w, scope)
        return f"{left} {w.pick(('+', '+', '-', '*', '*', '/', '//', '%'))} {right}"
    group = w.known(scope, "list")
    if group and roll < 0.85:
        return w.pick(
            (
                f"len({group})",
                f"sum({group})",
                f"max({group})",
                f"{group}[{w.between(0, 3)}]",
                f"min({group})",
            )
        )
    return w.pick((f"int({left})", f"abs({left})", f"round({left}, 2)", f"min({left}, {number(w)})", f"max({left}, 0)"))


def comparison(w: Writer, scope: Scope) -> str:
    """One comparison, `==` the most common."""
    name = num_name(w, scope) if w.chance(0.6) else w.pick(scope.all() or ["x"])
    roll = w.random()
    if roll < 0.5:
        value = (
            number(w)
            if w.chance(0.55)
            else word(w)
            if w.chance(0.5)
            else w.pick(("None", "True", "False", "0", "1", w.quote() * 2))
        )
        return f"{name} == {value}"
    if roll < 0.85:
        return f"{name} {w.pick(('<', '>', '<=', '>=', '!='))} {number(w)}"
    if name[0].isdigit():
        return f"{name} in {w.plural()}"
    return f"{name} {w.pick(('is None', 'is not None', 'in ' + w.plural(), 'not in ' + w.plural()))}"


def condition(w: Writer, scope: Scope) -> str:
    """What follows `if`, `elif` or `while`."""
    roll = w.random()
    flag = w.known(scope, "flag") or w.skewed(words.FLAGS)
    if roll < 0.5:
        return comparison(w, scope)
    if roll < 0.6:
        return flag
    if roll < 0.66:
        return f"not {flag}"
    if roll < 0.74:
        return f"{flag} == {w.pick(('True', 'False'))}"
    if roll < 0.82:
        return f"{comparison(w, scope)} {w.pick(('and', 'or'))} {comparison(w, scope)}"
    if roll < 0.88:
        return f"{w.known(scope, 'str') or w.noun()}.{w.pick(('startswith', 'endswith'))}({word(w)})"
    if roll < 0.94:
        return string_value(w, scope)
    return f"{w.pick(words.VERBS)}({w.pick(scope.all() or ['x'])})"


def ternary(w: Writer, scope: Scope) -> str:
    """`a if test else b`, all on one line."""
    test = comparison(w, scope) if w.chance(0.5) else w.known(scope, "flag") or w.variable()
    return f"{atom(w, scope)} if {test} else {atom(w, scope)}"


def atom(w: Writer, scope: Scope) -> str:
    """A short value: a name, a number, a word."""
    roll = w.random()
    names = scope.all()
    if names and roll < 0.5:
        return w.pick(names)
    if roll < 0.75:
        return number(w)
    return word(w) if roll < 0.92 else w.pick(("None", "True", "False"))


def items(w: Writer, scope: Scope, count: int) -> list[str]:
    """List elements of one sort: numbers, words or names."""
    roll = w.random()
    if roll < 0.5:
        return [number(w) for _ in range(count)]
    if roll < 0.72:
        return [word(w) for _ in range(count)]
    return [w.variable() for _ in range(count)]


def flat_list(w: Writer, scope: Scope) -> str:
    """A list literal of one level."""
    return f"[{', '.join(items(w, scope, w.between(1, 6)))}]"


def nested_list(w: Writer, scope: Scope) -> str:
    """A list of lists with rows of their own lengths, on one line."""
    kind = w.random()
    rows = []
    for _ in range(w.between(1, 4)):
        count = w.between(1, 5)
        if kind < 0.6:
            row = [number(w) for _ in range(count)]
        elif kind < 0.8:
            row = [word(w) for _ in range(count)]
        else:
            row = [w.variable() for _ in range(count)]
        rows.append(f"[{', '.join(row)}]")
    return f"[{', '.join(rows)}]"


def any_list(w: Writer, scope: Scope) -> str:
    """A flat or a nested list, equally often."""
    return nested_list(w, scope) if w.chance(0.5) else flat_list(w, scope)


def _key(w: Writer, kind: float) -> str:
    if kind < 0.4:
        return word(w)
    return str(w.between(0, 20)) if kind < 0.7 else w.variable()


def pair_list(w: Writer, scope: Scope, count: int) -> list[str]:
    """`key: value` entries with keys of one sort."""
    kind, value = w.random(), w.random()
    entries = []
    for _ in range(count):
        shown = (
            number(w)
            if value < 0.45
            else word(w)
            if value < 0.75
            else w.variable()
            if value < 0.85
            else any_list(w, scope)
        )
        entries.append(f"{_key(w, kind)}: {shown}")
    return entries


def dict_literal(w: Writer, scope: Scope) -> str:
    """A dict literal on one line."""
    return "{" + ", ".join(pair_list(w, scope, w.between(1, 4))) + "}"


def lambda_expr(w: Writer, scope: Scope) -> str:
    """A lambda of one or two parameters."""
    names = w.many(words.LETTERS[:12], 2) if w.chance(0.7) else [w.noun(), w.noun() + "s"]
    first, second = names
    if w.chance(0.22):
        return f"lambda {first}, {second}: {first} {w.pick('+-*/')} {second}"
    body = w.pick(
        (
            f"{first}[{w.between(0, 2)}]",
            f"{first}.{w.noun()}",
            f"{first} * {number(w)}",
            f"{first} + {number(w)}",
            f"-{first}",
            f"len({first})",
            f"{first}.{w.pick(words.STRING_METHODS)}()",
            f"{first} == {atom(w, scope)}",
            f"{first} % 2 == {w.between(0, 1)}",
            f"{w.pick(words.VERBS)}({first})",
        )
    )
    return f"lambda {first}: {body}"


def argument(w: Writer, scope: Scope) -> str:
    """One argument of a call."""
    roll = w.random()
    names = scope.all()
    if names and roll < 0.45:
        return w.pick(names)
    if roll < 0.6:
        return number(w)
    if roll < 0.72:
        return string(w)
    if roll < 0.8:
        return any_list(w, scope)
    if roll < 0.84:
        return lambda_expr(w, scope)
    if roll < 0.93:
        return f"{w.noun()}={atom(w, scope)}"
    return f"{w.function()}({w.variable()})"


def call(w: Writer, scope: Scope, name: str | None = None) -> str:
    """A call of a function or a method with up to three arguments."""
    given = [argument(w, scope) for _ in range(w.pick((0, 1, 1, 1, 2, 2, 3)))]
    given.sort(key=lambda text: text.split("=")[0].isidentifier() and "=" in text)
    if name is None:
        name = w.function() if w.chance(0.6) else f"{w.pick(words.OBJECTS)}.{w.function()}"
    seen: set[str] = set()
    kept = []
    for text in given:
        head = text.split("=")[0]
        if "=" in text and head.isidentifier():
            if head in seen:
                continue
            seen.add(head)
        kept.append(text)
    return f"{name}({', '.join(kept)})"


def _spread_list(w: Writer, scope: Scope) -> list[str]:
    if w.chance(0.5):
        rows = [f"[{', '.join(items(w, scope, w.between(1, 4)))}]," for _ in range(w.between(2, 4))]
        return ["[", *indent(rows), "]"]
    if w.chance(0.5):
        return ["[", *indent([f"{item}," for item in items(w, scope, w.between(2, 5))]), "]"]
    rows = [f"[{', '.join(items(w, scope, w.between(1, 4)))}]" for _ in range(w.between(2, 3))]
    return [f"[{rows[0]},", *[f"    {row}," for row in rows[1:-1]], f"    {rows[-1]}]"]


def spread_literal(w: Writer, scope: Scope) -> list[str]:
    """A list or a dict over several lines; the first and last lines hold the brackets."""
    if w.chance(0.5):
        return _spread_list(w, scope)
    entries = pair_list(w, scope, w.between(2, 5))
    return ["{", *indent([f"{entry}," for entry in entries]), "}"]


VALUES: dict[str, Callable[[Writer, Scope], str]] = {
    "num": arithmetic,
    "str": text_value,
    "list": flat_list,
    "grid": nested_list,
    "dict": dict_literal,
    "obj": call,
    "flag": lambda w, scope: w.pick(("True", "False")),
    "set": lambda w, scope: "set()",
}
