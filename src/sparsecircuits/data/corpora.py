"""What a model is trained on: the standard library, generated files, a folder, or a mix of them.

A corpus is named by a spec: "stdlib", "tinypython", "tinypython:N" (N files), a folder's path, or several of
these joined by "+".
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from sparsecircuits.data import stdlib, tinypython
from sparsecircuits.data.duplicates import drop_near_duplicates
from sparsecircuits.data.source import SourceFile
from sparsecircuits.errors import UserError

__all__ = [
    "DEFAULT_SPEC",
    "SourceFile",
    "corpus_fingerprint",
    "drop_near_duplicates",
    "folder_files",
    "load_corpus",
    "load_sources",
    "stdlib_files",
]

DEFAULT_SPEC = "stdlib+tinypython"
TINYPYTHON_FILES = 1100
"""Files of a bare "tinypython": about 2 MB."""
TINYPYTHON_SHARE = 0.45
"""Share of the bytes that a bare "tinypython" has in a mix."""
ALLOWED = 'a corpus is "stdlib", "tinypython", "tinypython:N", a folder, or several joined by "+"'


def _read(pairs: Iterable[tuple[str, Path]], prefix: str) -> list[SourceFile]:
    texts = ((name, stdlib.readable(path)) for name, path in pairs)
    return [SourceFile(f"{prefix}/{name}", text) for name, text in texts if text is not None]


def stdlib_files() -> list[SourceFile]:
    """The running interpreter's standard library by name, without tests, generated tables and duplicates."""
    return drop_near_duplicates(_read(stdlib.walk(stdlib.stdlib_root(), tests=False), "stdlib"))


def folder_files(path: str | Path) -> list[SourceFile]:
    """Every Python file under a folder, tests included, sorted by name, without tables and duplicates.

    Raises UserError if the folder is missing or holds no Python that parses.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"no folder at {path}; {ALLOWED}")
    prefix = root.resolve().name or "root"
    files = drop_near_duplicates(_read(stdlib.walk(root, tests=True), prefix))
    if not files:
        raise UserError(f"no Python files that parse under {path}; name a folder that holds *.py files")
    return files


def _generated(part: str) -> bool:
    return part == "tinypython" or part.startswith("tinypython:")


def _parts(spec: str) -> list[str]:
    """The sources of a spec, checked. A folder whose path holds a "+" wins over a mix."""
    if spec not in ("stdlib", "tinypython") and spec and Path(spec).expanduser().is_dir():
        return [spec]
    parts = [part.strip() for part in spec.split("+")]
    for part in parts:
        head, colon, count = part.partition(":")
        if part in ("stdlib", "tinypython"):
            continue
        if head == "tinypython" and colon:
            if not (count.isascii() and count.isdigit() and int(count) > 0):
                raise UserError(f'"{part}": the number of files must be a whole number above 0, as in "tinypython:500"')
        elif not part or not Path(part).expanduser().is_dir():
            raise UserError(f'unknown corpus "{part}" (no such folder either): {ALLOWED}')
    if len(set(parts)) < len(parts):
        raise UserError(f'"{spec}" names the same corpus twice')
    return parts


def _generate(part: str, other_bytes: int, seed: int) -> list[SourceFile]:
    if ":" in part:
        return tinypython.generate_files(int(part.partition(":")[2]), seed)
    if not other_bytes:
        return tinypython.generate_files(TINYPYTHON_FILES, seed)
    wanted = other_bytes * TINYPYTHON_SHARE / (1 - TINYPYTHON_SHARE)
    return tinypython.generate_bytes(int(wanted), seed)


def load_sources(spec: str, *, seed: int = 0) -> dict[str, list[SourceFile]]:
    """The files of each source of a spec, in the spec's order. Raises UserError for an unknown source."""
    parts = _parts(spec)
    sources: dict[str, list[SourceFile]] = {}
    for part in parts:
        if part == "stdlib":
            sources[part] = stdlib_files()
        elif not _generated(part):
            sources[part] = folder_files(part)
    other = sum(len(file.text.encode()) for files in sources.values() for file in files)
    return {part: sources[part] if part in sources else _generate(part, other, seed) for part in parts}


def load_corpus(spec: str = DEFAULT_SPEC, *, seed: int = 0) -> list[SourceFile]:
    """All files of a spec. `seed` chooses the generated files; files read from disk do not depend on it.

    In a mix, a bare "tinypython" is generated until it holds 45% of the bytes.
    Raises UserError for a spec that names nothing, a missing folder, or a folder without Python.
    """
    return [file for files in load_sources(spec, seed=seed).values() for file in files]


def _listing(pairs: Iterable[tuple[str, Path]]) -> list[str]:
    rows = []
    for name, path in pairs:
        try:
            stat = path.stat()
        except OSError:
            continue
        rows.append(f"{name} {stat.st_size} {stat.st_mtime_ns}")
    return rows


def corpus_fingerprint(spec: str, *, seed: int = 0) -> str:
    """A hash that changes whenever `load_corpus` could return something else; reads no corpus file.

    It covers names, sizes and times of the files on disk, the interpreter, the seed and this package's code.
    """
    rows: list[str] = [spec, str(seed), sys.version]
    for part in _parts(spec):
        if part == "stdlib":
            rows += _listing(stdlib.walk(stdlib.stdlib_root(), tests=False))
        elif not _generated(part):
            rows += [str(Path(part).expanduser().resolve())]
            rows += _listing(stdlib.walk(Path(part).expanduser(), tests=True))
    code = Path(__file__).parent
    for source in sorted([*code.glob("tinypython/*.py"), *code.glob("*.py")]):
        rows.append(hashlib.sha256(source.read_bytes()).hexdigest())
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()
