"""What a name was bound to decides how it is used, lines later: sets, strings, lists and numbers that are filled, and
places that trade their values.

To say what follows `found` in `    found`, a model must look back for the line that made it, past others like it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

from sparsecircuits.data.tinypython import words
from sparsecircuits.data.tinypython.expressions import atom, comparison, number
from sparsecircuits.data.tinypython.strings import word
from sparsecircuits.data.tinypython.writer import Scope, Writer, indent

Filler = Callable[[Writer, Scope], list[str]]
"""Draws the lines of a statement that stands between what a name is and how it is used."""


def _start(w: Writer, kind: str) -> str:
    """A value of that kind to begin with, mostly an empty one."""
    usual = {"set": "set()", "str": w.quote() * 2, "list": "[]", "num": "0", "dict": "{}"}[kind]
    if w.chance(0.85):
        return usual
    return {
        "set": f"set({w.plural()})",
        "str": word(w),
        "list": f"list({w.plural()})",
        "num": number(w),
        "dict": "dict()",
    }[kind]


def _filled(w: Writer, name: str, kind: str, item: str) -> str:
    """What is done to something of that kind, with `item`."""
    value = w.pick((item, item, f"{item}.{w.noun()}", f"{item}[{w.between(0, 2)}]", f"{w.skewed(words.VERBS)}({item})"))
    return {
        "set": f"{name}.add({value})",
        "str": f"{name} += {w.pick((value, value, f'str({value})', f'{value} + {word(w)}', word(w)))}",
        "list": f"{name}.append({value})",
        "num": f"{name} += {w.pick(('1', '1', value, f'len({value})'))}",
        "dict": f"{name}[{item}] = {w.pick((value, number(w), word(w)))}",
    }[kind]


def _name(w: Writer) -> str:
    """A name for something that is filled: any, so that the name does not tell its kind."""
    roll = w.random()
    if roll < 0.16:
        return "current"
    if roll < 0.5:
        return w.pick(words.ACCUMULATORS)
    if roll < 0.7:
        return w.pick(words.PLURALS)
    if roll < 0.85:
        return w.noun()
    return w.pick(words.LETTERS) if roll < 0.92 else f"{w.pick(words.ADJECTIVES)}_{w.pick(words.PLURALS)}"


def _kinds(w: Writer, count: int) -> list[str]:
    """Kinds of as many names; sets and strings, whose uses are told apart only by what they are, are the most."""
    pool = ("set", "set", "set", "str", "str", "str", "list", "num", "dict")
    return [w.pick(pool) for _ in range(count)]


def _started(w: Writer, kinds: dict[str, str], owner: str) -> list[str]:
    """The lines that bind each name."""
    start = functools.partial(_start, w)
    if len(kinds) == 2 and w.chance(0.08):
        left, right = (", ".join(parts) for parts in ((owner + name for name in kinds), map(start, kinds.values())))
        return [f"{left} = {right}"]
    return [f"{owner}{name} = {start(kind)}" for name, kind in kinds.items()]


def _led(w: Writer, scope: Scope) -> tuple[str, str]:
    """What a use stands under ("" for nothing), and the name that it brings."""
    item, other = w.fresh(scope), w.plural()
    roll = w.random()
    if roll < 0.3:
        return "", w.pick(scope.all() or [item])
    if roll < 0.58:
        group = w.known(scope, "list") or other
        return w.pick((f"for {item} in {group}:", f"for {item} in {w.skewed(words.VERBS)}({group}):")), item
    if roll < 0.66:
        return f"for {w.pick('ijkn')}, {item} in enumerate({other}):", item
    if roll < 0.84:
        test = w.pick(
            (f"{item} in {other}", item, comparison(w, scope), f"{item} == {w.noun()}", f"not {w.noun()}.{w.noun()}")
        )
        return f"if {test}:", item
    if roll < 0.92:
        return f"while {w.pick((item, comparison(w, scope)))}:", item
    return f"with {w.skewed(words.VERBS)}({other}) as {item}:", item


def _uses(w: Writer, scope: Scope, kinds: dict[str, str], owner: str, most: int) -> list[str]:
    """1 to `most` lines that fill what was started, each alone or under something."""
    lines = []
    for _ in range(w.between(1, most)):
        header, item = _led(w, scope)
        chosen = w.many(sorted(kinds), w.pick((1, 1, 1, 2)))
        body = [_filled(w, owner + name, kinds[name], item) for name in chosen]
        lines += [header, *indent(body)] if header else body
    return lines


def accumulators(
    w: Writer, scope: Scope, filler: Filler, most: int = 3, name_of: Callable[[Writer], str] = _name
) -> list[str]:
    """Sets, strings, lists, numbers and dicts started, then filled in 1 to `most` places, with other statements between
    or none."""
    names: list[str] = []
    for _ in range(w.pick((1, 2, 2, 2, 3, 3, 4))):
        name = name_of(w)
        if name not in names:
            names.append(name)
    kinds = dict(zip(names, _kinds(w, len(names)), strict=True))
    owner = w.pick(("self.", f"{w.pick(words.OBJECTS)}.")) if w.chance(0.06) else ""
    lines = _started(w, kinds, owner)
    for _ in range(w.pick((0, 0, 0, 0, 1, 1, 2, 3))):
        lines += filler(w, scope)
    lines += _uses(w, scope, kinds, owner, most)
    if not owner:
        for name, kind in kinds.items():
            scope.add(kind, name)
    return lines


def recalled(w: Writer, scope: Scope) -> list[str]:
    """Two to four names of different kinds, then line after line that uses one of them and holds little else: in every
    few tokens one that only the line that bound the name tells."""
    names = list(dict.fromkeys(_name(w) for _ in range(w.pick((2, 2, 3, 3, 4)))))
    kinds = {name: w.pick(("set", "set", "str", "str", "list", "num", "dict")) for name in names}
    lines = _started(w, kinds, "")
    for _ in range(w.between(3, 10)):
        name, item = w.pick(names), w.pick((w.noun(), w.noun(), w.pick(words.LETTERS)))
        value = w.pick((item, item, item, word(w)))
        use = {
            "set": f"{name}.add({value})",
            "str": f"{name} += {value}",
            "list": f"{name}.append({value})",
            "num": f"{name} += {w.pick((item, '1'))}",
            "dict": f"{name}[{item}] = {w.noun()}",
        }[kinds[name]]
        header = _led(w, scope)[0] if w.chance(0.25) else ""
        lines += [header, *indent([use])] if header else [use]
    return lines


def _traded(w: Writer, scope: Scope) -> tuple[str, str]:
    """Two names that trade places."""
    known, roll = scope.all(), w.random()
    if len(known) > 1 and roll < 0.3:
        first, second = w.many(known, 2)
    elif roll < 0.55:
        first, second = w.many(words.LETTERS[:8], 2)
    elif roll < 0.7:
        first, second = w.many(words.NOUNS, 2)
    else:
        letter = w.pick("xy") if w.chance(0.4) else w.pick(words.LETTERS)
        first, second = w.many((letter, w.pick(words.NOUNS) if w.chance(0.7) else w.pick(words.PLURALS)), 2)
    return first, second


def swap(w: Writer, scope: Scope, filler: Filler) -> list[str]:
    """Two places that trade their values, or three; sometimes after the lines that made them."""
    first, second = _traded(w, scope)
    lines: list[str] = []
    if w.chance(0.4) and all(name.isidentifier() for name in (first, second)):
        others = [w.noun() for _ in range(w.pick((0, 1, 1)))]
        lines = [f"{name} = {atom(w, scope)}" for name in _shuffled(w, dict.fromkeys([first, second, *others]))]
        for _ in range(w.pick((0, 0, 1, 2))):
            lines += filler(w, scope)
    if w.chance(0.12):
        group = w.plural()
        first, second = f"{group}[{first}]", f"{group}[{second}]"
    roll = w.random()
    if roll < 0.08:
        third = w.fresh(scope)
        traded = [f"{first}, {second}, {third} = {second}, {third}, {first}"]
    else:
        traded = [f"{first}, {second} = {second}, {first}" + (f" {w.pick('+-*%')} {second}" if roll < 0.16 else "")]
        if roll > 0.85:
            one, other = _traded(w, scope)
            traded.append(f"{one}, {other} = {other}, {one}")
    if w.chance(0.4):
        test = w.pick((f"{first} > {second}", f"{second} < {first}", w.noun(), comparison(w, scope)))
        header = w.pick((f"if {test}:", f"if {test}:", f"while {test}:", f"for {w.variable()} in {w.plural()}:"))
        traded = [header, *indent(traded)]
    return lines + traded


def _shuffled(w: Writer, names: Iterable[str]) -> list[str]:
    mixed = list(names)
    w.rng.shuffle(mixed)
    return mixed
