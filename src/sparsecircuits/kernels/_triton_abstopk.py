"""Triton kernels of AbsTopK for CUDA: one read of the input, one write of the values and of one bit an entry.

A program holds one row in registers and searches for the k-th largest magnitude by counting. Magnitudes order
like their bit patterns, so the search is over patterns: it is exact whatever the values are.
The mask is packed: bit i of word j stands for channel 32 j + i. Ties are settled on the packed words, which
are 32 times fewer than the entries.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

WORD = 32
WIDEST = 65536  # channels: a row must fit the registers of one program
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Neighbouring values of a type lie this far apart in float32 bit patterns.
_GRAIN = {torch.float32: 1, torch.bfloat16: 1 << 16, torch.float16: 1 << 13}

_ABS = tl.constexpr(0x7FFFFFFF)
_INF = tl.constexpr(0x7F800000)
_HALF_OCTAVE = tl.constexpr(1 << 22)  # about a factor of √2, in bit patterns


@triton.jit
def _count_at_least(values, threshold):
    """How many |values| reach the pattern `threshold` > 0. NaN reaches everything."""
    return tl.sum(tl.where(tl.abs(values) < threshold.to(tl.float32, bitcast=True), 0, 1), axis=None)


@triton.jit
def _kth_largest(values, n, k, log_ratio, GRAIN: tl.constexpr):
    """The pattern of the k-th largest of n magnitudes, or one that exactly k of them reach.

    At least k entries reach `low`, fewer than k reach `high`. The first guess and the steps until both are
    known take the magnitudes for exponential; then interpolation, with a bisection every fourth step.
    """
    mean = tl.sum(tl.abs(values), axis=None) / n
    usual = (mean > 0) & (mean < float("inf"))
    low, count_low = tl.zeros([], tl.int32), n
    high, count_high = _INF + GRAIN, 0
    step, reach = 0, 1
    guess = tl.maximum(mean * log_ratio, 0.0).to(tl.int32, bitcast=True) & _ABS
    while high - low > GRAIN:
        threshold = tl.minimum(tl.maximum(guess & -GRAIN, low + GRAIN), high - GRAIN)
        count = _count_at_least(values, threshold)
        if count >= k:
            low, count_low = threshold, count
        else:
            high, count_high = threshold, count
        if count == k:
            high = threshold
        step += 1
        gap = high - low
        if (step % 4 == 0) | ~usual:
            guess = low + gap // 2
        elif (low == 0) | (high > _INF):
            change = reach * mean * tl.log((count + 0.5) / (k + 0.5))
            wanted = tl.maximum(threshold.to(tl.float32, bitcast=True) + change, 0.0).to(tl.int32, bitcast=True) & _ABS
            far = tl.minimum(reach * _HALF_OCTAVE, gap)
            guess = threshold + tl.maximum(tl.minimum(wanted - threshold, far), -far)
            reach = tl.minimum(reach * 2, 64)
        else:
            share = (count_low - k + 0.5) / tl.maximum(count_low - count_high, 1)
            guess = low + tl.minimum((share * gap).to(tl.int32), gap)
    return low


@triton.jit
def _ones(words):
    """Set bits of each uint32."""
    words = words - ((words >> 1) & 0x55555555)
    words = (words & 0x33333333) + ((words >> 2) & 0x33333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F
    return ((words * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def _first_bits(words, room):
    """The lowest `room` set bits of each uint32 (all when there are no more)."""
    width = tl.zeros_like(room)
    one = tl.full(words.shape, 1, tl.uint32)
    for power in tl.static_range(5):
        wider = width + (16 >> power)
        below = (one << wider.to(tl.uint32)) - 1
        width = tl.where(_ones(words & below) <= room, wider, width)
    cut = words & ((one << width.to(tl.uint32)) - 1)
    return tl.where(_ones(words) <= room, words, cut)


@triton.jit
def _first(words, room):
    """The first `room` set bits of a whole row of packed words."""
    here = _ones(words)
    before = tl.cumsum(here, 0) - here
    return _first_bits(words, tl.minimum(tl.maximum(room - before, 0), 32))


@triton.jit
def _abstopk(x, out, packed, n, k, log_ratio, WORDS: tl.constexpr, GRAIN: tl.constexpr, FULL: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    word, lane = tl.arange(0, WORDS), tl.arange(0, 32)
    index = word[:, None] * 32 + lane[None, :]
    inside = (index < n) | FULL
    values = tl.load(x + row * n + index, mask=inside, other=0.0).to(tl.float32)
    threshold = _kth_largest(values, n, k, log_ratio, GRAIN).to(tl.float32, bitcast=True)

    bit = (tl.full([1, 32], 1, tl.uint32) << lane[None, :].to(tl.uint32)).broadcast_to(WORDS, 32)
    none = tl.zeros([WORDS, 32], tl.uint32)
    at_least = tl.sum(tl.where((tl.abs(values) < threshold) | ~inside, none, bit), axis=1)
    above = tl.sum(tl.where(tl.abs(values) <= threshold, none, bit), axis=1)
    n_above = tl.sum(_ones(above), axis=0)
    # More than k above the largest pattern there is: those are NaN, and equal among themselves.
    ties = tl.where(n_above > k, above, at_least & ~above)
    kept = tl.where(n_above > k, 0, above) | _first(ties, tl.where(n_above > k, k, k - n_above))

    words = (n + 31) // 32
    tl.store(packed + row * words + word, kept.to(tl.int32, bitcast=True), mask=word < words)
    keep = (kept[:, None] & bit) != 0
    tl.store(out + row * n + index, tl.where(keep, values, 0.0).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _masked(x, packed, out, n, n_words, WORDS: tl.constexpr, ALIGNED: tl.constexpr):
    word = tl.program_id(0).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    lane = tl.arange(0, 32)[None, :]
    bits = tl.load(packed + word, mask=word < n_words, other=0).to(tl.uint32, bitcast=True)
    if ALIGNED:  # no word spans two rows' ends: entries are as consecutive as the words
        index = word[:, None] * 32 + lane
        inside = (word < n_words)[:, None] & (lane >= 0)
    else:
        per_row = (n + 31) // 32
        channel = (word % per_row)[:, None] * 32 + lane
        index = (word // per_row)[:, None] * n + channel
        inside = (word < n_words)[:, None] & (channel < n)
    keep = ((bits[:, None] >> lane.to(tl.uint32)) & 1) != 0
    # Only what survives is read.
    tl.store(out + index, tl.load(x + index, mask=inside & keep, other=0.0), mask=inside)


def packed_words(n: int) -> int:
    """Words of 32 bits that hold one bit for each of n channels."""
    return -(-n // WORD)


def abstopk(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """x: [..., n] of a type in DTYPES, n <= WIDEST. The kept values, and their mask: int32 [..., packed_words(n)]."""
    n = x.shape[-1]
    source, k = x.detach().contiguous(), min(k, n)
    out = torch.empty_like(source)
    packed = torch.empty(*x.shape[:-1], packed_words(n), dtype=torch.int32, device=x.device)
    if source.numel():
        words = triton.next_power_of_2(packed_words(n))
        # About 64 entries a thread: a row of 2048 channels is one warp, which counts without a barrier.
        _abstopk[(source.numel() // n,)](
            source,
            out,
            packed,
            n,
            k,
            math.log(n / max(k, 1)),
            WORDS=words,
            GRAIN=_GRAIN[x.dtype],
            FULL=n == WORD * words,
            num_warps=min(max(words // 64, 1), 32),
        )
    return out, packed


def masked(x: Tensor, packed: Tensor) -> Tensor:
    """x [..., n] where its bit of `packed` (from `abstopk`) is set, else zero."""
    n, words = x.shape[-1], 64
    source = x.detach().contiguous()
    out = torch.empty_like(source)
    if source.numel():
        grid = (triton.cdiv(packed.numel(), words),)
        _masked[grid](source, packed.contiguous(), out, n, packed.numel(), WORDS=words, ALIGNED=n % WORD == 0)
    return out
