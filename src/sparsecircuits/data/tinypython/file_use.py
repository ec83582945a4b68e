"""Files opened, read and written; `with` blocks of other sorts."""

from __future__ import annotations

from sparsecircuits.data.tinypython import words
from sparsecircuits.data.tinypython.strings import called, filename, word
from sparsecircuits.data.tinypython.writer import Scope, Writer, indent


def open_call(w: Writer) -> tuple[str, bool, str]:
    """An `open(...)` call, whether it is for reading, and its path."""
    reading = w.chance(0.5)
    roll = w.random()
    if roll < 0.4:
        path = w.pick(words.READ_NAMES if reading else words.WRITE_NAMES)
    elif roll < 0.7:
        path = w.pick(words.FILE_NAMES) if w.chance(0.7) else w.noun()
    elif roll < 0.95:
        path = filename(w)
    else:
        path = f"self.{w.pick(words.FILE_NAMES)}"
    quote = w.quote()
    if reading and w.chance(0.18):
        return f"open({path})", reading, path
    mode = "r" if reading else "w"
    mode += "b" if w.chance(0.06) else ""
    extra = f", encoding={quote}utf-8{quote}" if w.chance(0.1) else ""
    return f"open({path}, {quote}{mode}{quote}{extra})", reading, path


def with_open(w: Writer, scope: Scope) -> list[str]:
    """A file read or written; sometimes opened without `with`, sometimes another context."""
    opened, reading, _ = open_call(w)
    handle = w.pick(words.HANDLES)
    name = w.fresh(scope)
    if w.chance(0.16):
        closing = f"{handle}.close()"
        scope.add("obj", handle)
        use = f"{name} = {handle}.read()" if reading else f"{handle}.write({w.known(scope, 'str') or name})"
        return [f"{handle} = {opened}", use, closing]
    if w.chance(0.2):
        context = w.pick(("lock", "session", "client", "connection", "db.cursor()", "pool", "timer", "self.lock"))
        scope.add("obj", handle)
        return [f"with {context} as {handle}:", *indent([called(w, handle)])]
    if reading:
        body = w.pick(
            (
                [f"{name} = {handle}.read()"],
                [f"{name} = {handle}.readlines()"],
                [f"{name} = json.load({handle})"],
                [f"for line in {handle}:", f"    {called(w, 'line')}"],
                [f"{name} = {handle}.read().strip()"],
                [f"return {handle}.read()"],
            )
        )
    else:
        text = w.known(scope, "str") or string_or_name(w)
        body = w.pick(
            (
                [f"{handle}.write({text})"],
                [f"{handle}.write({word(w)})", f"{handle}.write({text})"],
                [f"json.dump({name}, {handle})"],
                [f"for line in {w.plural()}:", f"    {handle}.write(line)"],
                [f"print({text}, file={handle})"],
            )
        )
    return [f"with {opened} as {handle}:", *indent(body)]


def string_or_name(w: Writer) -> str:
    """A word or a name."""
    return word(w) if w.chance(0.5) else w.variable()
