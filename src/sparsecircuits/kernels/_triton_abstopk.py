"""Triton kernels of AbsTopK for CUDA: one read of the input, one write of the values and of one bit an entry.

A program holds one row in registers and searches for the k-th largest magnitude by counting. Magnitudes order
like their bit patterns, so the search is over patterns: it is exact whatever the values are.
The mask is packed: bit i of word j stands for channel 16 j + i. Ties are settled on the packed words, which
are 16 times fewer than the entries.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

WORD = 16
# Neighbouring values of a type lie this far apart in float32 bit patterns.
_GRAIN = {torch.float32: 1, torch.bfloat16: 1 << 16, torch.float16: 1 << 13}

_ABS = tl.constexpr(0x7FFFFFFF)
_INF = tl.constexpr(0x7F800000)
_HALF_OCTAVE = tl.constexpr(1 << 22)  # about a factor of √2, in bit patterns


@triton.jit
def _count_at_least(values, threshold):
    """How many |values| reach the pattern `threshold` > 0. NaN reaches everything."""
    # Summed as float (exact: a row is shorter than 2^24), which is half the instructions of an integer sum.
    reaches = tl.where(tl.abs(values) < threshold.to(tl.float32, bitcast=True), 0.0, 1.0)
    return tl.sum(reaches, axis=None).to(tl.int32)


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
def _pack(reaches, lane):
    """[words, 16] of 0.0 and 1.0 -> [words]: the 16 bits, and above them how many are set.

    A float sum: exact, and a multiply-add each. The powers of two are made from their patterns, since of known
    numbers the compiler would make a selection and an addition.
    """
    powers = ((lane + 127) << 23).to(tl.float32, bitcast=True)
    return tl.sum(reaches * (powers + 65536.0), axis=1).to(tl.int32)


@triton.jit
def _ones(word):
    """How many of 16 bits are set."""
    word = word - ((word >> 1) & 0x5555)
    word = (word & 0x3333) + ((word >> 2) & 0x3333)
    word = (word + (word >> 4)) & 0x0F0F
    return (word + (word >> 8)) & 0x1F


@triton.jit
def _first_bits(packed, room):
    """The first `room` set bits of a row of words from `_pack`. At most one word is kept in part."""
    words, here = packed & 0xFFFF, packed >> 16
    through = tl.cumsum(here, 0)
    cut = (through > room) & (through - here < room)
    word = tl.sum(tl.where(cut, words, 0), axis=0)
    left = tl.sum(tl.where(cut, room - (through - here), 0), axis=0)
    width = tl.zeros([], tl.int32)  # the longest run of low bits that holds no more than `left` set ones
    for power in tl.static_range(4):
        wider = width + (8 >> power)
        width = tl.where(_ones(word & ((1 << wider) - 1)) <= left, wider, width)
    return tl.where(through <= room, words, tl.where(cut, word & ((1 << width) - 1), 0))


@triton.jit
def _abstopk(x, out, packed, n, k, log_ratio, WORDS: tl.constexpr, GRAIN: tl.constexpr, FULL: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    word, lane = tl.arange(0, WORDS), tl.arange(0, 16)[None, :]
    index = word[:, None] * 16 + lane
    inside = (index < n) | FULL
    values = tl.load(x + row * n + index, mask=inside, other=0.0).to(tl.float32)
    threshold = _kth_largest(values, n, k, log_ratio, GRAIN).to(tl.float32, bitcast=True)

    at_least = _pack(tl.where((tl.abs(values) < threshold) | ~inside, 0.0, 1.0), lane)
    above = _pack(tl.where(tl.abs(values) <= threshold, 0.0, 1.0), lane)
    n_above = tl.sum(above >> 16, axis=0)
    # More than k above the largest pattern there is: those are NaN, and equal among themselves.
    surplus = n_above > k
    kept = tl.where(surplus, 0, above & 0xFFFF)
    kept |= _first_bits(tl.where(surplus, above, at_least - above), tl.where(surplus, k, k - n_above))

    words = (n + 15) // 16
    tl.store(packed + row * words + word, kept.to(tl.int16), mask=word < words)
    keep = (kept[:, None] & (1 << lane)) != 0
    tl.store(out + row * n + index, tl.where(keep, values, 0.0).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _masked(x, packed, out, n, n_words, WORDS: tl.constexpr, FULL: tl.constexpr):
    word = tl.program_id(0).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    lane = tl.arange(0, 16)[None, :]
    bits = tl.load(packed + word, mask=word < n_words, other=0).to(tl.int32)
    if FULL:  # every row fills its last word: entries follow one another as the words do
        index = word[:, None] * 16 + lane
        inside = (word < n_words)[:, None] & (lane >= 0)
    else:
        per_row = (n + 15) // 16
        channel = (word % per_row)[:, None] * 16 + lane
        index = (word // per_row)[:, None] * n + channel
        inside = (word < n_words)[:, None] & (channel < n)
    keep = (bits[:, None] & (1 << lane)) != 0
    values = tl.load(x + index, mask=inside, other=0.0)
    tl.store(out + index, tl.where(keep, values, tl.zeros_like(values)), mask=inside)


def packed_words(n: int) -> int:
    """Words of 16 bits that hold one bit for each of n channels."""
    return -(-n // WORD)


def abstopk(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The kept values of x and their mask: int16 [..., packed_words(n)].

    x: [..., n] of a type in `_gpu.TYPES`, n <= `abstopk.WIDEST`.
    """
    n = x.shape[-1]
    source, k = x.detach().contiguous(), min(k, n)
    out = torch.empty_like(source)
    packed = torch.empty(*x.shape[:-1], packed_words(n), dtype=torch.int16, device=x.device)
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
            num_warps=min(max(words // 128, 1), 32),
        )
    return out, packed


def masked(x: Tensor, packed: Tensor) -> Tensor:
    """x [..., n] where its bit of `packed` (from `abstopk`) is set, else zero."""
    n, words = x.shape[-1], 256
    source = x.detach().contiguous()
    out = torch.empty_like(source)
    if source.numel():
        grid = (triton.cdiv(packed.numel(), words),)
        _masked[grid](source, packed.contiguous(), out, n, packed.numel(), WORDS=words, FULL=n % WORD == 0)
    return out
