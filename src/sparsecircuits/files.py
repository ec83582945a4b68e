"""Files that are either whole or absent: atomic writes and content hashes."""

import contextlib
import glob
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from sparsecircuits.errors import UserError
from sparsecircuits.locks import lock

ABANDONED_SECONDS = 86_400
"""How old a part must be to count as left behind, where a file system has no locks to tell."""
DEEPEST = 100
"""Levels of a JSON file; ours have 6."""


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on a clean exit fsync it and rename it over `target`.

    After an exception (a full disk, Ctrl-C) the old file, if any, is untouched, and nothing else is left; what a killed
    writer of the same file left is removed here. Raises UserError for what the system refuses, a full disk above all,
    whichever library notices.
    """
    target = Path(target)
    with _refusals_told(target):
        _make_way(target)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        temporary = Path(name)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                lock(handle)  # held until the end: a part that nobody holds was left behind
            yield temporary
            os.chmod(temporary, 0o644)
            fsync(temporary)
            os.replace(temporary, target)
        finally:
            os.close(handle)
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`, which is absent or empty; on a clean exit rename it to `target`.

    After an exception `target` is as it was and nothing else is left, so that whatever failed can be tried again.
    Raises UserError for what the system refuses.
    """
    target = Path(target)
    with _refusals_told(target):
        _make_way(target)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
        try:
            yield temporary
            temporary.chmod(0o755)
            if target.is_dir():
                target.rmdir()  # Windows renames over no folder, not even an empty one
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _make_way(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, target.name)


@contextlib.contextmanager
def _refusals_told(target: Path) -> Iterator[None]:
    """Turn what the system refuses while `target` is written into a UserError."""
    try:
        yield
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            raise
        raise UserError(f"cannot write {target}: {reason}") from error


def replace_folder(target: Path, finished: Path) -> None:
    """Put the folder `finished`, which lies beside `target`, in its place. What was there is deleted last, and put
    back if that fails; after a kill in between `recover_folder` puts it back.

    Raises UserError that says where the finished one still is.
    """
    aside = _aside(target)
    try:
        if target.exists():
            target.rename(aside)
        finished.rename(target)
    except OSError as error:
        recover_folder(target)
        raise UserError(f"cannot replace {target} ({error.strerror or error}): what was made is {finished}") from error
    shutil.rmtree(aside, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Put back what `replace_folder` had put aside, if nothing took its place."""
    aside = _aside(target)
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.exists():
        aside.rename(target)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


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
        return Path(path).read_text(encoding="utf-8-sig")  # editors on Windows put a byte order mark first
    except FileNotFoundError as error:
        raise UserError(f"no {what} at {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {what} at {path}: {error}") from error


def read_json(path: Path, what: str, most: int | None = None) -> Any:
    """The value in a JSON file. most: bytes. Raises UserError for a file that is missing or larger, and as
    `parse_json` does."""
    path = Path(path)
    if most is not None and path.is_file() and path.stat().st_size > most:
        raise UserError(f"{path} is larger than {most // 1_000_000} MB: no {what} of ours")
    text = read_text(path, what)
    try:
        return parse_json(text)
    except ValueError as error:
        raise UserError(f"{path} is not a {what}, for it is not valid JSON: {error}") from error


def parse_json(text: str) -> Any:
    """`json.loads` that refuses (ValueError) what nests more than 100 deep, before anything recurses into it, an
    object with a key twice, and numbers that are not finite."""
    if _depth(text) > DEEPEST:
        raise ValueError(f"it nests more than {DEEPEST} deep")
    return json.loads(text, object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)


# What is no bracket, or a string, an open one to the end: one pass, whatever the text.
_NO_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[^"\[\]{}]+', re.DOTALL)


def _depth(text: str) -> int:
    """How deep lists and objects of a JSON text nest."""
    brackets = _NO_BRACKETS.sub("", text)
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:20]} is no finite number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def json_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of each line that is not blank. Only a line feed, with or without a carriage return
    before it, ends a line: JSON may hold the other ends that `str.splitlines` knows (U+2028, U+2029, U+0085)."""
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def expanded(path: str | Path) -> Path:
    """The path with a leading ~ or ~user replaced by that home; as it is where there is no such user."""
    return Path(os.path.expanduser(path))


def require_writable(folder: Path) -> None:
    """Raise UserError if files cannot be put into a folder (that need not exist yet): for checks before long work."""
    place = Path(folder).absolute()
    while not place.exists() and place.parent != place:
        place = place.parent
    if not place.is_dir():
        raise UserError(f"cannot write into {folder}: {place} is no folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"cannot write into {folder}: no permission in {place}")


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
