"""String literals: what they say, how they are quoted, and calls that take them."""

from __future__ import annotations

from sparsecircuits.data.tinypython import words
from sparsecircuits.data.tinypython.writer import Scope, Writer

ENDS = (
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    ".",
    "!",
    "?",
    ":",
    ": ",
    " ",
    "...",
    ", ",
    " -",
    "\\n",
    " (y/n)",
    " =",
)
JOINS = (
    " ",
    " ",
    " ",
    " ",
    " ",
    " ",
    " ",
    " ",
    ", ",
    " - ",
    ": ",
    " and ",
    " the ",
    " of ",
    " to ",
    " is ",
    "_",
    "-",
)
SENTENCES = (
    "{v} the {n}",
    "no {n} found",
    "the {n} is {a}",
    "{n} not found",
    "please {v} the {n}",
    "{a} {n}",
    "could not {v} {n}",
    "{v} {p} and {v} the {n}",
    "there are no {a} {p}",
    "this {n} has {p}",
    "enter your {n}",
    "all {p} are {a}",
    "welcome to the {n}",
    "{n} is not {a}, {v} it",
    "which {n} do you want to {v}",
    "you have to {v} a {a} {n} first",
    "{v}",
    "{n}",
    "{p}",
    "{n} {n}",
)
FORMATS = ("%s", "%d", "{}", "{0}", "%s: %s", "{} of {}", "%s %d", "{}: {}", "%.2f", "{:.2f}")
TEXT_METHODS = ("get", "find", "count", "split", "join", "index", "replace_all", "ask")
CONTRACTIONS = ("can't", "don't", "it's", "isn't", "won't", "that's", "didn't", "there's")


def _word(w: Writer) -> str:
    pool = w.pick((words.NOUNS, words.NOUNS, words.PLURALS, words.VERBS, words.ADJECTIVES))
    return w.pick(pool).replace("_", " ")


def sentence(w: Writer) -> str:
    """A few words as programs print them, without quotes or braces."""
    if w.chance(0.4):
        text = w.pick(SENTENCES).format(
            v=w.pick(words.VERBS).replace("_", " "),
            n=w.skewed(words.NOUNS).replace("_", " "),
            p=w.pick(words.PLURALS),
            a=w.pick(words.ADJECTIVES),
        )
    else:
        text = _word(w)
        for _ in range(w.pick((0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 6, 8, 10, 12, 15, 19))):
            text += w.pick(JOINS) + _word(w)
    case = w.random()
    if case < 0.3:
        text = text.capitalize()
    elif case < 0.34:
        text = text.upper()
    elif case < 0.38:
        text = text.title()
    return text + w.pick(ENDS)


def content(w: Writer, quote: str) -> str:
    """The inside of a string that `quote` will close."""
    text = sentence(w)
    if w.chance(0.04):
        text = f"{w.pick(CONTRACTIONS)} {text}" if quote == '"' else f'"{_word(w)}" {text}'
    if w.chance(0.05):
        text = f"{text}{w.pick((' ', ': ', ' - '))}{w.pick(FORMATS)}"
    return text


def string(w: Writer) -> str:
    """A string literal with its own choice of quotes."""
    quote = w.quote()
    return f"{quote}{content(w, quote)}{quote}"


def word(w: Writer) -> str:
    """A one-word string literal, as in keys and names."""
    quote = w.quote()
    return f"{quote}{w.skewed(words.NOUNS) if w.chance(0.7) else _word(w)}{quote}"


def filename(w: Writer) -> str:
    """A literal file name."""
    quote = w.quote()
    folder = f"{w.pick(words.PLURALS)}/" if w.chance(0.25) else ""
    return f"{quote}{folder}{w.skewed(words.NOUNS)}.{w.pick(words.EXTENSIONS)}{quote}"


def fstring(w: Writer, scope: Scope) -> str:
    """An f-string around one or two names of the scope."""
    quote = w.quote()
    names = [name for kind in ("num", "str", "obj", "list") for name in scope.names[kind]] or [w.variable()]
    shown = w.pick(names)
    if w.chance(0.2):
        shown = w.pick((f"{shown}:.2f", f"len({shown})", f"{shown} + 1", f"self.{w.noun()}", f"{shown}.{w.noun()}"))
    lead = w.random()
    if lead < 0.15:
        body = f"{{{shown}}} {sentence(w)}"
    elif lead < 0.9:
        gap = w.pick((" ", " ", " ", ": ", " = ", ", "))
        body = f"{sentence(w).rstrip(' ')}{gap}{{{shown}}}{w.pick(('', '', '', '.', '!', ' ' + _word(w)))}"
    else:
        body = f"{{{shown}}}"
    if w.chance(0.25):
        body += f"{w.pick((' ', ', ', ' and ', ' of ', ' - '))}{{{w.pick(names)}}}"
    return f"f{quote}{body}{quote}"


def text_value(w: Writer, scope: Scope) -> str:
    """Some string: mostly a literal."""
    roll = w.random()
    if roll < 0.74:
        return string(w)
    return fstring(w, scope) if roll < 0.9 else w.known(scope, "str") or string(w)


def called(w: Writer, argument: str) -> str:
    """A call that closes right after `argument`."""
    roll = w.random()
    if roll < 0.42:
        return f"print({argument})"
    if roll < 0.72:
        receiver = w.pick(words.OBJECTS) if w.chance(0.75) else f"self.{w.noun()}"
        return f"{receiver}.{w.pick(words.OBJECT_VERBS)}({argument})"
    if roll < 0.9:
        return f"{w.function()}({argument})"
    return f"{w.pick(words.VERBS)}({argument})"


def _led(w: Writer, scope: Scope) -> str:
    """What stands in a call before a string: arguments, and a keyword or not."""
    names = scope.all() or ["x"]
    before = [w.pick(names) if w.chance(0.6) else str(w.between(0, 20)) for _ in range(w.pick((0, 1, 1, 1, 2, 3)))]
    keyword = f"{w.noun()}=" if not before or w.chance(0.3) else ""
    return "".join(f"{text}, " for text in before) + keyword


def string_call(w: Writer, scope: Scope) -> str:
    """A call statement whose argument, usually the only one, is a string."""
    roll = w.random()
    if roll < 0.4:
        return called(w, string(w))
    if roll < 0.66:
        return called(w, fstring(w, scope))
    if roll < 0.74:
        return called(w, f"{string(w)}, {w.pick(scope.all() or ['x'])}")
    if roll < 0.87:
        return called(w, _led(w, scope) + string(w))
    if roll < 0.92:
        return called(w, f"{string(w)} {w.pick(('+', '%'))} {w.known(scope, 'str') or w.variable()}")
    return called(w, f"{w.pick(('len', 'str', 'repr', 'int', 'list'))}({string(w)})")


def string_value(w: Writer, scope: Scope) -> str:
    """An expression in which a call on a string closes and the line goes on."""
    quoted = string(w) if w.chance(0.6) else word(w)
    receiver = w.known(scope, "str") or w.pick(words.OBJECTS)
    call = w.pick(
        (
            f"input({quoted})",
            f"{receiver}.{w.pick(TEXT_METHODS)}({quoted})",
            f"{w.function()}({quoted})",
            f"len({quoted})",
            f"str({quoted})",
            f"{w.pick(words.OBJECTS)}.{w.function()}({quoted})",
        )
    )
    other = w.pick(scope.all() or ["x", "y"])
    flag = w.known(scope, "flag") or w.variable()
    return w.pick(
        (
            f"{call} + {other}",
            f"{call} or {other}",
            f"{call} and {flag}",
            f"{call}.{w.pick(words.STRING_METHODS)}()",
            f"{call} if {flag} else {other}",
            f"{w.function()}({call}, {w.between(0, 20)})",
            f"int({call})",
            f"{call}[{w.between(0, 3)}]",
            f"{call} in {w.plural()}",
            f"{call} == {other}",
            f"{w.pick(('max', 'min', 'print', 'int', 'len', 'str'))}({call})",
            f"{call}",
        )
    )
