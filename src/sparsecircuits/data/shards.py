"""Token shards on disk: a memory-mapped file for each split, made once for a corpus and a tokenizer.

Layout: `<cache>/<key>/{manifest.json, train.bin, val.bin}`, little-endian uint16 (uint32 for a vocabulary
above 65536). Each file of the corpus is `<|endoftext|>` and then its tokens. A folder appears whole, by one
rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsecircuits.data.corpora import corpus_fingerprint, load_sources
from sparsecircuits.data.source import SourceFile
from sparsecircuits.data.tokenizer import Tokenizer
from sparsecircuits.errors import UserError
from sparsecircuits.files import sha256

FORMAT = 1
VALIDATION_SHARE = 0.05
SPLITS = ("train", "val")
CHUNK = 64
ABANDONED_SECONDS = 86_400
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class TokenData:
    """The tokens of a corpus.

    `train` and `val` are one-dimensional read-only memory maps of token ids; `manifest` says what they are;
    `cached` whether they were found rather than made.
    """

    train: np.ndarray
    val: np.ndarray
    manifest: dict[str, Any]
    cached: bool


def default_cache_dir() -> Path:
    """`$SPARSECIRCUITS_CACHE`, or `~/.cache/sparsecircuits`."""
    named = os.environ.get("SPARSECIRCUITS_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "sparsecircuits"


def _rank(name: str) -> float:
    """A number in [0, 1) that depends on the file's name alone."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]) / 2**64


def _cut(file: SourceFile) -> tuple[list[SourceFile], list[SourceFile]]:
    """A lone file, its last tenth of lines for validation."""
    lines = file.text.splitlines(keepends=True)
    at = max(1, len(lines) * 9 // 10)
    tail = "".join(lines[at:])
    return [SourceFile(file.name, "".join(lines[:at]))], [SourceFile(f"{file.name}#end", tail)] if tail else []


def split_files(files: Sequence[SourceFile]) -> tuple[list[SourceFile], list[SourceFile]]:
    """(train, validation) of one source: about 5% of the files validate, chosen by the hash of their names.

    Adding files moves no other file. Two files or more give at least one each; a lone file is cut.
    """
    if len(files) == 1:
        return _cut(files[0])
    ranked = {file.name: _rank(file.name) for file in files}
    held = {name for name, rank in ranked.items() if rank < VALIDATION_SHARE}
    if not held:
        held = {min(ranked, key=ranked.__getitem__)}
    if len(held) == len(files):
        held.remove(max(ranked, key=ranked.__getitem__))
    train = [file for file in files if file.name not in held]
    return train, [file for file in files if file.name in held]


def split_sources(sources: dict[str, list[SourceFile]]) -> dict[str, list[SourceFile]]:
    """{"train": files, "val": files}, every source split by itself so that each is in both."""
    splits: dict[str, list[SourceFile]] = {"train": [], "val": []}
    for files in sources.values():
        train, val = split_files(files)
        splits["train"] += train
        splits["val"] += val
    return splits


def _write_shard(
    path: Path,
    files: Sequence[SourceFile],
    tokenizer: Tokenizer,
    dtype: np.dtype,
    report: Callable[[int], None],
) -> dict[str, Any]:
    """Encode the files into one shard and say what it holds."""
    tokens = size = 0
    with open(path, "wb") as out:
        for start in range(0, len(files), CHUNK):
            part = files[start : start + CHUNK]
            for ids in tokenizer.encode_batch(file.text for file in part):
                out.write(np.array([tokenizer.eot_id, *ids], dtype).tobytes())
                tokens += len(ids) + 1
            size += sum(len(file.text.encode("utf-8", "replace")) for file in part)
            report(len(part))
        out.flush()
        os.fsync(out.fileno())
    return {"tokens": tokens, "files": len(files), "bytes": size, "sha256": sha256(path)}


def _build(folder: Path, spec: str, tokenizer: Tokenizer, seed: int, key: str, progress: Progress | None) -> None:
    """Write shards and manifest into an existing empty folder."""
    if progress:
        progress(0, 1, f"reading {spec}")
    sources = load_sources(spec, seed=seed)
    splits = split_sources(sources)
    total, done = sum(map(len, splits.values())), 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total, f"tokenizing {spec}")

    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    shards = {name: _write_shard(folder / f"{name}.bin", splits[name], tokenizer, dtype, report) for name in SPLITS}
    manifest = {
        "format": FORMAT,
        "key": key,
        "spec": spec,
        "seed": seed,
        "dtype": dtype.str,
        "tokenizer": tokenizer.content_hash,
        "vocab_size": tokenizer.vocab_size,
        "sources": {name: len(files) for name, files in sources.items()},
        "splits": shards,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _open(folder: Path, key: str, *, cached: bool) -> TokenData:
    """Map a prepared folder. Raises ValueError that says what is wrong with it."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or manifest.get("key") != key:
        raise ValueError("the manifest is not the one expected")
    maps = {}
    for name in SPLITS:
        path, shard = folder / f"{name}.bin", manifest["splits"][name]
        dtype = np.dtype(manifest["dtype"])
        if path.stat().st_size != shard["tokens"] * dtype.itemsize:
            raise ValueError(f"{path.name} has the wrong size")
        if sha256(path) != shard["sha256"]:
            raise ValueError(f"{path.name} does not match its hash")
        maps[name] = np.memmap(path, dtype, "r") if shard["tokens"] else np.empty(0, dtype)
    return TokenData(maps["train"], maps["val"], manifest, cached)


def _publish(temporary: Path, target: Path) -> None:
    """Rename the finished folder into place, unless another process was first with a good one."""
    for _ in range(5):
        try:
            os.rename(temporary, target)
            return
        except OSError:
            if not target.exists():
                raise
        try:
            _open(target, target.name, cached=True)
            return
        except (OSError, ValueError, KeyError, TypeError):
            _discard(target)
    raise UserError(f"cannot replace the damaged cache at {target}; delete it and try again")


def _discard(folder: Path) -> None:
    """Take a damaged folder out of the way in one step, then delete it."""
    grave = Path(tempfile.mkdtemp(prefix=".old-", dir=folder.parent))
    try:
        os.rename(folder, grave / "gone")
    except FileNotFoundError:
        pass
    finally:
        shutil.rmtree(grave, ignore_errors=True)


def _sweep(root: Path, key: str) -> None:
    """Delete what a killed run of this key left behind a day ago or earlier."""
    for left in root.glob(f".{key}-*"):
        try:
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue


def prepare_tokens(
    spec: str,
    tokenizer: Tokenizer,
    *,
    cache_dir: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> TokenData:
    """The tokens of a corpus (see `load_corpus` for `spec`), from the cache if they are there and whole.

    `progress(done, total, label)` is called while files are encoded. A damaged cache is rebuilt, with a
    warning. A corpus of one line has no validation tokens.
    Raises UserError for an unknown corpus or a cache folder that cannot be written.
    """
    fingerprint = corpus_fingerprint(spec, seed=seed)
    named = json.dumps([FORMAT, spec, seed, fingerprint, tokenizer.content_hash])
    key = hashlib.sha256(named.encode()).hexdigest()[:24]
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    target = root / key
    if target.exists():
        try:
            return _open(target, key, cached=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"rebuilding the token cache at {target}: {error}", stacklevel=2)
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root, key)
        temporary = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=root))
        try:
            _build(temporary, spec, tokenizer, seed, key, progress)
            _publish(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return _open(target, key, cached=False)
    except OSError as error:
        raise UserError(
            f"cannot write the token cache in {root} ({error.strerror or error}); "
            "set SPARSECIRCUITS_CACHE to a folder with room"
        ) from error
