"""Smaller idioms of everyday Python: keys in quotes, tuples, slices, checks that raise, calls over several lines."""

from __future__ import annotations

from collections.abc import Callable

from sparsecircuits.data.tinypython import words
from sparsecircuits.data.tinypython.expressions import argument, atom, comparison, condition, num_name, number
from sparsecircuits.data.tinypython.file_use import named_path, opened, untold_path
from sparsecircuits.data.tinypython.strings import called, string, string_call, word
from sparsecircuits.data.tinypython.writer import Scope, Writer, indent


def _holder(w: Writer, scope: Scope, kind: str) -> str:
    """A name of that kind, or a likely one."""
    return w.known(scope, kind) or (w.plural() if kind in ("list", "grid") else w.noun())


def keyed(w: Writer, scope: Scope) -> list[str]:
    """A dict read, written or tested by a key in quotes."""
    holder, key = _holder(w, scope, "dict"), word(w)
    name = w.fresh(scope)
    lines = w.pick(
        (
            [f"{name} = {holder}[{key}]"],
            [f"{name} = {holder}[{key}]"],
            [f"{holder}[{key}] = {atom(w, scope)}"],
            [f"{holder}[{key}] = {atom(w, scope)}"],
            [f"{holder}[{key}] += {number(w)}"],
            [f"{name} = {holder}[{key}][{w.pick((word(w), str(w.between(0, 3))))}]"],
            [f"{name} = {holder}.get({key}, {atom(w, scope)})"],
            [f"if {key} {w.pick(('in', 'not in'))} {holder}:", f"    {holder}[{key}] = {atom(w, scope)}"],
            [f"{holder}[{key}].append({atom(w, scope)})"],
            [f"del {holder}[{key}]"],
        )
    )
    if lines[0].startswith(f"{name} ="):
        scope.add("obj", name)
    return lines


def tuples(w: Writer, scope: Scope) -> list[str]:
    """Tuples made, unpacked, and kept in lists. The words of one tuple share their quotes."""
    first, second = w.many(words.LETTERS if w.chance(0.4) else words.NOUNS[:120], 2)
    quote, name = w.quote(), w.fresh(scope)
    texts = ", ".join(f"{quote}{noun}{quote}" for noun in w.many(words.NOUNS, w.between(2, 4)))
    numbers = ", ".join(number(w) for _ in range(w.between(2, 4)))
    lines = w.pick(
        (
            f"{name} = ({numbers})",
            f"{name} = ({texts})",
            f"{name} = ({number(w)},)",
            f"{name} = ({first}, {second})",
            f"{name} = [({number(w)}, {number(w)}), ({number(w)}, {number(w)})]",
            f"{first}, {second} = {number(w)}, {number(w)}",
            f"{first}, {second} = {_holder(w, scope, 'list')}",
            f"{first}, {second} = {w.function()}({argument(w, scope)})",
            f"{first}, *{second} = {_holder(w, scope, 'list')}",
            f"{_holder(w, scope, 'list')}.append(({first}, {second}))",
            f"{first} = {second} = {number(w)}",
        )
    )
    return [lines]


def indexed(w: Writer, scope: Scope) -> list[str]:
    """Single elements and slices."""
    group, name, grid = _holder(w, scope, "list"), w.fresh(scope), _holder(w, scope, "grid")
    low = w.between(0, 3)
    line = w.pick(
        (
            f"{name} = {group}[-1]",
            f"{name} = {group}[{low}]",
            f"{group}[{low}] = {atom(w, scope)}",
            f"{name} = {group}[{low}:]",
            f"{name} = {group}[:{low + 1}]",
            f"{name} = {group}[{low}:{low + w.between(1, 5)}]",
            f"{name} = {group}[::-1]",
            f"{name} = {grid}[{w.pick('0123ij')}][{w.pick('0123jx')}]",
            f"{grid}[{w.pick('0123ijx')}][{w.pick('0123jy')}] = {atom(w, scope)}",
            f"{name} = {group}[len({group}) - 1]",
        )
    )
    return [line]


def check(w: Writer, scope: Scope) -> list[str]:
    """A guard that raises or asserts, with its message."""
    error = w.pick(words.EXCEPTIONS)
    name = w.pick(scope.all() or ["x"])
    kind = w.pick(("int", "str", "list", "dict", "float"))
    return w.pick(
        (
            [f"if {condition(w, scope)}:", f"    raise {error}({string(w)})"],
            [f"if not {name}:", f"    raise {error}({string(w)})"],
            [f"if {name} is None:", f"    raise {error}({string(w)})"],
            [f"if not isinstance({name}, {kind}):", f"    raise TypeError({string(w)})"],
            [f"if {number(w)} < {num_name(w, scope)} <= {number(w)}:", f"    {string_call(w, scope)}"],
            [f"assert {comparison(w, scope)}, {string(w)}"],
            [f"assert isinstance({name}, {kind})"],
        )
    )


def spread_call(w: Writer, scope: Scope) -> list[str]:
    """A call with an argument a line."""
    named = [f"{name}={atom(w, scope)}," for name in w.many(words.NOUNS[:200], w.between(1, 3))]
    plain = [f"{atom(w, scope)}," for _ in range(w.between(0, 2))]
    name = w.fresh(scope)
    target = f"{name} = " if w.chance(0.6) else ""
    made = w.function() if w.chance(0.6) else w.class_name()
    if target:
        scope.add("obj", name)
    return [f"{target}{made}(", *indent([*plain, *named]), ")"]


def nested_calls(w: Writer, scope: Scope) -> list[str]:
    """Calls within calls, and sums over a generator: several brackets close at once."""
    group, item, name = _holder(w, scope, "list"), w.variable(), w.fresh(scope)
    line = w.pick(
        (
            f"{name} = {w.pick(('sum', 'max', 'min', 'any', 'all'))}({item}.{w.noun()} for {item} in {group})",
            f"{name} = {w.pick(('sum', 'max', 'min'))}(len({item}) for {item} in {group})",
            f"{name} = {w.pick(('list', 'tuple', 'sorted', 'set'))}(set({group}))",
            f"{name} = {w.function()}({w.function()}({w.variable()}))",
            f"{name} = {w.pick(('list', 'dict'))}(zip({group}, {w.plural()}))",
            f"print(len({w.function()}({w.variable()})))",
            f"{name} = str(int({w.variable()}))",
            f"{name} = ({num_name(w, scope)} + {number(w)}) * {number(w)}",
            f"{name} = [{item} for row in {_holder(w, scope, 'grid')} for {item} in row]",
        )
    )
    return [line]


def files(w: Writer, scope: Scope) -> list[str]:
    """Two files at once, a file appended to, or a file read line by line."""
    roll = w.random()
    source = opened(w, named_path(w, True) if w.chance(0.6) else untold_path(w), True)
    quote, name = w.quote(), w.pick(words.FILE_NAMES)
    first, second = w.many(("f", "src", "infile", "source"), 1)[0], w.pick(("g", "out", "dest", "outfile"))
    if roll < 0.35:
        header = f"with {source} as {first}, open({w.pick(words.WRITE_NAMES)}, {quote}w{quote}) as {second}:"
        return [header, f"    {second}.write({first}.read())"]
    if roll < 0.65:
        line = w.known(scope, "str") or w.variable()
        return [f"with open({name}, {quote}a{quote}) as {second}:", f"    {second}.write({line})"]
    found = w.pick(("line.strip()", "line", "line.rstrip()", "line.split()"))
    return [
        f"with {source} as {first}:",
        f"    for line in {first}:",
        f"        {w.plural()}.append({found})" if w.chance(0.6) else f"        {called(w, 'line')}",
    ]


def attribute(w: Writer, scope: Scope) -> list[str]:
    """Attributes of an object read, set and counted up."""
    owner = w.known(scope, "obj") or w.pick(words.OBJECTS)
    owner = owner if owner.isidentifier() else "self"
    name = w.fresh(scope)
    return [
        w.pick(
            (
                f"{owner}.{w.noun()} = {atom(w, scope)}",
                f"{owner}.{w.noun()} += {number(w)}",
                f"{name} = {owner}.{w.noun()}",
                f"{owner}.{w.plural()}.append({atom(w, scope)})",
                f"{owner}.{w.plural()}[{word(w)}] = {atom(w, scope)}",
            )
        )
    ]


IDIOMS: tuple[Callable[[Writer, Scope], list[str]], ...] = (
    keyed,
    keyed,
    keyed,
    tuples,
    tuples,
    indexed,
    check,
    check,
    spread_call,
    nested_calls,
    files,
    attribute,
)


def idiom(w: Writer, scope: Scope) -> list[str]:
    """One of the smaller idioms."""
    return w.pick(IDIOMS)(w, scope)
