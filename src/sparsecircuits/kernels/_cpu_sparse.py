"""Numba kernels for products with a sparse matrix on the CPU, and for its gradient at the nonzeros.

Tokens are taken in blocks of 64 and turned, so that every nonzero is one vector multiply-add over the block's
tokens; outputs are turned back 16 at a time (one cache line).
"""

import numpy as np
from numba import prange

from sparsecircuits.kernels._cpu_simd import WIDTH, accumulate, sampled_dots, turn
from sparsecircuits.kernels._jit import kernel

BLOCK, TILE = WIDTH, 16


@kernel
def _row_nonzeros(row, places):
    found = 0
    for c in range(row.shape[0]):
        places[found] = c
        found += row[c] != 0
    return found


@kernel(parallel=True)
def _find(weight, rows_of, columns_of, found, chunks):
    rows, columns = weight.shape
    for chunk in prange(chunks):
        places = np.empty(columns + 1, dtype=np.int32)
        total = 0
        for r in range(chunk * rows // chunks, (chunk + 1) * rows // chunks):
            here = _row_nonzeros(weight[r], places)
            for p in range(here):
                rows_of[chunk, total + p] = r
                columns_of[chunk, total + p] = places[p]
            total += here
        found[chunk] = total


@kernel
def compress(weight, count, transpose, chunks):
    """Nonzeros by row (by column when `transpose`): (starts int64[n + 1], indices int32, values float32).

    count: at least the number of nonzeros.
    """
    rows, columns = weight.shape
    rows_of, columns_of = np.empty((chunks, count), dtype=np.int32), np.empty((chunks, count), dtype=np.int32)
    found = np.empty(chunks, dtype=np.int64)
    _find(weight, rows_of, columns_of, found, chunks)
    total = found.sum()
    units = columns if transpose else rows
    starts = np.zeros(units + 1, dtype=np.int64)
    for chunk in range(chunks):
        for p in range(found[chunk]):
            starts[(columns_of[chunk, p] if transpose else rows_of[chunk, p]) + 1] += 1
    for unit in range(units):
        starts[unit + 1] += starts[unit]
    place = starts[:-1].copy()
    indices, values = np.empty(total, dtype=np.int32), np.empty(total, dtype=np.float32)
    for chunk in range(chunks):
        for p in range(found[chunk]):
            r, c = rows_of[chunk, p], columns_of[chunk, p]
            unit = c if transpose else r
            indices[place[unit]] = r if transpose else c
            values[place[unit]] = weight[r, c]
            place[unit] += 1
    return starts, indices, values


@kernel
def _block(x, starts, indices, values, bias, y, n_in, n_out, first, last, turned, sums):
    """Tokens first..last: turn them, multiply every output's nonzeros, turn back 16 outputs at a time."""
    width = last - first
    turn(x, first * n_in, n_in, width, n_in, turned, 0, BLOCK)
    for tile in range(0, n_out, TILE):
        here = min(TILE, n_out - tile)
        for o in range(here):
            sums[o * BLOCK : (o + 1) * BLOCK] = bias[tile + o]
            accumulate(sums, o * BLOCK, values, indices, starts[tile + o], starts[tile + o + 1], turned, 0, BLOCK)  # type: ignore[call-arg]
        turn(sums, 0, BLOCK, here, width, y, first * n_out + tile, n_out)


@kernel(parallel=True)
def sparse_product(x, starts, indices, values, bias, y, chunks):
    """y[n, out] = x[n, in] · Wᵀ + bias[out], W given by its nonzeros by output."""
    rows, n_in, n_out = x.shape[0], x.shape[1], y.shape[1]
    blocks = (rows + BLOCK - 1) // BLOCK
    source, target = x.reshape(-1), y.reshape(-1)
    for chunk in prange(chunks):
        turned = np.zeros(n_in * BLOCK, dtype=np.float32)
        sums = np.zeros(TILE * BLOCK, dtype=np.float32)
        for b in range(chunk * blocks // chunks, (chunk + 1) * blocks // chunks):
            first = b * BLOCK
            last = min(rows, first + BLOCK)
            _block(source, starts, indices, values, bias, target, n_in, n_out, first, last, turned, sums)


@kernel
def _sampled_block(a, b, starts, indices, n_a, n_b, first, last, turned_a, turned_b, out):
    width = last - first
    if width < BLOCK:  # what an earlier block left would be summed
        turned_a[:] = 0
        turned_b[:] = 0
    turn(a, first * n_a, n_a, width, n_a, turned_a, 0, BLOCK)
    turn(b, first * n_b, n_b, width, n_b, turned_b, 0, BLOCK)
    for r in range(n_a):
        sampled_dots(out, indices, starts[r], starts[r + 1], turned_a, r * BLOCK, turned_b, BLOCK)  # type: ignore[call-arg]


@kernel(parallel=True)
def sampled_product(a, b, starts, indices, out, chunks):
    """out[p] = Σ_t a[t, row of p] * b[t, indices[p]]: the product aᵀ · b at the places of a sparse matrix's nonzeros
    alone, given by row. a: [n, rows], b: [n, columns]."""
    rows, n_a, n_b = a.shape[0], a.shape[1], b.shape[1]
    blocks = (rows + BLOCK - 1) // BLOCK
    left, right = a.reshape(-1), b.reshape(-1)
    partial = np.zeros((chunks, out.shape[0]), dtype=np.float32)
    for chunk in prange(chunks):
        turned_a, turned_b = np.zeros(n_a * BLOCK, dtype=np.float32), np.zeros(n_b * BLOCK, dtype=np.float32)
        for block in range(chunk * blocks // chunks, (chunk + 1) * blocks // chunks):
            first = block * BLOCK
            last = min(rows, first + BLOCK)
            _sampled_block(left, right, starts, indices, n_a, n_b, first, last, turned_a, turned_b, partial[chunk])
    for p in range(out.shape[0]):
        total = np.float32(0)
        for chunk in range(chunks):
            total += partial[chunk, p]
        out[p] = total


@kernel
def gather_rows(ids, starts, indices, values, out):
    """out[t] = row ids[t] of a sparse matrix given by row; out[n, columns] is zero before."""
    for t in range(ids.shape[0]):
        for p in range(starts[ids[t]], starts[ids[t] + 1]):
            out[t, indices[p]] = values[p]


@kernel
def scatter_rows(ids, starts, indices, grad, out):
    """out[p] = Σ grad[t, indices[p]] over the t whose row ids[t] holds p: the gradient of `gather_rows`; out is zero
    before."""
    for t in range(ids.shape[0]):
        for p in range(starts[ids[t]], starts[ids[t] + 1]):
            out[p] += grad[t, indices[p]]
