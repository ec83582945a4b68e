"""Numba kernels for the CPU. They see float32 as int32 bit patterns: |x| orders like its bits.

Numba compiles on first use and caches on disk, so that no compiler is needed on the user's machine.
Its fallback thread pool must not be entered by two threads at once; `LOCK` guards every parallel call.
"""

import threading

import numpy as np
from numba import njit, prange

LOCK = threading.Lock()

i32 = np.int32
ABS = np.int32(0x7FFFFFFF)
TOP = np.int32(0x7FFFFFFF)


@njit(nogil=True, inline="always")
def _count_at_least(row, n, threshold):
    count = i32(0)
    for j in range(n):
        count = i32(count + i32((row[j] & ABS) >= threshold))
    return count


@njit(nogil=True, cache=True)
def _row_threshold(row, n, k, guess):
    """The k-th largest |row|, as bits, and whether exactly k entries reach it.

    A bracketing search (interpolation with a bisection every third step) over bit patterns: each step
    is one vectorised count. The neighbouring row's threshold is a good first guess.
    """
    low, count_low = i32(0), n  # at least k entries reach `low`
    high, count_high = TOP, 0  # fewer than k entries reach `high`, or it is the largest pattern
    threshold, step = guess, 0
    while high - low > 1:
        count = _count_at_least(row, n, threshold)
        if count == k:
            return threshold, True
        if count > k:
            low, count_low = threshold, count
        else:
            high, count_high = threshold, count
        step += 1
        gap = np.int64(high) - np.int64(low)
        jump = np.int64(1) << np.int64(min(18 + 2 * step, 30))
        if low == 0:
            following = np.int64(high) - min(jump, gap // 2)
        elif high == TOP:
            following = np.int64(low) + min(jump, gap // 2)
        elif step % 3 == 0:
            following = np.int64(low) + gap // 2
        else:
            following = np.int64(low) + np.int64(gap * (count_low - k) / (count_low - count_high))
        threshold = i32(max(np.int64(low) + 1, min(np.int64(high) - 1, following)))
    return low, False


@njit(nogil=True, cache=True)
def _abstopk_rows(bits, out, mask, k, start, stop):
    n = bits.shape[1]
    threshold = i32(0x3F800000)
    for r in range(start, stop):
        row, out_row, mask_row = bits[r], out[r], mask[r]
        threshold, exact = _row_threshold(row, n, k, max(i32(1), threshold))
        if exact:
            for j in range(n):
                keep = (row[j] & ABS) >= threshold
                out_row[j] = row[j] if keep else i32(0)
                mask_row[j] = keep
            continue
        left = k  # ties at the threshold: the first ones by index survive
        for j in range(n):
            keep = (row[j] & ABS) > threshold
            mask_row[j] = keep
            left -= keep
        for j in range(n):
            if left > 0 and (row[j] & ABS) == threshold:
                mask_row[j] = True
                left -= 1
            out_row[j] = row[j] if mask_row[j] else i32(0)


@njit(nogil=True, parallel=True, cache=True)
def abstopk(bits, out, mask, k, chunks):
    """Keep the k largest |x| of each row. bits, out: int32[rows, n]; mask: bool[rows, n]; 0 < k < n."""
    rows = bits.shape[0]
    for c in prange(chunks):
        _abstopk_rows(bits, out, mask, k, c * rows // chunks, (c + 1) * rows // chunks)


@njit(nogil=True, parallel=True, cache=True)
def masked_copy(grad, mask, out, chunks):
    """out = grad where mask, else 0; flat float32 arrays."""
    n = grad.shape[0]
    for c in prange(chunks):
        for i in range(c * n // chunks, (c + 1) * n // chunks):
            out[i] = grad[i] if mask[i] else np.float32(0)


@njit(nogil=True, cache=True)
def _protect_rows(scores, floor, start, stop):
    """Give the `floor` largest entries of each row the top score (ties: first by index)."""
    n = scores.shape[1]
    for r in range(start, stop):
        row = scores[r]
        for _ in range(floor):
            best, where = i32(-1), 0
            for j in range(n):
                if row[j] > best and row[j] != TOP:
                    best, where = row[j], j
            row[where] = TOP


@njit(nogil=True, cache=True)
def _protect_columns(scores, floor, start, stop):
    """As `_protect_rows` for columns [start, stop), row by row so that memory is read in order."""
    rows, width = scores.shape[0], stop - start
    best = np.full((floor, width), i32(-1), dtype=np.int32)
    where = np.zeros((floor, width), dtype=np.int32)
    for r in range(rows):
        for j in range(width):
            score = scores[r, start + j]
            if score > best[floor - 1, j]:
                slot = floor - 1
                while slot > 0 and score > best[slot - 1, j]:
                    best[slot, j], where[slot, j] = best[slot - 1, j], where[slot - 1, j]
                    slot -= 1
                best[slot, j], where[slot, j] = score, i32(r)
    for f in range(floor):
        for j in range(width):
            scores[where[f, j], start + j] = TOP


@njit(nogil=True, parallel=True, cache=True)
def protect(scores, floor, dim, chunks):
    """Mark the `floor` largest entries along `dim` of int32 scores as unbeatable, in place."""
    units = scores.shape[1 - dim]
    for c in prange(chunks):
        if dim == 1:
            _protect_rows(scores, floor, c * units // chunks, (c + 1) * units // chunks)
        else:
            _protect_columns(scores, floor, c * units // chunks, (c + 1) * units // chunks)


@njit(nogil=True, parallel=True, cache=True)
def magnitudes(bits, scores, chunks):
    """scores = |weights| as bit patterns, below the reserved top pattern; flat int32 arrays."""
    n = bits.shape[0]
    for c in prange(chunks):
        for i in range(c * n // chunks, (c + 1) * n // chunks):
            scores[i] = min(bits[i] & ABS, TOP - i32(1))


@njit(nogil=True, parallel=True, cache=True)
def _histogram(scores, prefix, prefix_shift, shift, mask, counts):
    """Per chunk, count the digit (score >> shift) & mask among scores whose higher bits equal prefix."""
    chunks, n = counts.shape[0], scores.shape[0]
    for c in prange(chunks):
        local = counts[c]
        for i in range(c * n // chunks, (c + 1) * n // chunks):
            if (scores[i] >> prefix_shift) == prefix:
                local[(scores[i] >> shift) & mask] += 1


@njit(nogil=True, cache=True)
def kth_largest(scores, k, chunks):
    """Radix search: the k-th largest of non-negative int32 scores and how many of its ties to keep."""
    prefix, prefix_shift, left = i32(0), 31, k
    for shift, bits in ((20, 11), (10, 10), (0, 10)):
        counts = np.zeros((chunks, 1 << bits), dtype=np.int64)
        _histogram(scores, prefix, prefix_shift, shift, (1 << bits) - 1, counts)
        digit = (1 << bits) - 1
        while True:
            here = counts[:, digit].sum()
            if here >= left:
                break
            left -= here
            digit -= 1
        prefix = i32((prefix << bits) | digit)
        prefix_shift = shift
    return prefix, left


@njit(nogil=True, cache=True)
def zero_below(scores, weights, threshold, ties):
    """Zero the weights whose score is below the threshold; of the ties keep the first `ties`."""
    left = ties
    for i in range(scores.shape[0]):
        if scores[i] == threshold:
            if left > 0:
                left -= 1
            else:
                weights[i] = 0
        elif scores[i] < threshold:
            weights[i] = 0


@njit(nogil=True, parallel=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def gate_backward(grad, x, gate, frozen, dx, partial, chunks):
    """dx = grad * gate; partial[chunk] = Σ over the chunk's rows of grad * (x - frozen). All [rows, n]."""
    rows, n = grad.shape
    for c in prange(chunks):
        total = partial[c]
        for r in range(c * rows // chunks, (c + 1) * rows // chunks):
            for j in range(n):
                dx[r, j] = grad[r, j] * gate[j]
                total[j] += grad[r, j] * (x[r, j] - frozen[j])
