"""Numba kernels for products with a sparse matrix on the CPU.

Tokens are taken in blocks of 64 and turned, so that every nonzero is one vector multiply-add over the
block's tokens; outputs are turned back 16 at a time (one cache line).
"""

import numpy as np
from numba import njit, prange

BLOCK, TILE = 64, 16


@njit(nogil=True, cache=True)
def compress(weight, transpose):
    """Nonzeros by row (by column when `transpose`): (starts int64[n + 1], indices int32, values float32)."""
    rows, columns = weight.shape
    units = columns if transpose else rows
    starts = np.zeros(units + 1, dtype=np.int64)
    for r in range(rows):
        for c in range(columns):
            if weight[r, c] != 0:
                starts[(c if transpose else r) + 1] += 1
    for unit in range(units):
        starts[unit + 1] += starts[unit]
    place = starts[:-1].copy()
    indices = np.empty(starts[units], dtype=np.int32)
    values = np.empty(starts[units], dtype=np.float32)
    for r in range(rows):
        for c in range(columns):
            w = weight[r, c]
            if w != 0:
                unit = c if transpose else r
                indices[place[unit]] = r if transpose else c
                values[place[unit]] = w
                place[unit] += 1
    return starts, indices, values


@njit(nogil=True, cache=True, fastmath={"contract"})
def _block(x, starts, indices, values, bias, y, first, last, turned, sums):
    width, n_out = last - first, y.shape[1]
    for t in range(width):
        for i in range(x.shape[1]):
            turned[i, t] = x[first + t, i]
    for tile in range(0, n_out, TILE):
        stop = min(tile + TILE, n_out)
        for o in range(tile, stop):
            row, start_value = sums[o - tile], bias[o]
            for t in range(BLOCK):
                row[t] = start_value
            for p in range(starts[o], starts[o + 1]):
                w, column = values[p], turned[indices[p]]
                for t in range(BLOCK):
                    row[t] += w * column[t]
        for t in range(width):
            for o in range(tile, stop):
                y[first + t, o] = sums[o - tile, t]


@njit(nogil=True, parallel=True, cache=True)
def sparse_product(x, starts, indices, values, bias, y, chunks):
    """y[n, out] = x[n, in] · Wᵀ + bias[out], W given by its nonzeros by output."""
    rows = x.shape[0]
    blocks = (rows + BLOCK - 1) // BLOCK
    for chunk in prange(chunks):
        turned = np.zeros((x.shape[1], BLOCK), dtype=np.float32)
        sums = np.zeros((TILE, BLOCK), dtype=np.float32)
        for b in range(chunk * blocks // chunks, (chunk + 1) * blocks // chunks):
            first = b * BLOCK
            _block(x, starts, indices, values, bias, y, first, min(rows, first + BLOCK), turned, sums)
