"""Functions and classes."""

from __future__ import annotations

from sparsecircuits.data.tinypython import words
from sparsecircuits.data.tinypython.expressions import atom, call, condition, number, ternary
from sparsecircuits.data.tinypython.file_use import READING, WRITING, named_path, opened, untold_path
from sparsecircuits.data.tinypython.statements import block
from sparsecircuits.data.tinypython.strings import sentence, string_call, string_value, word
from sparsecircuits.data.tinypython.writer import Scope, Writer, indent

PARAM_KINDS = ("num", "num", "str", "list", "obj", "flag")


def _names(w: Writer, count: int) -> list[str]:
    pool = words.LETTERS if w.chance(w.short_names) else words.NOUNS if w.chance(0.8) else words.PLURALS
    names: list[str] = []
    while len(names) < count:
        name = w.skewed(pool)
        if name not in names:
            names.append(name)
    return names


def parameters(w: Writer, names: list[str]) -> str:
    """A parameter list: once one has a default, all that follow have one."""
    plain = len(names) if w.chance(0.5) else w.between(0, len(names))
    shown = []
    for position, name in enumerate(names):
        hint = f": {w.pick(words.TYPES)}" if w.typed else ""
        if position < plain:
            shown.append(f"{name}{hint}")
            continue
        default = (
            "None"
            if w.default == "None" and w.chance(0.9)
            else w.pick((number(w), "True", "False", word(w), w.quote() * 2, "None"))
        )
        shown.append(f"{name}{hint} = {default}" if hint else f"{name}={default}")
    if names and w.chance(0.03):
        shown += [f"*{more}" for more in w.pick((["args"], ["*kwargs"], ["args", "*kwargs"])) if more not in names]
    return ", ".join(shown)


def returned(w: Writer, scope: Scope) -> str:
    """A return statement's value."""
    roll = w.random()
    if roll < 0.3:
        return w.pick(scope.all() or ["None"])
    if roll < 0.5:
        return w.pick(("True", "True", "True", "False", "None"))
    if roll < 0.62:
        return ternary(w, scope)
    if roll < 0.72:
        return call(w, scope)
    return string_value(w, scope) if roll < 0.82 else atom(w, scope)


def _docstring(w: Writer) -> list[str]:
    return [f'"""{sentence(w).strip().capitalize()}."""'] if w.chance(w.docstrings) else []


def _ending(w: Writer, scope: Scope) -> list[str]:
    roll = w.random()
    if roll < 0.03:
        item = w.variable()
        return [f"for {item} in {w.known(scope, 'list') or w.plural()}:", f"    yield {item}"]
    if roll < 0.22:
        return []
    if roll < 0.36:
        item, group = w.variable(), w.known(scope, "list") or w.plural()
        scope.add("obj", item)
        found = ["        return True", "return False"] if w.chance(0.6) else [f"        return {item}", "return None"]
        return [f"for {item} in {group}:", f"    if {condition(w, scope)}:", *found]
    if roll < 0.5:
        return [
            f"if {condition(w, scope)}:",
            f"    return {returned(w, scope)}",
            f"return {returned(w, scope)}",
        ]
    if roll < 0.58:
        inner = f"    return {w.pick(('True', 'True', returned(w, scope)))}"
        return [f"if {condition(w, scope)}:", inner, "else:", f"    return {returned(w, scope)}"]
    return [f"return {returned(w, scope)}"]


def function(w: Writer, method: bool = False, attributes: tuple[str, ...] = ()) -> list[str]:
    """A function or, with self first, a method."""
    names = _names(w, w.pick((0, 1, 1, 2, 2, 2, 3, 3, 4, 5)))
    shown = parameters(w, names)
    if method:
        shown = f"self, {shown}" if shown else "self"
    scope = Scope()
    for name in names:
        scope.add(w.pick(PARAM_KINDS), name)
    for name in attributes:
        scope.add(w.pick(PARAM_KINDS), f"self.{name}")
    name = w.function() if w.chance(0.9) else w.pick(words.LETTERS)
    arrow = f" -> {w.pick((*words.TYPES, 'None'))}" if w.typed else ""
    if w.chance(0.04):
        return [f"def {name}({shown}){arrow}: return {returned(w, scope)}"]
    body = (
        _docstring(w)
        + block(w, scope, 1, w.pick((1, 1, 2, 2, 3, 4)) if not method else w.pick((1, 1, 1, 2, 2)))
        + _ending(w, scope)
    )
    return [f"def {name}({shown}){arrow}:", *indent(body)]


def file_function(w: Writer) -> list[str]:
    """A function that loads or saves, named for what it does."""
    reading = w.chance(0.5)
    path = named_path(w, reading) if w.chance(0.2) else untold_path(w)
    verb = w.pick(READING if reading else WRITING)
    noun, handle = w.noun(), w.pick(words.HANDLES)
    given = [path] if path.isidentifier() else []
    if not reading:
        given.insert(w.between(0, len(given)), noun)
    name = f"{verb}_{noun}" if w.chance(0.8) else f"{verb}_file"
    if reading:
        body = w.pick(([f"return {handle}.read()"], [f"return json.load({handle})"], [f"{noun} = {handle}.read()"]))
    else:
        body = w.pick(([f"{handle}.write({noun})"], [f"json.dump({noun}, {handle})"], [f"{handle}.write(str({noun}))"]))
    given = list(dict.fromkeys(name.split(".")[-1] for name in given))
    inside = [f"with {opened(w, path, reading)} as {handle}:", *indent(body)]
    return [f"def {name}({', '.join(given)}):", *indent(inside)]


def class_definition(w: Writer) -> list[str]:
    """A class whose __init__ stores its parameters."""
    names = _names(w, w.pick((1, 2, 2, 3, 3, 4, 5)))
    base = f"({w.pick(('object', 'Base', 'Exception', w.class_name(), w.class_name()))})" if w.chance(0.25) else ""
    stores = [f"self.{name} = {name}" for name in names]
    if w.chance(0.15):
        w.rng.shuffle(stores)
    for _ in range(w.pick((0, 0, 0, 1, 2))):
        extra = w.noun()
        if extra not in names:
            stores.insert(
                w.pick((0, len(stores), len(stores))),
                f"self.{extra} = {w.pick(('None', '0', '[]', 'set()', '{}', 'False', number(w)))}",
            )
    if base and w.chance(0.4):
        stores.insert(0, "super().__init__()")
    lines = [*_docstring(w), ""] if w.chance(0.5) else []
    lines = lines if lines[:1] != [""] else []
    lines += [f"def __init__(self, {parameters(w, names)}):", *indent(stores)]
    for _ in range(w.pick((0, 1, 1, 2, 2, 3))):
        lines += ["", *_method(w, tuple(names))]
    return [f"class {w.class_name()}{base}:", *indent(lines)]


def _method(w: Writer, attributes: tuple[str, ...]) -> list[str]:
    roll = w.random()
    name = w.pick(attributes)
    if roll < 0.12:
        return [f"def get_{name}(self):", f"    return self.{name}"]
    if roll < 0.24:
        return [f"def set_{name}(self, {name}):", f"    self.{name} = {name}"]
    if roll < 0.34:
        shown = f"{{self.{name}}}"
        quote = w.quote()
        return [
            f"def {w.pick(('__str__', '__repr__', 'describe'))}(self):",
            f"    return f{quote}{sentence(w)} {shown}{quote}",
        ]
    if roll < 0.44:
        return [f"def {w.function()}(self):", f"    {string_call(w, Scope())}"]
    if roll < 0.5:
        other = w.pick(attributes)
        test = f"self.{name} {w.pick(('==', '==', '<'))} other.{name}"
        return w.pick(
            (
                ["@property", f"def {name}(self):", f"    return self._{name}"],
                ["@property", f"def {w.function()}(self):", f"    return len(self.{name})"],
                ["@staticmethod", f"def {w.function()}({name}):", f"    return {call(w, Scope())}"],
                ["@classmethod", f"def from_{name}(cls, {name}):", f"    return cls({name})"],
                ["def __len__(self):", f"    return len(self.{name})"],
                ["def __eq__(self, other):", f"    return {test}"],
                [f"def {w.function()}(self):", f"    self.{name} += {number(w)}", f"    return self.{other}"],
            )
        )
    return function(w, method=True, attributes=attributes)
