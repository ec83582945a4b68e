"""Files that are either whole or absent: atomic writes and content hashes."""

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparsecircuits.errors import UserError
from sparsecircuits.locks import lock

ABANDONED_SECONDS = 86_400
"""How old a part must be to count as left behind, where a file system has no locks to tell."""


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on a clean exit fsync it and rename it over `target`.

    After an exception (a full disk, Ctrl-C) the old file, if any, is untouched, and nothing else is left; what a killed
    writer of the same file left is removed here. Raises UserError for what the system refuses, a full disk above all,
    whichever library notices.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent, target.name)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    temporary = Path(name)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            lock(handle)  # held until the end: a part that nobody holds was left behind
        yield temporary
        os.chmod(temporary, 0o644)
        fsync(temporary)
        os.replace(temporary, target)
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            raise
        raise UserError(f"cannot write {target}: {reason}") from error
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Wait until a file's bytes are on the disk. Windows does that for a descriptor that may write alone."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def refusal(error: BaseException) -> str | None:
    """What the system said when it refused to write, also where a library tells it in its own words; else None."""
    if isinstance(error, UserError):
        return None
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if (number := re.search(r"\(os error (\d+)\)", str(error))) is not None:  # safetensors, tokenizers: Rust
        return os.strerror(int(number[1]))
    if "PytorchStreamWriter failed" in str(error) or "inline_container" in str(error):  # torch.save
        within = error.__context__ and refusal(error.__context__)
        return within or "the disk is full, or a limit on the size of files is reached"
    return None


def sweep(folder: Path, name: str = "") -> None:
    """Remove the temporary files and folders of writers that were killed; those of `name` alone, if it is given."""
    pattern = f".{glob.escape(name)}.*.part" if name else ".*.part"
    for left in Path(folder).glob(pattern):
        with contextlib.suppress(OSError):
            if left.is_dir():
                shutil.rmtree(left)
            elif _is_abandoned(left):
                left.unlink()


def _is_abandoned(part: Path) -> bool:
    handle = os.open(part, os.O_RDWR)
    try:
        lock(handle)
        return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return time.time() - part.stat().st_mtime > ABANDONED_SECONDS
    finally:
        os.close(handle)


def write_text(target: Path, text: str) -> Path:
    """Write UTF-8 text atomically, lines ended by a line feed on every system, and return its path."""
    with atomic_path(Path(target)) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return Path(target)


def read_text(path: Path, what: str) -> str:
    """The text of a file, or a UserError that names `what` was looked for."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"no {what} at {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {what} at {path}: {error}") from error


def read_json(path: Path, what: str) -> Any:
    """The value in a JSON file. Raises UserError for a file that is missing, no JSON, or ambiguous because an
    object has a key twice."""
    text = read_text(path, what)
    try:
        return parse_json(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def parse_json(text: str) -> Any:
    """`json.loads` that refuses (ValueError) an object with a key twice."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
