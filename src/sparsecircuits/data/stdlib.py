"""Which files of a source tree are worth reading: real code, no tests, no generated tables."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from sparsecircuits.data.reading import LeftOut, python_text

TABLE = "tables of literals"
SKIPPED_FOLDERS = frozenset(
    ("site-packages", "dist-packages", "__pycache__", "node_modules", "ensurepip", "pydoc_data")
)
TEST_FOLDERS = frozenset(("test", "tests", "idle_test", "testing", "testdata"))
GENERATED = re.compile(
    r"^(encodings/(cp|iso8859|mac_|koi8|tis_620|ptcp|hp_roman|palmos|kz).*|html/entities|_sysconfigdata.*)\.py$"
)
TEST_FILE = re.compile(r"^(test_.*|.*_test|tests?|_test.*)\.py$")
_STRING = re.compile(r"""[bBrRuU]?(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')""")
_COMMENT = re.compile(r"#.*")
_NUMBER = re.compile(r"\b(?:0[xX][0-9a-fA-F_]+|\d[\d_.eEjJ]*|None|True|False)\b")
_NAME = re.compile(r"[^\W\d]")
TABLE_SHARE = 0.6
TABLE_LINES = 20


def stdlib_root() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def walk(root: Path, *, tests: bool) -> Iterator[tuple[str, Path]]:
    """Python files under `root` as (relative posix name, path), sorted, without hidden and build folders."""
    found = []
    for folder, inner, files in os.walk(root):
        inner[:] = [
            name
            for name in inner
            if name not in SKIPPED_FOLDERS and not name.startswith(".") and (tests or name not in TEST_FOLDERS)
        ]
        for file in files:
            path = Path(folder, file)
            name = path.relative_to(root).as_posix()
            if file.endswith(".py") and (tests or not TEST_FILE.match(file)) and not GENERATED.match(name):
                found.append((name, path))
    yield from sorted(found)


def _only_literals(line: str) -> bool:
    """Whether a line holds literals, brackets and commas alone (and at least one literal)."""
    if len(line) > 2000:
        return True
    rest = _COMMENT.sub("", _STRING.sub("0", line))
    return (
        any(character.isdigit() for character in rest) and not _NAME.search(_NUMBER.sub("0", rest)) and "=" not in rest
    )


def is_table(text: str) -> bool:
    """Whether most lines are bare literals: character maps, word lists, generated parse tables."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < TABLE_LINES:
        return False
    literal = sum(1 for line in lines if _only_literals(line))
    escapes = text.count("\\x") + text.count("\\u")
    return literal > TABLE_SHARE * len(lines) or 4 * escapes > 0.3 * len(text)


def readable(path: Path) -> str:
    """The text of a Python file that is no table. Raises LeftOut with the reason otherwise."""
    text = python_text(path)
    if is_table(text):
        raise LeftOut(TABLE)
    return text
