"""A Python file as finders read it: its tokens and its syntax tree, with places in bytes."""

import ast
import functools
import itertools
import re
import tokenize
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError)
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_FORMATTED = tuple(kind for name in ("JoinedStr", "TemplateStr") if (kind := getattr(ast, name, None)) is not None)
_OPENS, _CLOSES = (
    {getattr(tokenize, name) for name in names if hasattr(tokenize, name)}
    for names in (("FSTRING_START", "TSTRING_START"), ("FSTRING_END", "TSTRING_END"))
)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_LEFT_OUT = {tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}


class Lexeme(NamedTuple):
    """A token of Python (not of the model's tokenizer): its type in `tokenize`, text, first byte, byte behind it."""

    type: int
    text: str
    start: int
    end: int


class Place(NamedTuple):
    """Where the question of a task arises: `at`, the first byte of the answer; `side`, which is right (0 or 1); `cue`,
    the first byte of what decides: a prompt that begins behind it does not hold the answer."""

    at: int
    side: int
    cue: int


class Source:
    """The text of one file. What is inside f-strings is left out of the tree, and each is one token: before Python
    3.12 nobody knows where things in them stand."""

    def __init__(self, text: str) -> None:
        """Raises SyntaxError or another of the parser's errors; `read` gives None instead."""
        self.text = text
        self.raw = text.encode()
        self._lines = _LINE.findall(text)
        self._chars = list(itertools.accumulate(map(len, self._lines), initial=0))
        widths = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        width = 1 + (widths > 0x7F).astype(np.int64) + (widths > 0x7FF) + (widths > 0xFFFF)
        self._bytes = np.concatenate([[0], np.cumsum(width)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._tree = ast.parse(text)
        self.tokens = list(self._lexed())

    @classmethod
    def read(cls, text: str) -> "Source | None":
        """The file, or None where it does not parse."""
        try:
            return cls(text)
        except _UNREADABLE:
            return None

    def start(self, node: ast.AST) -> int:
        """The first byte of a node."""
        return self.line(node.lineno) + node.col_offset  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        """The byte behind a node."""
        return self.line(node.end_lineno) + node.end_col_offset  # type: ignore[attr-defined]

    def line(self, number: int) -> int:
        """The first byte of a line, counted from 1; the one behind the last line is the file's end."""
        return int(self._bytes[self._chars[min(number - 1, len(self._lines))]])

    def indentation(self, number: int) -> int | None:
        """How many spaces a line begins with; None for a blank line, one with tabs, and behind the last."""
        if number > len(self._lines):
            return None
        line = self._lines[number - 1]
        code = line.lstrip(" ")
        return None if not code.strip() or code[0].isspace() else len(line) - len(code)

    def spaced(self, node: ast.AST) -> int | None:
        """The byte of the one space before a node, where an answer with a space begins; None without one."""
        start = self.start(node)
        return (
            start - 1 if start > 1 and self.raw[start - 1 : start] == b" " != self.raw[start - 2 : start - 1] else None
        )

    def begins(self, node: ast.AST, text: str) -> bool:
        """Whether a node begins with this text."""
        return self.raw.startswith(text.encode(), self.start(node))

    def in_a_word(self, at: int) -> bool:
        """Whether a name or a number ends at a byte. Behind brackets and quotes the answer would be part of theirs."""
        before = self.raw[at - 1 : at]
        return before.isalnum() or before == b"_" or before >= b"\x80"

    def of(self, *kinds: type[Any]) -> Iterator[Any]:
        """The nodes of some types of the tree."""
        for kind in kinds:
            yield from self._by_type.get(kind, ())

    @functools.cached_property
    def _by_type(self) -> dict[type[ast.AST], list[ast.AST]]:
        found: dict[type[ast.AST], list[ast.AST]] = {}
        for node in walk(self._tree):
            found.setdefault(type(node), []).append(node)
        return found

    def _lexed(self) -> Iterator[Lexeme]:
        depth, opened = 0, 0
        for kind, text, (row, column), (end_row, end_column), _ in tokenize.generate_tokens(iter(self._lines).__next__):
            if kind in _LEFT_OUT:
                continue
            start, end = self._at(row, column), self._at(end_row, end_column)
            if kind in _OPENS:
                depth, opened = depth + 1, opened if depth else start
            elif kind in _CLOSES:
                depth -= 1
                if not depth:
                    yield Lexeme(tokenize.STRING, self.raw[opened:end].decode(), opened, end)
            elif not depth:
                yield Lexeme(kind, text, start, end)

    def _at(self, row: int, column: int) -> int:
        char = self._chars[min(row - 1, len(self._lines))] + column
        return int(self._bytes[min(char, len(self.text))])


def walk(root: ast.AST, *, nested: bool = True) -> Iterator[ast.AST]:
    """A node and all below it, without what is inside f-strings; with nested=False also without what is inside the
    functions, lambdas and classes below the root."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        entered = nested or node is root or not isinstance(node, _SCOPES)
        if entered and not isinstance(node, _FORMATTED):
            stack.extend(ast.iter_child_nodes(node))
