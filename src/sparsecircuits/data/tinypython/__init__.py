"""Simple, idiomatic Python files written by a seeded grammar: a small corpus that a small model can learn.

Every file parses. Names, strings and layouts come from large vocabularies, so the idioms repeat and the text
does not.
"""

from __future__ import annotations

from collections.abc import Callable

from sparsecircuits.data.source import SourceFile
from sparsecircuits.data.tinypython import drills, forms, words
from sparsecircuits.data.tinypython.definitions import class_definition, file_function, function
from sparsecircuits.data.tinypython.expressions import number, spread_literal
from sparsecircuits.data.tinypython.statements import block
from sparsecircuits.data.tinypython.strings import sentence, string, string_call
from sparsecircuits.data.tinypython.writer import Scope, Writer, indent

__all__ = ["KINDS", "generate_bytes", "generate_file", "generate_files"]


def _imports(w: Writer) -> list[str]:
    lines = [f"import {name}" for name in w.many(words.MODULES, w.pick((0, 1, 1, 2, 3)))]
    for module, names in w.many(words.FROM_IMPORTS, w.pick((0, 0, 1, 1, 2))):
        lines.append(f"from {module} import {', '.join(w.many(names.split(), w.between(1, 2)))}")
    return lines


def _constants(w: Writer) -> list[str]:
    lines = []
    for _ in range(w.pick((0, 0, 0, 1, 1, 2, 3))):
        name = w.pick(words.CONSTANTS) if w.chance(0.5) else f"{w.pick(words.CONSTANTS)}_{w.pick(words.CONSTANTS)}"
        if w.chance(0.2):
            first, *rest = spread_literal(w, Scope())
            lines += [f"{name} = {first}", *rest]
        else:
            lines.append(f"{name} = {number(w) if w.chance(0.5) else string(w)}")
    return lines


def _main(w: Writer) -> list[str]:
    quote = w.quote()
    if w.chance(0.5):
        body = block(w, Scope(), 1, w.between(1, 4))
        return [
            *["def main():", *indent(body)],
            "",
            "",
            f"if __name__ == {quote}__main__{quote}:",
            "    main()",
        ]
    return [f"if __name__ == {quote}__main__{quote}:", *indent(block(w, Scope(), 1, w.between(1, 3)))]


def _definition(w: Writer) -> list[str]:
    roll = w.random()
    if roll < 0.24:
        return class_definition(w)
    return file_function(w) if roll < 0.32 else function(w)


def _lines(w: Writer) -> list[str]:
    """The file as a list of lines; sections are two blank lines apart."""
    sections = [_imports(w), _constants(w)]
    target = w.between(25, 95)
    script = w.chance(0.3)
    size = 0
    scope = Scope()
    while size < target:
        section = block(w, scope, 0, w.between(3, 8)) if script and w.chance(0.6) else _definition(w)
        sections.append(section)
        size += len(section) + 2
    if not script and w.chance(0.4):
        sections.append(_main(w))
    elif w.chance(0.15):
        sections.append([string_call(w, scope)])
    head = [f'"""{sentence(w).strip().capitalize()}."""', ""] if w.chance(0.2) else []
    return _joined(head, sections)


def _joined(lines: list[str], sections: list[list[str]]) -> list[str]:
    """Sections after `lines`, definitions two blank lines apart and others one."""
    for section in sections:
        if section:
            top = section[0].startswith(("def ", "class "))
            lines += (["", ""] if top else [""]) if lines and lines[-1] else []
            lines += section
    return lines


def _drill_lines(w: Writer) -> list[str]:
    return _filled(w, [_imports(w)] if w.chance(0.2) else [], drills.section)


def _binding_lines(w: Writer) -> list[str]:
    return _filled(w, [], drills.bound)


def _form_lines(w: Writer) -> list[str]:
    return _filled(w, [], forms.section)


def _filled(w: Writer, sections: list[list[str]], draw: Callable[[Writer], list[str]]) -> list[str]:
    """Sections drawn behind those given until a file is long enough."""
    target, size = w.between(25, 95), 0
    while size < target:
        sections.append(draw(w))
        size += len(sections[-1])
    return _joined([], sections)


def _outside_return(lines: list[str]) -> list[str]:
    """Drop nothing but turn a `return` outside any function into a bare expression."""
    inside = quoted = False
    fixed = []
    for line in lines:
        was_quoted, marks = quoted, line.count('"""') + line.count("'''")
        quoted ^= bool(marks % 2)
        if was_quoted:
            fixed.append(line)
            continue
        if line and line[0] not in " )]}":
            inside = line.startswith(("def ", "class "))
        text = line.lstrip(" ")
        if not inside and text.startswith("return"):
            line = line[: len(line) - len(text)] + (text[7:] or "pass")
        elif not inside and ": return" in line:
            line = line.replace(": return", ": pass")
        fixed.append(line)
    return fixed


KINDS: dict[str, Callable[[Writer], list[str]]] = {
    "tinypython": _lines,
    "drills": _drill_lines,
    "bindings": _binding_lines,
    "forms": _form_lines,
}
"""What a file of each kind is made by: ordinary files, those of `drills`, those that do nothing but use names, and
those that ask about brackets, strings, parameters and files."""


def generate_file(seed: int, kind: str = "tinypython") -> str:
    """The text of file number `seed` of a kind of `KINDS`: the same for ever, about 30 to 120 lines, ends with a
    newline."""
    return "\n".join(_outside_return(KINDS[kind](Writer(seed)))).strip("\n") + "\n"


def file_name(i: int, kind: str = "tinypython") -> str:
    """What file number `i` of a stream is called."""
    return f"{kind}/{i:06d}.py"


def _numbered(i: int, seed: int, kind: str) -> SourceFile:
    return SourceFile(file_name(i, kind), generate_file(seed * 10_000_000 + i, kind))


def generate_files(n: int, seed: int = 0, kind: str = "tinypython") -> list[SourceFile]:
    """`n` files of stream `seed`, named `tinypython/000000.py` and so on. Streams do not overlap."""
    return [_numbered(i, seed, kind) for i in range(n)]


def generate_bytes(size: int, seed: int = 0, kind: str = "tinypython") -> list[SourceFile]:
    """As many files of stream `seed` as it takes to reach `size` bytes, at least two."""
    files: list[SourceFile] = []
    while size > 0 or len(files) < 2:
        files.append(_numbered(len(files), seed, kind))
        size -= len(files[-1].text)
    return files
