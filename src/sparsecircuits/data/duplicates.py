"""Near-duplicate files, found by bottom-k sketches of token shingles and confirmed exactly."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice

import numpy as np

from sparsecircuits.data.source import SourceFile

SHINGLE = 5
SKETCH = 64
COMMON = 64
"""A shingle that so many kept files hold says nothing of two of them."""
RIVALS = 16
"""Most files that one is compared with: those that share most of its sketch."""
_TOKEN = re.compile(r"\w+|[^\w\s]")


def _mix(values: np.ndarray) -> np.ndarray:
    """A 64-bit finaliser: spreads near values over the whole range."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return values ^ (values >> np.uint64(33))


def shingles(text: str, memory: dict[str, int]) -> np.ndarray:
    """Sorted distinct uint64 hashes of every run of five tokens; `memory` caches token hashes."""
    tokens = _TOKEN.findall(text)
    for token in {token for token in tokens if token not in memory}:  # a difference would walk all of `memory`
        memory[token] = zlib.crc32(token.encode("utf-8", "surrogatepass"))
    hashes = np.fromiter((memory[token] for token in tokens), np.uint64, len(tokens))
    if len(hashes) < SHINGLE:
        hashes = np.concatenate([hashes, np.zeros(SHINGLE - len(hashes), np.uint64)])
    rows = len(hashes) - SHINGLE + 1
    total = np.zeros(rows, np.uint64)
    for k in range(SHINGLE):
        total = _mix(total * np.uint64(0x9E3779B97F4A7C15) + hashes[k : k + rows])
    return np.unique(total)


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """Shared share of two sorted sets of shingles, 0 to 1."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)


def drop_near_duplicates(files: Sequence[SourceFile], threshold: float = 0.8) -> list[SourceFile]:
    """The files without those that share `threshold` or more of their token shingles with an earlier one.

    Shared is the Jaccard index with a kept file. Deterministic; keeps the first of each group, and the order.
    Sketches only propose pairs: every dropped file was compared exactly. Shingles that many kept files hold (a
    licence's header) propose nothing, and few pairs are compared for each file, so that the time grows with the
    files' number and sizes alone.
    """
    memory: dict[str, int] = {}
    kept: list[SourceFile] = []
    sets: list[np.ndarray] = []
    whole: set[bytes] = set()
    holders: dict[int, list[int]] = defaultdict(list)
    for file in files:
        current = shingles(file.text, memory)
        digest = hashlib.sha256(current.tobytes()).digest()
        own = (value for value in current.tolist() if len(holders.get(value, ())) < COMMON)
        sketch = list(islice(own, SKETCH))
        votes = Counter(index for value in sketch for index in holders.get(value, ()))
        needed = max(1, int(0.25 * threshold * len(sketch)))
        rivals = [index for index, count in votes.most_common(RIVALS) if count >= needed]
        if digest in whole or any(jaccard(current, sets[index]) >= threshold for index in rivals):
            continue
        for value in sketch:
            holders[value].append(len(kept))
        kept.append(file)
        sets.append(current)
        whole.add(digest)
    return kept
