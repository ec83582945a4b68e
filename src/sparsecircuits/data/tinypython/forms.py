"""Files that ask one thing after another about form: which bracket is open, whether a string has an f, whether
parameters have defaults, what a file is opened for.

A section keeps to one of these, and the comments and long strings in it are cut from statements of the same sort. So
what is open, or what came last, must be looked for at its place: counting over the section gives the wrong answer.
"""

from __future__ import annotations

from sparsecircuits.data.tinypython import words
from sparsecircuits.data.tinypython.clutter import Statement, clutter
from sparsecircuits.data.tinypython.definitions import file_function, parameters
from sparsecircuits.data.tinypython.expressions import any_list, atom, comparison, number
from sparsecircuits.data.tinypython.file_use import READING, WRITING, named_path, opened, told
from sparsecircuits.data.tinypython.strings import called, fstring, sentence, string, word
from sparsecircuits.data.tinypython.writer import Scope, Writer, indent

LONGEST_ROW = 11
MEMBERS = ("data", "value", "name", "items", "size", "text", "id", "key", "count")


def _name(w: Writer) -> str:
    """A variable's name; a third of them rare, so that what follows a name does not hang on which it is."""
    return w.coined() if w.chance(0.33) else w.variable()


def _expression(w: Writer, kind: float) -> str:
    """A short expression; one kind of draw gives one sort of expression, so that a row can keep to it."""
    if kind < 0.22:
        return number(w)
    if kind < 0.44:
        return _name(w)
    if kind < 0.52:
        return word(w)
    if kind < 0.62:
        return f"{w.variable()} {w.pick('+-*/%')} {w.between(0, 99)}"
    if kind < 0.7:
        return f"{w.variable()} {w.pick('+-*')} {w.variable()}"
    if kind < 0.76:
        return f"-{w.between(1, 99)}"
    if kind < 0.84:
        return f"{w.noun()}.{w.pick(MEMBERS) if w.chance(0.5) else w.noun()}"
    return w.pick(
        (
            f"{w.noun()}.{w.noun()}.{w.pick(MEMBERS)}",
            f"self.{w.noun()}",
            f"-{w.variable()}",
            f"{w.plural()}[{w.between(0, 9)}]",
            f"{w.function()}({w.variable()})",
            f"{w.between(0, 99)} {w.pick('+-*')} {w.variable()}",
            f"len({w.plural()})",
        )
    )


def _before_value(w: Writer, scope: Scope) -> str:
    """What a value may stand behind."""
    name, noun = w.fresh(scope), w.noun()
    return w.pick(
        (
            *(f"{name} = ", f"{name} = ", f"{name}.{noun} = ", f"self.{noun} = ", f"{name} = {noun} or "),
            *(f"{name} = {noun} and ", f"{name} = {noun} = ", f"{name} = not ", f"{name} += ", f"{name} |= "),
            *(f"{name} = {w.variable()} if {noun} else ", f"{w.plural()}[{word(w)}] = ", "return_value = "),
            *(f"{name} = {noun} + ", f"{name} = {noun} == ", f"{name}, {noun} = ", f"assert {noun} in "),
        )
    )


def _row(w: Writer, most: int = LONGEST_ROW) -> str:
    """Items of one sort, of any number."""
    kind = w.random()
    return ", ".join(_expression(w, kind) for _ in range(w.between(1, w.pick((2, 4, 7, most)))))


def _levels(w: Writer, scope: Scope) -> list[str]:
    """Lists of one or two levels, equally often, behind anything; some over several lines, some that end a call."""
    deep = w.chance(0.5)
    if not deep:
        inside = _row(w)
    else:
        inside = ", ".join(f"[{_row(w, 6)}]" for _ in range(w.pick((1, 1, 1, 1, 2, 3))))
    before, roll = _before_value(w, scope), w.random()
    if roll < 0.72:
        return [f"{before}[{inside}]"]
    if roll < 0.82:
        return [f"{before}[", f"    {inside}]"]  # the closing brackets follow their items, as they do on one line
    if roll < 0.9:
        return [f"{before}[", f"    {inside}{w.pick(('', ','))}", "]"]
    return [called(w, f"[{inside}]") if w.chance(0.5) else f"{before}[{inside}] + {w.noun()}"]


def _braces(w: Writer, scope: Scope) -> list[str]:
    """Lists and dicts whose first items are alike."""
    kind = w.random()
    before = _before_value(w, scope)
    after = ""
    roll = w.random()
    if roll < 0.12:
        before, after = f"{before}[{_expression(w, kind)}, ", "]"
    elif roll < 0.24:
        before, after = f"{before}({w.variable()}, ", ")"
    elif roll < 0.38:
        before, after = f"{before}{w.function()}({w.variable()}, ", ")"
    elif roll < 0.46:
        before, after = f"{w.noun()}.{w.pick(('update', 'extend', 'send', 'put'))}(", ")"
    count = w.pick((1, 1, 2, 2, 3, 5))
    if w.chance(0.5):
        values = [any_list(w, scope) if w.chance(0.1) else _expression(w, w.random()) for _ in range(count)]
        body = ", ".join(f"{_expression(w, kind)}: {value}" for value in values)
        left, right = "{", "}"
    else:
        body = ", ".join(_expression(w, kind) for _ in range(count + w.between(0, 1)))
        left, right = "[", "]"
    if w.chance(0.12) and not after:
        return [f"{before}{left}", f"    {body},", right]
    return [f"{before}{left}{body}{right}{after}"]


def _plain_words(w: Writer) -> str:
    """A string of words without an f, often with an article in it."""
    quote = w.quote()
    body = sentence(w).strip()
    if w.chance(0.6):
        body += f"{w.pick((' the', ' the', ' a', ' no', ' each'))} {w.noun().replace('_', ' ')}"
    if w.chance(0.2):
        body += w.pick((" {}", ": %s", " %d", " {0}"))
    return f"{quote}{body}{quote}"


def _value(w: Writer, scope: Scope) -> str:
    """What an f-string shows."""
    roll, name = w.random(), w.known(scope, w.pick(("num", "str", "obj"))) or _name(w)
    if roll < 0.75:
        return name
    return w.pick((f"{name}.{w.noun()}", f"self.{w.noun()}", f"len({w.plural()})", f"{name} + 1", f"{name}:.2f"))


def _shown(w: Writer, scope: Scope) -> str:
    """An f-string of bare words with values after some of them."""
    quote, parts = w.quote(), []
    for _ in range(w.pick((1, 1, 1, 2, 2, 3))):
        pools = (words.NOUNS, words.NOUNS, words.ADJECTIVES, words.VERBS, words.PLURALS)
        parts += [w.pick(w.pick(pools)).replace("_", " ") for _ in range(w.pick((1, 1, 2, 3, 4, 6, 9)))]
        parts.append(f"{{{_value(w, scope)}}}")
    return f"f{quote}{' '.join(parts)}{w.pick(('', '', '', '.', '!', ' ' + w.pick(words.NOUNS)))}{quote}"


def _printed(w: Writer, scope: Scope) -> list[str]:
    """Calls with a string, half of them with an f before it; at the margin or in a block."""
    if w.chance(0.5):
        text = _shown(w, scope) if w.chance(0.7) else fstring(w, scope)
    else:
        text = _plain_words(w) if w.chance(0.7) else string(w)
    before = f"{atom(w, scope)}, " if w.chance(0.25) else ""
    line = f"print({before}{text})" if w.chance(0.6) else called(w, before + text)
    if w.chance(0.35):
        header = w.pick(
            (
                f"if {comparison(w, scope)}:",
                f"if not {w.variable()}:",
                f"for {w.variable()} in {w.plural()}:",
                f"while {w.variable()}:",
                f"def {w.function()}({w.noun()}):",
            )
        )
        return [header, f"    {line}"]
    return [f"{w.fresh(scope)} = {text}"] if w.chance(0.12) else [line]


def _defaults(w: Writer, scope: Scope) -> list[str]:
    """Heads of functions, half of them with defaults from some parameter on, and bodies of a line."""
    names = list(dict.fromkeys(_name(w) for _ in range(w.between(1, 5))))
    first = w.pick(("", "", "", "self", "self", "cls"))
    if w.chance(0.25):
        given = [parameters(w, names)]
    else:
        # Most lists without defaults have none at all, and those with some rarely begin them at the last parameter:
        # so a name after a plain one closes the list, a name after a default has one too.
        plain = len(names) if w.chance(0.6) else min(w.between(0, len(names) - 1), w.between(0, len(names) - 1))
        default = "None" if w.chance(0.85) else w.pick(("0", "1", "True", "False", word(w)))
        given = [name if place < plain else f"{name}={default}" for place, name in enumerate(names)]
    shown = ", ".join([first] * bool(first) + given)
    body = w.pick(("pass", f"return {w.variable()}", called(w, names[0]), f"{w.fresh(scope)} = {names[-1]}"))
    return [f"{'async ' if w.chance(0.08) else ''}def {w.function()}({shown}):", f"    {body}"]


def _opened(w: Writer, scope: Scope) -> list[str]:
    """Files opened for what the function's name, the path's name or a comment says."""
    roll, reading, handle = w.random(), w.chance(0.5), w.pick(words.HANDLES)
    if roll < 0.2:
        return file_function(w)
    use = f"{w.fresh(scope)} = {handle}.read()" if reading else f"{handle}.write({w.variable()})"
    if roll < 0.35:
        path = named_path(w, reading)
        path = f"self.{path}" if w.chance(0.1) else path
        return [f"with {opened(w, path, reading)} as {handle}:", f"    {use}"]
    path = w.pick(words.FILE_NAMES) if w.chance(0.4) else w.coined() if w.chance(0.4) else w.noun()
    if roll < 0.45:
        return [f"# {told(w, reading)}", f"with {opened(w, path, reading)} as {handle}:", f"    {use}"]
    verb, subject = w.pick(READING if reading else WRITING), w.coined() if w.chance(0.25) else w.noun()
    given, place = w.pick(((path, path), (f"self, {path}", path), ("self", f"self.{path}"), ("self", f"self.{path}")))
    before = [f"{w.fresh(scope)} = {_expression(w, w.random())}"] if w.chance(0.15) else []
    inside = [*before, f"with {opened(w, place, reading)} as {handle}:", f"    {use}"]
    return [f"def {verb}_{subject}({given}):", *indent(inside)]


SUBJECTS: tuple[tuple[Statement, int], ...] = ((_levels, 7), (_braces, 5), (_printed, 5), (_defaults, 4), (_opened, 6))
_SUBJECTS = [subject for subject, weight in SUBJECTS for _ in range(weight)]


def section(w: Writer) -> list[str]:
    """Statements of one subject, comments and long strings of the same between them; at the margin or in a function."""
    subject, scope = w.pick(_SUBJECTS), Scope()
    lines: list[str] = []
    for _ in range(w.between(2, 7)):
        if w.chance(w.clutter):
            lines += clutter(w, scope, subject)
        lines += subject(w, scope)
    if subject not in (_defaults, _opened) and w.chance(0.25):
        return [f"def {w.function()}({w.variable()}):", *indent(lines)]
    return lines
