"""Numba kernels of the weight projection on the CPU (see `project`). Weights come as int32 bit patterns."""

import numpy as np
from numba import njit, prange

from sparsecircuits.kernels._cpu import ABS, i32
from sparsecircuits.kernels._cpu_simd import LANES, compare_8
from sparsecircuits.kernels._jit import kernel

BLOCK = 16  # entries whose largest is compared first: one vector register or two
DIGIT = 11  # bits that one pass of the radix search settles
SAMPLE = 4096  # entries that locate the threshold
SAMPLE_SHIFT = 18  # their histogram's bins: the exponent and five bits of the mantissa
BINS = 1 << (31 - SAMPLE_SHIFT)


@kernel
def _insert(scores, places, score, place):
    """Put a score into a descending list, after its equals; the smallest falls out."""
    slot = scores.shape[0] - 1
    while slot > 0 and score > scores[slot - 1]:
        scores[slot], places[slot] = scores[slot - 1], places[slot - 1]
        slot -= 1
    scores[slot], places[slot] = score, place


@njit(nogil=True, inline="always")
def _block_reaches(row, start, threshold):
    reaches = i32(0)
    for j in range(BLOCK):
        reaches |= i32((row[start + j] & ABS) > threshold)
    return reaches != 0


@kernel
def _protect_rows(bits, places, start, stop):
    n, floor = bits.shape[1], places.shape[1]
    best = np.empty(floor, dtype=np.int32)
    for r in range(start, stop):
        row, mine = bits[r], places[r]
        best[:] = -1
        whole = n - n % BLOCK
        for block in range(0, whole, BLOCK):
            if _block_reaches(row, block, best[floor - 1]):
                for j in range(block, block + BLOCK):
                    if (row[j] & ABS) > best[floor - 1]:
                        _insert(best, mine, row[j] & ABS, r * n + j)
        for j in range(whole, n):
            if (row[j] & ABS) > best[floor - 1]:
                _insert(best, mine, row[j] & ABS, r * n + j)


@njit(nogil=True, inline="always")
def _block_beats(row, start, smallest, first):
    beats = i32(0)
    for j in range(BLOCK):
        beats |= i32((row[start + j] & ABS) > smallest[first + j])
    return beats != 0


@kernel
def _protect_columns(bits, places, start, stop):
    """Row by row, so that memory is read in order."""
    rows, n = bits.shape
    floor, width = places.shape[1], stop - start
    best = np.full((width, floor), i32(-1), dtype=np.int32)
    smallest = np.full(width, i32(-1), dtype=np.int32)
    whole = width - width % BLOCK
    for r in range(rows):
        row = bits[r]
        for block in range(0, width, BLOCK):
            if block < whole and not _block_beats(row, start + block, smallest, block):
                continue
            for j in range(block, min(block + BLOCK, width)):
                score = row[start + j] & ABS
                if score > smallest[j]:
                    _insert(best[j], places[start + j], score, r * n + start + j)
                    smallest[j] = best[j, floor - 1]


@kernel(parallel=True)
def protect(bits, places, dim, chunks):
    """places[unit, :] = flat positions of the largest entries of every unit (among equals the first).

    bits: int32[rows, columns]; units are rows (dim 1) or columns (dim 0); places: int64[units, floor].
    """
    units = places.shape[0]
    for c in prange(chunks):
        if dim == 1:
            _protect_rows(bits, places, c * units // chunks, (c + 1) * units // chunks)
        else:
            _protect_columns(bits, places, c * units // chunks, (c + 1) * units // chunks)


@kernel
def _bracket(bits, k):
    """Bit patterns (low, high) that the k-th largest magnitude very probably lies between, from a sample."""
    n = bits.shape[0]
    stride = max(1, n // SAMPLE)
    counts = np.zeros(BINS, dtype=np.int32)
    taken = 0
    for i in range(stride // 2, n, stride):
        counts[(bits[i] & ABS) >> SAMPLE_SHIFT] += 1
        taken += 1
    share = k / n
    expected, slack = share * taken, 5.0 * np.sqrt(taken * share * (1 - share)) + 8.0
    low, high, above = 0, BINS, 0
    for b in range(BINS - 1, -1, -1):
        if above + counts[b] < expected - slack:
            high = b
        above += counts[b]
        if above > expected + slack:
            low = b
            break
    return i32(low << SAMPLE_SHIFT), i32((high << SAMPLE_SHIFT) - 1)


@kernel
def _collect_part(bits, low, high, found):
    n, size, over = bits.shape[0], 0, 0
    whole = n - n % LANES
    for start in range(0, whole, LANES):
        seen: int = compare_8(bits, start, ABS, low, high)  # type: ignore[call-arg]
        over += seen >> 8
        seen &= 255
        if seen != 0:
            for j in range(LANES):
                found[size] = bits[start + j] & ABS
                size += (seen >> j) & 1
    for i in range(whole, n):
        score = bits[i] & ABS
        over += score > high
        found[size] = score
        size += (score >= low) & (score <= high)
    return size, over


@kernel(parallel=True)
def _collect(bits, low, high, found, sizes, above, chunks):
    """Per chunk: magnitudes in low..high into found[chunk], their number, and how many are above high."""
    n = bits.shape[0]
    for c in prange(chunks):
        sizes[c], above[c] = _collect_part(bits[c * n // chunks : (c + 1) * n // chunks], low, high, found[c])


@kernel
def _select(found, sizes, low, high, k):
    """Radix search over the collected magnitudes, all in low..high: (the k-th largest, how many of its equals are
    in the k, how many there are). Digits of 11 bits of what lies above `low`, the highest first."""
    top = 1
    while (np.int64(high) - low) >> top:
        top += 1
    prefix, above, left = np.int64(0), top, k  # digits known so far, and the bit they end at
    counts, equal = np.empty(1 << DIGIT, dtype=np.int64), np.int64(0)
    while above > 0:
        shift = max(above - DIGIT, 0)
        last = (1 << (above - shift)) - 1
        counts[: last + 1] = 0
        for c in range(found.shape[0]):
            for i in range(sizes[c]):
                score = np.int64(found[c, i]) - low
                if (score >> above) == prefix:
                    counts[(score >> shift) & last] += 1
        digit = last
        while counts[digit] < left:
            left -= counts[digit]
            digit -= 1
        prefix, above, equal = (prefix << (above - shift)) | digit, shift, counts[digit]
    return i32(low + prefix), left, equal


@kernel
def threshold(bits, k, chunks):
    """(the k-th largest magnitude as bits, how many of its equals are among the k largest, how many there are).

    bits: flat int32, 0 < k <= size. A sample brackets the answer; one pass counts what is above the bracket
    and collects what is in it; a radix search over that is exact. A sample that misled widens the bracket.
    """
    n = bits.shape[0]
    low, high = _bracket(bits, k)
    found = np.empty((chunks, n // chunks + 2), dtype=np.int32)
    sizes, above = np.empty(chunks, dtype=np.int64), np.empty(chunks, dtype=np.int64)
    while True:
        _collect(bits, low, high, found, sizes, above, chunks)
        over, inside = above.sum(), sizes.sum()
        if over >= k:
            low, high = i32(high + 1), ABS
        elif over + inside < k:
            low, high = i32(0), i32(low - 1)
        else:
            return _select(found, sizes, low, high, k - over)


@kernel(parallel=True)
def _zero_below(bits, lowest, chunks):
    n = bits.shape[0]
    for c in prange(chunks):
        for i in range(c * n // chunks, (c + 1) * n // chunks):
            bits[i] = bits[i] if (bits[i] & ABS) >= lowest else i32(0)


@kernel
def _drop_ties(bits, tie, keep):
    for i in range(bits.shape[0]):
        if (bits[i] & ABS) == tie:
            if keep == 0:
                bits[i] = 0
            else:
                keep -= 1


@kernel
def keep_largest(bits, k, chunks):
    """Zero all but the k largest magnitudes of flat int32 `bits` in place; among equals the first stay."""
    if k == 0:
        bits[:] = 0
        return
    lowest, keep, equal = threshold(bits, k, chunks)
    _zero_below(bits, lowest, chunks)
    if equal > keep:
        _drop_ties(bits, lowest, keep)


@kernel
def project(bits, k, floor, dim, chunks):
    """Keep k entries of int32[rows, columns] `bits` in place: the `floor` largest of every unit, then the
    largest of the rest. The protected entries step aside while the rest compete."""
    flat = bits.reshape(-1)
    if floor == 0:
        keep_largest(flat, k, chunks)
        return
    places = np.zeros((bits.shape[1 - dim], floor), dtype=np.int64)
    protect(bits, places, dim, chunks)
    spots = places.reshape(-1)
    kept = np.empty(spots.shape[0], dtype=np.int32)
    for i in range(spots.shape[0]):
        kept[i] = flat[spots[i]]
        flat[spots[i]] = 0
    keep_largest(flat, k - spots.shape[0], chunks)
    for i in range(spots.shape[0]):
        flat[spots[i]] = kept[i]
