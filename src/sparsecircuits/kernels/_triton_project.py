"""Triton kernels of the exact top-k projection for CUDA: a radix search over the bit patterns of magnitudes.

The host never waits for the device: what is known of the threshold stays there, in a `Threshold`. The steps are
functions of their own, so that ranks that each hold some rows of a matrix can combine their results in between:
`largest_keys` (gather, keep the largest), `digit_counts` (sum) and `tie_counts` (sum over the ranks before).
"""

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096
# Programs count into so many copies of the histogram, so that few wait for the same counter.
_COPIES = 32


@dataclass(frozen=True)
class Threshold:
    """What is known of the k-th largest score of a matrix; all on the device.

    prefix: int64 [1], its leading digits. left: int64 [1], its place among the scores that share the prefix,
    and once all digits are known, how many ties survive. digits: how many are known. floor_keys: int64 [units],
    the least key (see `largest_keys`) that a unit's floor protects, or None without a floor; protected entries
    have the largest score there is.
    """

    prefix: Tensor
    left: Tensor
    digits: int = 0
    floor_keys: Tensor | None = None


@dataclass(frozen=True)
class _Pattern:
    """How a type's magnitudes look as integers."""

    integer: torch.dtype
    infinity: int
    digits: tuple[tuple[int, int], ...]  # (shift, bits), the highest first

    @property
    def constants(self) -> dict[str, int]:
        return {"INFINITY": self.infinity, "TOP": torch.iinfo(self.integer).max, "BLOCK": _BLOCK}


_PATTERNS = {
    torch.float32: _Pattern(torch.int32, 0x7F800000, ((15, 16), (0, 15))),
    torch.bfloat16: _Pattern(torch.int16, 0x7F80, ((0, 15),)),
    torch.float16: _Pattern(torch.int16, 0x7C00, ((0, 15),)),
}


@triton.jit
def _magnitudes(patterns, INFINITY: tl.constexpr, TOP: tl.constexpr):
    """Scores in the order of |weight|. NaN counts as infinity."""
    return tl.minimum(patterns.to(tl.int32) & TOP, INFINITY)


@triton.jit
def _keys(scores, place):
    """A score and its place in the unit as one number: the larger score first, then the lower index."""
    return (scores.to(tl.int64) << 32) | (0x7FFFFFFF - place).to(tl.int64)


@triton.jit
def _largest_keys(
    weight,
    keys,
    units,
    places,
    unit_stride,
    place_stride,
    first,
    floor,
    INFINITY: tl.constexpr,
    TOP: tl.constexpr,
    UNITS: tl.constexpr,
    PLACES: tl.constexpr,
):
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    rows = weight + unit.to(tl.int64)[:, None] * unit_stride
    last = tl.full([UNITS], 0x7FFFFFFFFFFFFFFF, tl.int64)
    for rank in range(floor):
        best = tl.full([UNITS, PLACES], -1, tl.int64)
        for start in range(0, places, PLACES):
            place = (start + tl.arange(0, PLACES))[None, :]
            inside = (unit < units)[:, None] & (place < places)
            patterns = tl.load(rows + place.to(tl.int64) * place_stride, mask=inside, other=0)
            found = _keys(_magnitudes(patterns, INFINITY, TOP), place + first)
            best = tl.maximum(best, tl.where(inside & (found < last[:, None]), found, -1))
        last = tl.max(best, axis=1)
        tl.store(keys + unit.to(tl.int64) * floor + rank, last, mask=unit < units)


@triton.jit
def _scores(
    weight,
    floor_keys,
    numel,
    columns,
    first_row,
    FLOOR_DIM: tl.constexpr,
    INFINITY: tl.constexpr,
    TOP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """This program's BLOCK entries in flat order: their offsets and scores, -1 beyond the end."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    entry = tl.arange(0, BLOCK)
    inside = start + entry < numel
    scores = _magnitudes(tl.load(weight + start + entry, mask=inside, other=0), INFINITY, TOP)
    if FLOOR_DIM >= 0:
        beyond = (start % columns).to(tl.int32) + entry  # 32-bit divisions: the wide ones are slow
        row, column = (start // columns).to(tl.int32) + beyond // columns, beyond % columns
        unit, place = (row, column) if FLOOR_DIM == 1 else (column, first_row + row)
        protected = _keys(scores, place) >= tl.load(floor_keys + unit, mask=inside, other=0)
        scores = tl.where(protected, TOP, scores)
    return start + entry, tl.where(inside, scores, -1)


@triton.jit
def _count_digits(
    weight,
    floor_keys,
    numel,
    columns,
    first_row,
    prefix,
    counts,
    SHIFT: tl.constexpr,
    BITS: tl.constexpr,
    COPIES: tl.constexpr,
    FLOOR_DIM: tl.constexpr,
    INFINITY: tl.constexpr,
    TOP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    _, scores = _scores(weight, floor_keys, numel, columns, first_row, FLOOR_DIM, INFINITY, TOP, BLOCK)
    counted = (scores >= 0) & ((scores.to(tl.int64) >> (SHIFT + BITS)) == tl.load(prefix))
    digit = (scores >> SHIFT) & ((1 << BITS) - 1)
    copy = tl.program_id(0) % COPIES
    tl.atomic_add(counts + (copy << BITS) + digit, 1, mask=counted, sem="relaxed")


@triton.jit
def _count_ties(
    weight,
    floor_keys,
    numel,
    columns,
    first_row,
    prefix,
    counts,
    FLOOR_DIM: tl.constexpr,
    INFINITY: tl.constexpr,
    TOP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    _, scores = _scores(weight, floor_keys, numel, columns, first_row, FLOOR_DIM, INFINITY, TOP, BLOCK)
    tl.store(counts + tl.program_id(0), tl.sum((scores == tl.load(prefix)).to(tl.int32), axis=0))


@triton.jit
def _zero_below(
    weight,
    floor_keys,
    numel,
    columns,
    first_row,
    prefix,
    tie_counts,
    room,
    FLOOR_DIM: tl.constexpr,
    INFINITY: tl.constexpr,
    TOP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    entry, scores = _scores(weight, floor_keys, numel, columns, first_row, FLOOR_DIM, INFINITY, TOP, BLOCK)
    threshold = tl.load(prefix)
    dropped = scores < threshold
    kept_ties = tl.load(room + tl.program_id(0))
    if kept_ties < tl.load(tie_counts + tl.program_id(0)):
        tie = scores == threshold
        dropped = dropped | (tie & (tl.cumsum(tie.to(tl.int32), 0) > kept_ties))
    tl.store(weight + entry, tl.zeros_like(scores).to(weight.dtype.element_ty), mask=dropped & (scores >= 0))


def _arguments(weight: Tensor, threshold: Threshold, dim: int, first_row: int) -> tuple[tuple, dict[str, int]]:
    pattern = _PATTERNS[weight.dtype]
    bits = weight.detach().view(pattern.integer)
    keys = threshold.floor_keys
    constants = {"FLOOR_DIM": -1 if keys is None else dim, **pattern.constants}
    return (bits, bits if keys is None else keys, weight.numel(), weight.shape[1], first_row), constants


def largest_keys(weight: Tensor, floor: int, dim: int, first: int = 0) -> Tensor:
    """int64 [units, floor]: the keys of the `floor` largest entries of each unit, the largest first.

    weight: contiguous [out, in]; a unit is a row (dim=1) or a column (dim=0). A key holds the magnitude and,
    for ties, the place in the unit. first: the place of this tensor's first entry where it is a shard. A unit
    of fewer than `floor` entries has keys of -1 in the end.
    """
    units, places = weight.shape[1 - dim], weight.shape[dim]
    keys = torch.empty(units, floor, dtype=torch.int64, device=weight.device)
    if not keys.numel():
        return keys
    pattern = _PATTERNS[weight.dtype]
    strides = (weight.stride(1 - dim), weight.stride(dim))
    tile = {"UNITS": 1, "PLACES": 1024} if dim == 1 else {"UNITS": 32, "PLACES": 64}
    constants = {"INFINITY": pattern.constants["INFINITY"], "TOP": pattern.constants["TOP"], **tile}
    _largest_keys[(triton.cdiv(units, tile["UNITS"]),)](
        weight.detach().view(pattern.integer), keys, units, places, *strides, first, floor, **constants
    )
    return keys


def start(k: int, device: torch.device, floor_keys: Tensor | None = None) -> Threshold:
    """A threshold of which nothing is known yet. floor_keys: [units], the last column of `largest_keys`."""
    prefix = torch.zeros(1, dtype=torch.int64, device=device)
    return Threshold(prefix, torch.full_like(prefix, k), 0, floor_keys)


def digit_counts(weight: Tensor, threshold: Threshold, dim: int = 1, first_row: int = 0) -> Tensor:
    """int64 [2^bits]: how many entries that share the prefix have each value of the next digit."""
    arguments, constants = _arguments(weight, threshold, dim, first_row)
    shift, bits = _PATTERNS[weight.dtype].digits[threshold.digits]
    counts = torch.zeros(_COPIES, 1 << bits, dtype=torch.int32, device=weight.device)
    grid = (triton.cdiv(weight.numel(), _BLOCK),)
    _count_digits[grid](*arguments, threshold.prefix, counts, SHIFT=shift, BITS=bits, COPIES=_COPIES, **constants)
    return counts.sum(dim=0)


def narrow(threshold: Threshold, counts: Tensor) -> Threshold:
    """The threshold with one more digit, from the counts of the whole matrix."""
    at_least = counts.flip(0).cumsum(0).flip(0)
    digit = (at_least >= threshold.left).sum(dim=0, keepdim=True) - 1
    left = threshold.left - (at_least - counts).gather(0, digit)
    return replace(threshold, prefix=threshold.prefix * counts.numel() + digit, left=left, digits=threshold.digits + 1)


def find_threshold(weight: Tensor, k: int, floor: int, dim: int) -> Threshold:
    """The threshold of a whole matrix, 0 < k <= its entries."""
    threshold = start(k, weight.device, largest_keys(weight, floor, dim)[:, -1].contiguous() if floor else None)
    for _ in _PATTERNS[weight.dtype].digits:
        threshold = narrow(threshold, digit_counts(weight, threshold, dim))
    return threshold


def tie_counts(weight: Tensor, threshold: Threshold, dim: int = 1, first_row: int = 0) -> Tensor:
    """int32 [blocks]: entries equal to a fully known threshold, per block of consecutive entries."""
    arguments, constants = _arguments(weight, threshold, dim, first_row)
    counts = torch.empty(triton.cdiv(weight.numel(), _BLOCK), dtype=torch.int32, device=weight.device)
    _count_ties[(counts.numel(),)](*arguments, threshold.prefix, counts, **constants)
    return counts


def zero_below(
    weight: Tensor, threshold: Threshold, ties: Tensor, dim: int = 1, first_row: int = 0, ties_before: Tensor | int = 0
) -> None:
    """Zero in place what is below a fully known threshold, and its ties but the first `threshold.left`.

    ties: `tie_counts` of this tensor. ties_before: ties in the ranks that hold earlier rows.
    """
    arguments, constants = _arguments(weight, threshold, dim, first_row)
    room = (threshold.left - ties_before - (ties.cumsum(0) - ties)).clamp(min=0)
    _zero_below[(ties.numel(),)](*arguments, threshold.prefix, ties, room, **constants)


def project(weight: Tensor, k: int, floor: int, dim: int) -> None:
    """`project_topk_` of a contiguous matrix of a type in `_gpu.TYPES`, in place."""
    if weight.numel() and k:
        threshold = find_threshold(weight, k, floor, dim)
        zero_below(weight, threshold, tie_counts(weight, threshold, dim), dim)
