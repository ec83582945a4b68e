"""Statements: each function returns the lines of one statement, relative to where it stands."""

from __future__ import annotations

from sparsecircuits.data.tinypython import bindings, words
from sparsecircuits.data.tinypython.clutter import clutter, prose
from sparsecircuits.data.tinypython.expressions import (
    VALUES,
    any_list,
    argument,
    arithmetic,
    atom,
    call,
    comparison,
    condition,
    dict_literal,
    flat_list,
    lambda_expr,
    nested_list,
    num_name,
    number,
    spread_literal,
    ternary,
)
from sparsecircuits.data.tinypython.file_use import with_open
from sparsecircuits.data.tinypython.idioms import idiom
from sparsecircuits.data.tinypython.strings import called, string_call, string_value, word
from sparsecircuits.data.tinypython.writer import Scope, Writer, indent

TAKEN_OUT = 5  # the depth at which statements stand that are comments: deeper than any others
HINTS = {"num": "int", "str": "str", "flag": "bool"}


def assign(w: Writer, scope: Scope) -> list[str]:
    """`name = value`, with a new name or an old one."""
    kind = w.pick(("num", "num", "num", "str", "list", "grid", "dict", "obj", "flag", "flag"))
    old = w.known(scope, kind)
    name = old if old and w.chance(0.45) else w.fresh(scope)
    if kind == "flag" and not old:
        name = w.skewed(words.FLAGS)
    if kind in ("list", "grid", "dict") and name != old:
        name = w.plural() if w.chance(0.7) else name
    if kind in ("list", "grid", "dict") and w.chance(0.15):
        first, *rest = spread_literal(w, scope)
        scope.add("dict" if first[0] == "{" else "list", name)
        return [f"{name} = {first}", *rest]
    value = ternary(w, scope) if w.chance(0.14) else VALUES[kind](w, scope)
    if kind == "num" and w.chance(0.5):
        value = number(w)
    hint = f": {HINTS[kind]}" if w.typed and kind in HINTS else ""
    scope.add(kind, name)
    return [f"{name}{hint} = {value}"]


def literal(w: Writer, scope: Scope) -> list[str]:
    """A list of one or two levels, or a dict, assigned or passed on."""
    roll = w.random()
    kind, value = (
        ("list", flat_list) if roll < 0.33 else ("grid", nested_list) if roll < 0.8 else ("dict", dict_literal)
    )
    if w.chance(0.6):
        name = w.fresh(scope, words.PLURALS, words.NOUNS, words.LETTERS)
        text = value(w, scope)
        if w.chance(0.3):
            flag = w.known(scope, "flag") or w.variable()
            other = w.known(scope, kind) or w.plural()
            go_on = (f" + {other}", f" if {flag} else {other}", f" or {other}", f" + {value(w, scope)}")
            text += w.pick(go_on if kind != "dict" else go_on[1:3])
        scope.add(kind, name)
        return [f"{name} = {text}"]
    text = value(w, scope)
    holder = w.known(scope, "list") or w.plural()
    return [
        w.pick(
            (
                called(w, text),
                f"{holder}.{w.pick(('append', 'extend', 'remove'))}({text})",
                f"{holder} += {text}",
                f"return {text}" if w.chance(0.1) else f"{holder} = {holder} + {text}",
                call(w, scope, f"{w.function()}") + f".{w.pick(words.VERBS)}({text})",
                f"assert {w.function()}({argument(w, scope)}) == {text}",
                f"for {w.fresh(scope)} in {text}: {called(w, w.variable())}",
                f"{w.function()}({atom(w, scope)}, {text})",
                f"{w.function()}({text}, {argument(w, scope)})",
            )
        )
    ]


def augment(w: Writer, scope: Scope) -> list[str]:
    """`x += 1` and its kin."""
    name = w.known(scope, "num")
    if not name:
        return assign(w, scope)
    value = number(w) if w.chance(0.6) else arithmetic(w, scope)
    return [f"{name} {w.pick(('+=', '+=', '+=', '-=', '*='))} {value}"]


def loop_header(w: Writer, scope: Scope) -> str:
    """A for loop's header: range and enumerate equally often, else over a collection."""
    roll = w.random()
    group = w.known(scope, "list") or w.known(scope, "grid") or w.plural()
    if w.chance(0.5):
        group = w.plural()
    if roll < 0.28:
        name = w.pick("iiijknxyt") if w.chance(0.75) else w.fresh(scope)
        stop = w.pick((number(w), number(w), f"len({group})", num_name(w, scope), f"1, {num_name(w, scope)}"))
        return f"for {name} in range({stop}):"
    if roll < 0.56:
        name = w.pick("iiijknxy") if w.chance(0.75) else w.pick(("index", "idx", "pos", "number", "row"))
        return f"for {name}, {w.fresh(scope)} in enumerate({group}{', 1' if w.chance(0.1) else ''}):"
    if roll < 0.66:
        pairs = w.known(scope, "dict") or w.noun()
        return f"for {w.pick(('key', 'name', 'k', 'x', 'word'))}, {w.fresh(scope)} in {pairs}.items():"
    return f"for {w.fresh(scope)} in {group}:"


def for_loop(w: Writer, scope: Scope, depth: int) -> list[str]:
    """A for loop with its block."""
    header = loop_header(w, scope)
    inner = scope.copy()
    for name in header[4 : header.index(" in ")].split(", "):
        inner.add("num" if "range" in header else "obj", name)
    body = block(w, inner, depth + 1, w.pick((1, 1, 2, 2, 3)))
    if w.chance(0.06):
        body = [f"if {condition(w, inner)}:", "    continue", *body]
    elif w.chance(0.04):
        body += [f"if {condition(w, inner)}:", "    break"]
    return [header, *indent(body)]


def while_loop(w: Writer, scope: Scope, depth: int) -> list[str]:
    """`while True:` with a way out, or a loop on a condition."""
    inner = scope.copy()
    body = block(w, inner, depth + 1, w.pick((1, 1, 2, 3)))
    roll = w.random()
    if roll < 0.45:
        leave = [
            f"if {condition(w, inner)}:",
            f"    {w.pick(('break', 'break', 'return True', 'return', 'return False'))}",
        ]
        return ["while True:", *indent(body + leave if w.chance(0.6) else leave + body)]
    if roll < 0.7:
        name = w.skewed(words.FLAGS) if w.chance(0.5) else w.variable()
        return [
            f"while {name}:",
            *indent([*body, f"{name} = {w.pick(('False', f'{w.pick(words.VERBS)}({name})'))}"]),
        ]
    if roll < 0.75:
        name = w.variable()
        return [f"while {comparison(w, scope)}: {name} = {w.pick(words.VERBS)}({name})"]
    return [f"while {condition(w, scope)}:", *indent([*body, *augment(w, inner)])]


def if_chain(w: Writer, scope: Scope, depth: int) -> list[str]:
    """if, with elif and else as they come."""
    if w.chance(0.08):
        return [f"if {condition(w, scope)}: {w.pick(('return', 'continue_ = True', called(w, word(w)), 'x = 0'))}"]
    lines = [f"if {condition(w, scope)}:", *indent(block(w, scope.copy(), depth + 1, w.pick((1, 1, 1, 2))))]
    for _ in range(w.pick((0, 0, 0, 1, 1, 2))):
        lines += [
            f"elif {condition(w, scope)}:",
            *indent(block(w, scope.copy(), depth + 1, w.pick((1, 1, 2)))),
        ]
    if w.chance(0.5):
        lines += ["else:", *indent(block(w, scope.copy(), depth + 1, w.pick((1, 1, 2))))]
    return lines


def try_block(w: Writer, scope: Scope, depth: int) -> list[str]:
    """try with except, else and finally as they come."""
    lines = ["try:", *indent(block(w, scope.copy(), depth + 1, 1))]
    closing = w.pick((f"{w.pick(words.HANDLES)}.close()", called(w, word(w)), f"{w.skewed(words.FLAGS)} = False"))
    if w.chance(0.1):
        return [*lines, "finally:", *indent([closing])]
    for error in w.many(words.EXCEPTIONS[:-1], w.pick((1, 1, 1, 1, 2))):
        bound = w.pick(("", "", " as e", " as error"))
        lines += [f"except {error}{bound}:"]
        lines += indent([w.pick((string_call(w, scope), "pass", "return None", "return False", "raise"))])
    if w.chance(0.12):
        lines += ["else:", *indent(block(w, scope.copy(), depth + 1, 1))]
    return [*lines, "finally:", *indent([closing])] if w.chance(0.18) else lines


def text_call(w: Writer, scope: Scope) -> list[str]:
    """A call on a string that ends the line."""
    return [string_call(w, scope)]


def text_use(w: Writer, scope: Scope) -> list[str]:
    """A call on a string in the middle of a line."""
    value = string_value(w, scope)
    if w.chance(0.12):
        return [f"return {value}"] if w.chance(0.3) else [f"assert {value}"]
    name = w.fresh(scope)
    scope.add("str", name)
    return [f"{name} = {value}"]


def functional(w: Writer, scope: Scope) -> list[str]:
    """Lambdas: given a name, or as a key."""
    group = w.known(scope, "list") or w.plural()
    name = w.fresh(scope)
    made = lambda_expr(w, scope)
    roll = w.pick(
        (
            f"{name} = {made}",
            f"{name} = {made}",
            f"{group}.sort(key={made})",
            f"{name} = sorted({group}, key={made})",
            f"{name} = list(map({made}, {group}))",
            f"{name} = list(filter({made}, {group}))",
            f"{name} = {w.pick(('max', 'min'))}({group}, key={made})",
        )
    )
    return [roll]


def comprehension(w: Writer, scope: Scope) -> list[str]:
    """A list, set or dict comprehension."""
    item, group, name = w.fresh(scope), w.plural(), w.fresh(scope)
    test = f" if {item} {w.pick(('>', '==', '!='))} {number(w)}" if w.chance(0.4) else ""
    body = w.pick(
        (
            item,
            f"{item} * {number(w)}",
            f"{item}.{w.noun()}",
            f"len({item})",
            f"{item}: {w.pick(words.VERBS)}({item})",
        )
    )
    left, right = ("{", "}") if ":" in body or w.chance(0.15) else ("[", "]")
    scope.add("dict" if ":" in body else "list", name)
    return [f"{name} = {left}{body} for {item} in {group}{test}{right}"]


def plain_call(w: Writer, scope: Scope) -> list[str]:
    """A call whose result may be kept."""
    if w.chance(0.5):
        return [call(w, scope)]
    name = w.fresh(scope)
    text = call(w, scope)
    scope.add("obj", name)
    return [f"{name} = {text}"]


def method_use(w: Writer, scope: Scope) -> list[str]:
    """What the scope's own sets, strings, lists and dicts are used for."""
    kind = w.pick(("set", "str", "list", "dict", "grid"))
    name = w.known(scope, kind)
    if not name:
        return assign(w, scope)
    value = atom(w, scope)
    return [
        {
            "set": f"{name}.add({value})",
            "str": f"{name} += {word(w)}",
            "list": f"{name}.{w.pick(('append', 'append', 'remove', 'index'))}({value})",
            "grid": f"{name}.append({any_list(w, scope)})",
            "dict": f"{name}[{word(w)}] = {value}",
        }[kind]
    ]


def accumulators(w: Writer, scope: Scope) -> list[str]:
    """Names that are started and filled."""
    return bindings.accumulators(w, scope, between)


def swap(w: Writer, scope: Scope) -> list[str]:
    """Places that trade their values."""
    return bindings.swap(w, scope, between)


def between(w: Writer, scope: Scope) -> list[str]:
    """What may stand between a name's making and its use: anything short, clutter too."""
    if w.chance(w.clutter):
        return clutter(w, scope, _taken_out)
    return w.pick((assign, assign, text_call, literal, plain_call, augment, idiom))(w, scope)


SIMPLE = (
    (assign, 20), (literal, 16), (text_call, 20), (text_use, 12), (swap, 6), (augment, 4), (accumulators, 12),
    (with_open, 7), (functional, 6), (comprehension, 2), (plain_call, 7), (method_use, 8), (idiom, 13),
)  # fmt: skip
COMPOUND = ((for_loop, 10), (while_loop, 6), (if_chain, 12), (try_block, 2))
_SIMPLE = [function for function, weight in SIMPLE for _ in range(weight)]
_COMPOUND = [function for function, weight in COMPOUND for _ in range(weight)]


def statement(w: Writer, scope: Scope, depth: int) -> list[str]:
    """One statement, with what stands before it; compound ones become rare with depth."""
    before = clutter(w, scope, _taken_out) if depth < TAKEN_OUT and w.chance(w.clutter) else []
    if w.chance((0.32, 0.26, 0.18, 0.08)[depth] if depth < 4 else 0.0):
        return before + w.pick(_COMPOUND)(w, scope, depth)
    lines = w.pick(_SIMPLE)(w, scope)
    return [*before, f"# {prose(w)}", *lines] if w.chance(w.comments) else before + lines


def _taken_out(w: Writer, scope: Scope) -> list[str]:
    """A statement that may stand in a comment: it holds none itself."""
    return w.pick(_COMPOUND)(w, scope, TAKEN_OUT - 1) if w.chance(0.3) else w.pick(_SIMPLE)(w, scope)


def block(w: Writer, scope: Scope, depth: int, count: int) -> list[str]:
    """`count` statements, never none."""
    lines: list[str] = []
    for _ in range(max(count, 1)):
        lines += statement(w, scope, depth)
    return lines
