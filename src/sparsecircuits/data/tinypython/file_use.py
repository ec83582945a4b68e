"""Files opened, read and written; `with` blocks of other sorts."""

from __future__ import annotations

from sparsecircuits.data.tinypython import words
from sparsecircuits.data.tinypython.strings import called, filename, word
from sparsecircuits.data.tinypython.writer import Scope, Writer, indent

READING = ("read", "load", "parse", "get", "count", "fetch", "import", "scan", "check")
WRITING = ("write", "save", "store", "dump", "export", "put", "record", "keep", "log")


def named_path(w: Writer, reading: bool) -> str:
    """A path's name that says what the file is opened for."""
    return w.pick(words.READ_NAMES if reading else words.WRITE_NAMES)


def untold_path(w: Writer) -> str:
    """A path that does not say what the file is opened for."""
    roll = w.random()
    if roll < 0.5:
        return w.pick(words.FILE_NAMES) if w.chance(0.6) else w.noun()
    return filename(w) if roll < 0.9 else f"self.{w.pick(words.FILE_NAMES)}"


def told(w: Writer, reading: bool) -> str:
    """A few words that say what is done to a file."""
    verb = w.pick(READING if reading else WRITING)
    return f"{verb} the {w.noun()}" if w.chance(0.7) else f"{verb} {w.plural()}"


def opened(w: Writer, path: str, reading: bool) -> str:
    """The call that opens `path`."""
    quote = w.quote()
    if reading and w.chance(0.12):
        return f"open({path})"
    mode = "r" if reading else "w"
    mode += "b" if w.chance(0.06) else ""
    extra = f", encoding={quote}utf-8{quote}" if w.chance(0.1) else ""
    return f"open({path}, {quote}{mode}{quote}{extra})"


def with_open(w: Writer, scope: Scope) -> list[str]:
    """A file read or written, as its path's name or a comment before says, seldom nothing; sometimes opened without
    `with`, sometimes another context."""
    reading, roll = w.chance(0.5), w.random()
    path = named_path(w, reading) if roll < 0.55 else untold_path(w)
    before = [f"# {told(w, reading)}"] if 0.55 <= roll < 0.92 else []
    return before + _used(w, scope, opened(w, path, reading), reading)


def _used(w: Writer, scope: Scope, call: str, reading: bool) -> list[str]:
    handle = w.pick(words.HANDLES)
    name = w.fresh(scope)
    if w.chance(0.16):
        closing = f"{handle}.close()"
        scope.add("obj", handle)
        use = f"{name} = {handle}.read()" if reading else f"{handle}.write({w.known(scope, 'str') or name})"
        return [f"{handle} = {call}", use, closing]
    if w.chance(0.34):
        context = w.pick(
            (
                *("lock", "session", "client", "connection", "db.cursor()", "pool", "timer", "self.lock"),
                *(
                    w.noun(),
                    w.noun(),
                    f"self.{w.noun()}",
                    f"{w.noun()}.{w.noun()}",
                    f"{w.pick(words.OBJECTS)}.{w.noun()}",
                ),
                *(f"self.{w.noun()}.{w.noun()}", f"{w.function()}({w.noun()}).{w.noun()}", f"{w.noun()} or {w.noun()}"),
            )
        )
        handle = handle if w.chance(0.5) else w.noun()
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
    return [f"with {call} as {handle}:", *indent(body)]


def string_or_name(w: Writer) -> str:
    """A word or a name."""
    return word(w) if w.chance(0.5) else w.variable()
