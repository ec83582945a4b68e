"""Numba kernels for the CPU. They see float32 as int32 bit patterns: |x| orders like its bits.

Numba compiles on first use and caches on disk, so that no compiler is needed on the user's machine.
Its fallback thread pool must not be entered by two threads at once; `LOCK` guards every parallel call, and gives it as
many threads as PyTorch may use. (Numba's own count is that of the cores: threads without work would wait for it
spinning, which takes the cores from other processes.)
"""

import os
import threading

import numba
import numpy as np
import torch
from numba import njit, prange

from sparsecircuits.errors import UserError
from sparsecircuits.kernels._jit import kernel


class _Guard:
    """A lock whose holder runs with PyTorch's number of threads. A fork waits for it; in the child there is no thread
    that could run a kernel, so that it would hang or be ended by OpenMP: there it is an error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forked = False
        if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._become_child
            )

    def _become_child(self) -> None:
        self._forked = True
        self._lock.release()

    def __enter__(self) -> None:
        if self._forked:
            raise UserError(
                "a process that was forked from one with kernels cannot run them: start it afresh, as "
                'multiprocessing.get_context("spawn") does'
            )
        self._lock.acquire()
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _start_pool() -> None:
    """Start Numba's threads, which sets OpenMP's number of threads to that of the cores, and with it PyTorch's where
    both use one OpenMP: put it back."""
    threads = torch.get_num_threads()
    numba.set_num_threads(1)
    torch.set_num_threads(threads)


LOCK = _Guard()
_start_pool()

i32 = np.int32
ABS = np.int32(0x7FFFFFFF)


@njit(nogil=True, inline="always")
def _count_at_least(row, n, threshold):
    count = i32(0)
    for j in range(n):
        count = i32(count + i32((row[j] & ABS) >= threshold))
    return count


@kernel
def row_threshold(row, n, k, guess):
    """The k-th largest |row|, as bits, and whether exactly k entries reach it.

    A bracketing search (interpolation with a bisection every third step) over bit patterns: each step
    is one vectorised count. The neighbouring row's threshold is a good first guess.
    """
    low, count_low = i32(0), n  # at least k entries reach `low`
    high, count_high = ABS, 0  # fewer than k entries reach `high`, or it is the largest pattern
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
        elif high == ABS:
            following = np.int64(low) + min(jump, gap // 2)
        elif step % 3 == 0:
            following = np.int64(low) + gap // 2
        else:
            following = np.int64(low) + np.int64(gap * (count_low - k) / (count_low - count_high))
        threshold = i32(max(np.int64(low) + 1, min(np.int64(high) - 1, following)))
    return low, False


@kernel
def keep_row(row, out, mask, n, k, threshold, exact):
    """out = row where it is among the k largest magnitudes, as `row_threshold` found them, else 0."""
    if exact:
        for j in range(n):
            keep = (row[j] & ABS) >= threshold
            out[j] = row[j] if keep else i32(0)
            mask[j] = keep
        return
    left = k  # ties at the threshold: the first ones by index survive
    for j in range(n):
        keep = (row[j] & ABS) > threshold
        mask[j] = keep
        left -= keep
    for j in range(n):
        if left > 0 and (row[j] & ABS) == threshold:
            mask[j] = True
            left -= 1
        out[j] = row[j] if mask[j] else i32(0)


@kernel
def _abstopk_rows(bits, out, mask, k, start, stop):
    n = bits.shape[1]
    threshold = i32(0x3F800000)
    for r in range(start, stop):
        threshold, exact = row_threshold(bits[r], n, k, max(i32(1), threshold))
        keep_row(bits[r], out[r], mask[r], n, k, threshold, exact)


@kernel(parallel=True)
def abstopk(bits, out, mask, k, chunks):
    """Keep the k largest |x| of each row. bits, out: int32[rows, n]; mask: bool[rows, n]; 0 < k < n."""
    rows = bits.shape[0]
    for c in prange(chunks):
        _abstopk_rows(bits, out, mask, k, c * rows // chunks, (c + 1) * rows // chunks)


@kernel(parallel=True)
def masked_copy(bits, mask, out, chunks):
    """out = bits where mask (0 or 1), else 0; flat arrays: int32 bit patterns, mask uint8.

    Without a branch: a random mask would be mispredicted every few entries.
    """
    n = bits.shape[0]
    for c in prange(chunks):
        for i in range(c * n // chunks, (c + 1) * n // chunks):
            out[i] = bits[i] & -i32(mask[i])


@kernel(parallel=True, fastmath={"contract", "reassoc", "nsz"})
def gate_backward(grad, x, gate, frozen, dx, partial, chunks):
    """dx = grad * gate; partial[chunk] = Σ over the chunk's rows of grad * (x - frozen). All [rows, n]."""
    rows, n = grad.shape
    for c in prange(chunks):
        total = partial[c]
        for r in range(c * rows // chunks, (c + 1) * rows // chunks):
            for j in range(n):
                dx[r, j] = grad[r, j] * gate[j]
                total[j] += grad[r, j] * (x[r, j] - frozen[j])
