"""Numba kernels for the cross-entropy of a chunk of rows, in place."""

import math

import numpy as np
from numba import prange

from sparsecircuits.kernels._cpu_exp import exponentials, largest
from sparsecircuits.kernels._jit import kernel

f32 = np.float32


@kernel(fastmath={"contract", "reassoc", "nsz"})
def _add(row, other):
    for j in range(row.shape[0]):
        row[j] += other[j]


@kernel
def _row(row, table_row, use_table, target, weight):
    if use_table:
        _add(row, table_row)
    top, wanted = largest(row), row[target]
    total = exponentials(row, top)
    factor = weight / total
    for j in range(row.shape[0]):
        row[j] *= factor
    row[target] -= weight
    return top + math.log(total) - wanted


@kernel(parallel=True)
def cross_entropy_rows(logits, table, ids, targets, weight, losses, chunks):
    """logits[n, V] (+ table[ids] where the table is not empty) become weight * (softmax - one-hot), in place;
    losses[n] = -log softmax[target]."""
    n, use_table = logits.shape[0], table.shape[0] > 0
    for chunk in prange(chunks):
        for r in range(chunk * n // chunks, (chunk + 1) * n // chunks):
            table_row = table[ids[r]] if use_table else logits[r]
            losses[r] = _row(logits[r], table_row, use_table, targets[r], f32(weight))


@kernel(parallel=True)
def add_rows(table, ids, rows, chunks):
    """table[ids[r]] += rows[r] for all r; threads own columns, so that equal ids do not race."""
    width = table.shape[1]
    for chunk in prange(chunks):
        start, stop = chunk * width // chunks, (chunk + 1) * width // chunks
        for r in range(ids.shape[0]):
            _add(table[ids[r], start:stop], rows[r, start:stop])
