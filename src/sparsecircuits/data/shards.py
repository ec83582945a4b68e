"""Token shards on disk: a memory-mapped file for each split, made once for a corpus and a tokenizer.

Layout: `<cache>/<key>/{manifest.json, train.bin, val.bin}`, little-endian uint16 (uint32 for a vocabulary
above 65536). Each file of the corpus is `<|endoftext|>` and then its tokens. A folder appears whole, by one
rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsecircuits.cache import cache_root
from sparsecircuits.data.corpora import corpus_fingerprint, load_sources
from sparsecircuits.data.source import SourceFile
from sparsecircuits.data.spec import Part, parse_spec
from sparsecircuits.data.streams import read_head
from sparsecircuits.data.tokenizer import Tokenizer
from sparsecircuits.errors import UserError
from sparsecircuits.files import sha256, write_text
from sparsecircuits.locks import locked

FORMAT = 1
VALIDATION_SHARE = 0.05
SPLITS = ("train", "val")
CHUNK = 64
UNFIT = (OSError, ValueError, KeyError, TypeError)
"""What reading a missing or damaged folder of the cache raises."""
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class TokenData:
    """The tokens of a corpus.

    `train` and `val` are one-dimensional read-only memory maps of token ids; `manifest` says what they are;
    `cached` whether they were found rather than made. For a mix by weight `val` has the weights' shares, and
    `manifest["mix"]` says how training draws (`open_sampler`); of a stream `train` is the beginning alone.
    """

    train: np.ndarray
    val: np.ndarray
    manifest: dict[str, Any]
    cached: bool

    @classmethod
    def of(cls, train: np.ndarray, val: np.ndarray) -> TokenData:
        """Token ids at hand, one-dimensional."""
        return cls(train, val, {}, cached=False)

    def sample(self) -> np.ndarray:
        """Training tokens in which every source has its share: all of `train`, for a mix its sources cut short."""
        mix = self.manifest.get("mix")
        if not mix or len(mix) == 1:
            return self.train
        total = min((part["stop"] - part["start"]) / part["weight"] for part in mix)
        return np.concatenate([self.train[p["start"] : p["start"] + int(total * p["weight"])] for p in mix])


def rank(name: str) -> float:
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
    ranked = {file.name: rank(file.name) for file in files}
    held = {name for name, rank in ranked.items() if rank < VALIDATION_SHARE}
    if not held:
        held = {min(ranked, key=ranked.__getitem__)}
    if len(held) == len(files):
        held.remove(max(ranked, key=ranked.__getitem__))
    train = [file for file in files if file.name not in held]
    return train, [file for file in files if file.name in held]


Groups = dict[str, dict[str, list[SourceFile]]]
"""Files by split and then by source."""


def split_sources(sources: dict[str, list[SourceFile]]) -> Groups:
    """{"train": {source: files}, "val": {source: files}}, every source split by itself so that each is in both."""
    splits: Groups = {"train": {}, "val": {}}
    for name, files in sources.items():
        splits["train"][name], splits["val"][name] = split_files(files)
    return splits


def _add_streams(splits: Groups, parts: Sequence[Part], tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """Put the beginning of each streamed source into the splits, in the spec's order; what reading on needs."""
    streams = {}
    for part in parts:
        if part.streamed:
            head = read_head(part.source, tokenizer)
            streams[part.source] = head.about
            for name, texts in (("train", head.train), ("val", head.val)):
                splits[name][part.source] = [SourceFile(f"{part.source}/{i}", text) for i, text in enumerate(texts)]
    for name in SPLITS:
        splits[name] = {part.source: splits[name][part.source] for part in parts}
    return streams


def _encoded(
    files: Sequence[SourceFile], tokenizer: Tokenizer, dtype: np.dtype, report: Callable[[int], None]
) -> Iterator[np.ndarray]:
    """The tokens of each file, end-of-text first."""
    for start in range(0, len(files), CHUNK):
        part = files[start : start + CHUNK]
        for ids in tokenizer.encode_batch(file.text for file in part):
            yield np.array([tokenizer.eot_id, *ids], dtype)
        report(len(part))


def _write_shard(
    path: Path,
    groups: dict[str, list[SourceFile]],
    tokenizer: Tokenizer,
    dtype: np.dtype,
    report: Callable[[int], None],
) -> dict[str, Any]:
    """Encode the files into one shard, source after source, and say what it holds."""
    counts = dict.fromkeys(groups, 0)
    with open(path, "wb") as out:
        for source, files in groups.items():
            for ids in _encoded(files, tokenizer, dtype, report):
                out.write(ids.tobytes())
                counts[source] += len(ids)
        out.flush()
        os.fsync(out.fileno())
    return _summary(path, groups, counts)


def _write_weighted_shard(
    path: Path,
    groups: dict[str, list[SourceFile]],
    weights: dict[str, float],
    tokenizer: Tokenizer,
    dtype: np.dtype,
    report: Callable[[int], None],
) -> dict[str, Any]:
    """As `_write_shard`, but each source is cut to its share of the tokens: what validation is measured on."""
    encoded = {
        source: np.concatenate([np.empty(0, dtype), *_encoded(files, tokenizer, dtype, report)])
        for source, files in groups.items()
    }
    total = min(len(ids) / weights[source] for source, ids in encoded.items())
    counts = {source: int(total * weights[source]) for source in encoded}
    with open(path, "wb") as out:
        for source, ids in encoded.items():
            out.write(ids[: counts[source]].tobytes())
        out.flush()
        os.fsync(out.fileno())
    return _summary(path, groups, counts)


def _summary(path: Path, groups: dict[str, list[SourceFile]], counts: dict[str, int]) -> dict[str, Any]:
    files = [file for group in groups.values() for file in group]
    size = sum(len(file.text.encode("utf-8", "replace")) for file in files)
    tokens = sum(counts.values())
    return {"tokens": tokens, "files": len(files), "bytes": size, "sha256": sha256(path), "by_source": counts}


def _mix(parts: Sequence[Part], counts: dict[str, int], streams: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """How training draws from the sources: weights, and where each lies in the training shard."""
    mix, start = [], 0
    for part in parts:
        row = {"source": part.source, "weight": part.weight, "start": start, "stop": start + counts[part.source]}
        mix.append({**row, "stream": streams[part.source]} if part.source in streams else row)
        start += counts[part.source]
    return mix


def _build(folder: Path, spec: str, tokenizer: Tokenizer, seed: int, key: str, progress: Progress | None) -> None:
    """Write shards and manifest into an existing empty folder."""
    if progress:
        progress(0, 1, f"reading {spec}")
    parts = parse_spec(spec)
    read = load_sources(spec, seed=seed)
    splits = split_sources({name: reading.files for name, reading in read.items()})
    streams = _add_streams(splits, parts, tokenizer)
    total, done = sum(len(files) for groups in splits.values() for files in groups.values()), 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total, f"tokenizing {spec}")

    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    weights = {part.source: part.weight for part in parts if part.weight is not None}
    train = _write_shard(folder / "train.bin", splits["train"], tokenizer, dtype, report)
    if weights:
        val = _write_weighted_shard(folder / "val.bin", splits["val"], weights, tokenizer, dtype, report)
    else:
        val = _write_shard(folder / "val.bin", splits["val"], tokenizer, dtype, report)
    manifest = {
        "format": FORMAT,
        "key": key,
        "spec": spec,
        "seed": seed,
        "dtype": dtype.str,
        "tokenizer": tokenizer.content_hash,
        "vocab_size": tokenizer.vocab_size,
        "sources": {part.source: sum(len(splits[name][part.source]) for name in SPLITS) for part in parts},
        "read": {name: reading.record() for name, reading in read.items()},
        "splits": {"train": train, "val": val},
    }
    if weights:
        manifest["mix"] = _mix(parts, train["by_source"], streams)
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1))


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
    """Put the finished folder in the place of a damaged one, which is first taken out of the way in one step."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(target, target.with_name(f".{target.name}-old"))
    os.rename(temporary, target)


def _sweep(root: Path, key: str) -> None:
    """Delete what a killed run of this key left behind, and a damaged folder."""
    for left in root.glob(f".{key}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _cached(target: Path) -> TokenData | None:
    """What is in the cache; None if nothing whole is."""
    if not target.exists():
        return None
    try:
        return _open(target, target.name, cached=True)
    except UNFIT as error:
        warnings.warn(f"rebuilding the token cache at {target}: {error}", stacklevel=3)
        return None


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
    root = Path(cache_dir) if cache_dir is not None else cache_root()
    target = root / key
    found = _cached(target)
    if found is not None:
        return found
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):  # is there room, and may this be written?
            pass
        say = (lambda holder: progress(0, 1, f"waiting: {holder}")) if progress else (lambda holder: None)
        with locked(root / f".{key}.lock", f"preparing {spec}", wait=say):
            with contextlib.suppress(*UNFIT):  # made while the lock was waited for
                return _open(target, key, cached=True)
            _sweep(root, key)
            temporary = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=root))
            try:
                _build(temporary, spec, tokenizer, seed, key, progress)
                _publish(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
                _sweep(root, key)
            return _open(target, key, cached=False)
    except OSError as error:
        raise UserError(
            f"cannot write the token cache in {root} ({error.strerror or error}); "
            "set SPARSECIRCUITS_CACHE to a folder with room"
        ) from error
