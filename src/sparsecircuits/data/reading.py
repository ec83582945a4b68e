"""A Python file's text, as the interpreter would read it, and every reason to leave a file out."""

from __future__ import annotations

import ast
import io
import os
import stat
import tokenize
import warnings
from pathlib import Path

LARGEST = 1_000_000
"""Bytes of the largest file that is read: what people write is smaller, and parsing takes 100 times the memory."""

DUPLICATE = "near-duplicates"
EMPTY = "empty"
ENCODED = "in another encoding than they declare"
LARGE = "larger than 1 MB"
SPECIAL = "no regular files"
UNPARSED = "no Python that parses"
UNREADABLE = "unreadable"
_ASCII = bytes([*range(32, 127), 10])


class LeftOut(Exception):
    """A file is not read; the reason is one of this module's."""


def python_text(path: Path) -> str:
    """The text of a Python file, with plain newlines, if it parses. Raises LeftOut with the reason otherwise.

    The encoding is UTF-8 or what a byte order mark or a cookie in the first two lines says (PEP 263).
    """
    text = _decoded(_bytes(path)).replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise LeftOut(EMPTY)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise LeftOut(UNPARSED) from error
    return text


def _bytes(path: Path) -> bytes:
    """What a regular file of at most LARGEST bytes holds."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before opening, which some devices take as an order
            raise LeftOut(SPECIAL)
        # Opened without waiting: between the two looks a pipe may have come to its place.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise LeftOut(SPECIAL)
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise LeftOut(UNREADABLE) from error
    if len(data) > LARGEST:
        raise LeftOut(LARGE)
    return data


def _decoded(data: bytes) -> str:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        # PEP 263 asks for codecs that leave ASCII as it is; others (punycode, idna) may take quadratic time.
        if _ASCII.decode(encoding) != _ASCII.decode("ascii"):
            raise LeftOut(ENCODED)
        return data.decode(encoding)
    except (SyntaxError, UnicodeError, LookupError, TypeError) as error:
        raise LeftOut(ENCODED) from error
