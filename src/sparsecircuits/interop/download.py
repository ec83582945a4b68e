"""Downloading a file once: resumed where it broke off, checked, and whole or absent in the cache.

Beside each file `F` lies `F.json` with its address, size and SHA-256 as they were when it arrived and had been read
once. A later use checks the file against it, so that a cache that went bad is noticed and mended.
"""

import base64
import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsecircuits.errors import UserError
from sparsecircuits.files import fsync, sha256, write_text
from sparsecircuits.locks import locked

CHUNK = 8 << 20
ATTEMPTS = 4


def download(url: str, target: Path, check: Callable[[Path], object]) -> Path:
    """The local copy of a file on a server that fsspec reads (http, s3, az, …).

    check: reads the file as its user will, and raises UserError when it is not what it should be (a web page, say):
    then it is discarded. A file in the cache is used without asking the server, after its checksum. Of several
    processes one downloads, and the others wait for it. Raises UserError when the server lacks the file, cannot be
    reached, or sends something else than it announced.
    """
    if _is_intact(url, target):
        return target
    lock = target.with_name(f".{target.name}.lock")
    with locked(lock, f"downloading {url}", wait=lambda holder: warnings.warn(f"waiting: {holder}", stacklevel=4)):
        if not _is_intact(url, target):  # another process may have got it meanwhile
            _download(url, target, check)
    return target


def _download(url: str, target: Path, check: Callable[[Path], object]) -> None:
    filesystem, path = _filesystem(url)
    try:
        info = filesystem.info(path)
        partial = _receive(filesystem, path, info, target)
    except Exception as error:  # each protocol of fsspec has errors of its own
        cause = error.__cause__ or error  # over HTTP, fsspec calls any failure a missing file and chains the real one
        if isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) == 404:
            raise UserError(f"{url} does not exist: check the name") from error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise UserError(
            f"cannot download {url} ({reason}): check the connection and try again; what has arrived is kept"
        ) from error
    _check_against_server(partial, info, url)
    try:
        check(partial)
    except UserError as error:
        partial.unlink()
        _version_path(target).unlink(missing_ok=True)
        raise UserError(f"{url} is not what it should be, and was discarded: {error}") from error
    record = {"url": url, "size": partial.stat().st_size, "sha256": sha256(partial), "checked": True}
    fsync(partial)
    os.replace(partial, target)
    write_text(_record_path(target), json.dumps(record) + "\n")
    _version_path(target).unlink(missing_ok=True)


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UserError(f"downloading {url} needs: pip install 'sparsecircuits[hf]' ({error})") from error


def _record_path(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _version_path(target: Path) -> Path:
    return target.with_name(target.name + ".part.version")


def _is_intact(url: str, target: Path) -> bool:
    try:
        record = json.loads(_record_path(target).read_text(encoding="utf-8"))
        same = record["checked"] and record["url"] == url and record["size"] == target.stat().st_size
        return same and record["sha256"] == sha256(target)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _receive(filesystem: Any, path: str, info: dict[str, Any], target: Path) -> Path:
    """Append what is missing to `<target>.part`; start anew when the server's file is another one by now."""
    partial, version = target.with_name(target.name + ".part"), _version_path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    identity = json.dumps({key: str(info.get(key)) for key in ("size", "ETag", "Last-Modified")})
    if not (partial.exists() and version.exists() and version.read_text(encoding="utf-8") == identity):
        partial.unlink(missing_ok=True)
        write_text(version, identity)
    size, ranges = info.get("size"), info.get("partial", True)
    if size is None or not ranges:
        partial.unlink(missing_ok=True)
        filesystem.get_file(path, str(partial))
        return partial
    failures = 0
    with open(partial, "ab") as file:
        while (have := file.tell()) < size:
            try:
                block = filesystem.cat_file(path, start=have, end=min(have + CHUNK, size))
            except Exception:
                failures += 1
                if failures == ATTEMPTS:
                    raise
                continue
            if not block or have + len(block) > size:
                raise OSError("the server does not send the part that was asked for")
            file.write(block)
            file.flush()
    return partial


def _check_against_server(partial: Path, info: dict[str, Any], url: str) -> None:
    """Compare size and, where the server says it, MD5; a mismatch deletes what arrived."""
    size, wanted = info.get("size"), info.get("Content-MD5")
    found = partial.stat().st_size
    wrong = size is not None and found != size
    if not wrong and wanted:
        with open(partial, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
        wrong = base64.b64encode(digest).decode() != wanted
    if wrong:
        partial.unlink()
        raise UserError(f"{url} arrived damaged (checksum or size is wrong): try again")
