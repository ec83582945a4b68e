"""What a model is trained on: the standard library, generated files, a folder, or a mix of them.

A corpus is named by a spec (`spec.py`): "stdlib", "tinypython", "tinypython:N" (N files), "drills", a folder's path,
"hf:NAME", or several of these joined by "+", with or without weights.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from sparsecircuits.data import stdlib
from sparsecircuits.data.duplicates import drop_near_duplicates
from sparsecircuits.data.hub import HubSource, fingerprint_rows
from sparsecircuits.data.reading import DUPLICATE, LeftOut
from sparsecircuits.data.source import Reading, SourceFile
from sparsecircuits.data.spec import ALLOWED, Part, parse_spec
from sparsecircuits.data.tinypython import KINDS, generate_bytes, generate_files
from sparsecircuits.errors import UserError
from sparsecircuits.files import expanded
from sparsecircuits.seeds import checked_seed

__all__ = [
    "DEFAULT_SPEC",
    "SourceFile",
    "corpus_fingerprint",
    "drop_near_duplicates",
    "load_corpus",
    "load_sources",
    "read_folder",
    "read_stdlib",
    "require_folder",
]

LOG = logging.getLogger(__name__)
DEFAULT_SPEC = "stdlib+tinypython"
GENERATED_FILES = 1100
"""Files of a bare "tinypython" or "drills": about 2 MB."""
GENERATED_SHARE = 0.45
"""Share of the bytes that these have in a mix with files from disk, all together."""


def stdlib_files() -> list[tuple[str, Path]]:
    """Names in a corpus and paths of the running interpreter's standard library, without its tests."""
    return [(f"stdlib/{name}", path) for name, path in stdlib.walk(stdlib.stdlib_root(), tests=False)]


def folder_files(path: str | Path) -> list[tuple[str, Path]]:
    """The same of a folder, tests included. Raises UserError if there is none."""
    root = require_folder(path)
    prefix = root.resolve().name or "root"
    return [(f"{prefix}/{name}", path) for name, path in stdlib.walk(root, tests=True)]


def _read(files: Iterable[tuple[str, Path]], where: str) -> Reading:
    """The readable files without near-duplicates; what was left out is logged, with the reasons."""
    read, left_out = [], Counter[str]()
    for name, path in files:
        try:
            read.append(SourceFile(name, stdlib.readable(path)))
        except LeftOut as reason:
            left_out[str(reason)] += 1
    kept, found = drop_near_duplicates(read), len(read) + left_out.total()
    left_out += Counter({DUPLICATE: len(read) - len(kept)})
    reading = Reading(kept, found, left_out)
    LOG.info("%s", reading.describe(where))
    return reading


def read_stdlib() -> Reading:
    """The running interpreter's standard library by name, without tests, generated tables and duplicates."""
    return _read(stdlib_files(), "the standard library")


def require_folder(path: str | Path) -> Path:
    """The folder. Raises UserError if there is none: for checks before long work."""
    root = expanded(path)
    if not root.is_dir():
        raise UserError(f"no folder at {path}; {ALLOWED}")
    return root


def read_folder(path: str | Path) -> Reading:
    """Every Python file under a folder, tests included, sorted by name, without tables and duplicates.

    Regular files of at most 1 MB are read, in UTF-8 or the encoding that they declare. Raises UserError if the
    folder is missing or holds no Python that parses.
    """
    reading = _read(folder_files(path), str(path))
    if not reading.files:
        raise UserError(f"no Python files that parse under {path} ({reading.describe('it')}); name another folder")
    return reading


def _generate(part: Part, parts: Sequence[Part], other_bytes: int, seed: int) -> Reading:
    """Generated files: a given number, or as many bytes as the part's share of all sources on disk asks for."""
    files = _generated(part, parts, other_bytes, seed)
    return Reading(files, len(files))


def _generated(part: Part, parts: Sequence[Part], other_bytes: int, seed: int) -> list[SourceFile]:
    if ":" in part.source:
        return generate_files(int(part.source.partition(":")[2]), seed, part.kind)
    if not other_bytes:
        return generate_files(GENERATED_FILES, seed, part.kind)
    if part.weight is None:
        bare = sum(other.source in KINDS for other in parts)
        return generate_bytes(int(other_bytes * GENERATED_SHARE / (1 - GENERATED_SHARE) / bare), seed, part.kind)
    others = sum(other.weight or 0 for other in parts if not other.generated and not other.streamed)
    return generate_bytes(int(other_bytes * part.weight / others), seed, part.kind)


def load_sources(spec: str, *, seed: int = 0) -> dict[str, Reading]:
    """What each source of a spec that is not streamed gives, in the spec's order.

    Raises UserError for an unknown source.
    """
    checked_seed(seed)
    parts = [part for part in parse_spec(spec) if not part.streamed]
    sources: dict[str, Reading] = {}
    for part in parts:
        if part.source == "stdlib":
            sources[part.source] = read_stdlib()
        elif not part.generated:
            sources[part.source] = read_folder(part.source)
    other = sum(len(file.text.encode()) for reading in sources.values() for file in reading.files)
    return {
        part.source: sources[part.source] if part.source in sources else _generate(part, parts, other, seed)
        for part in parts
    }


def load_corpus(spec: str = DEFAULT_SPEC, *, seed: int = 0) -> list[SourceFile]:
    """All files of a spec. `seed` chooses the generated files; files read from disk do not depend on it.

    In a mix without weights, a bare "tinypython" or "drills" is generated until it holds 45% of the bytes (both: half
    of that each).
    Raises UserError for a spec that names nothing, a missing folder, a folder without Python, or a stream.
    """
    if any(part.streamed for part in parse_spec(spec)):
        raise UserError(f'"{spec}" is streamed and has no list of files: use prepare_tokens')
    return [file for reading in load_sources(spec, seed=seed).values() for file in reading.files]


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
    for part in parse_spec(spec):
        if part.source == "stdlib":
            rows += _listing(stdlib.walk(stdlib.stdlib_root(), tests=False))
        elif part.streamed:
            rows += fingerprint_rows(HubSource.parse(part.source))
        elif not part.generated:
            rows += [str(expanded(part.source).resolve())]
            rows += _listing(stdlib.walk(expanded(part.source), tests=True))
    code = Path(__file__).parent
    for source in sorted([*code.glob("tinypython/*.py"), *code.glob("*.py")]):
        rows.append(hashlib.sha256(source.read_bytes()).hexdigest())
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()
