"""Numba kernel: unembedding by a weight's nonzeros and cross-entropy, 64 tokens at a time.

Logits lie turned, a vocabulary entry's 64 tokens beside one another: products with nonzeros want it so, before and
after, and the softmax's 64 tokens advance together. They are read three times: as they are made, for their
exponentials, and for the gradients.
"""

import math

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsecircuits.kernels._cpu_exp import exponential
from sparsecircuits.kernels._cpu_held_mlp import BLOCK, add_up, turn_in
from sparsecircuits.kernels._cpu_simd import (
    WIDE,
    accumulate,
    at,
    constant,
    data_of,
    i64,
    sampled_dots,
    scatter,
    total_of,
    turn,
    wide,
)
from sparsecircuits.kernels._jit import kernel

TILE = 128  # vocabulary entries whose part of the table is turned at a time: eight cache lines of a row
f32 = np.float32
_PARTS = [ir.Constant(i64, part) for part in range(0, BLOCK, WIDE)]


@intrinsic
def _raise_tops(typingctx, row, start, tops):  # type: ignore[no-untyped-def]
    """tops[:64] = the larger of it and row[start : start + 64], NaN apart."""
    signature = types.void(row, types.int64, tops)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data, tops = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 2))
        for part in _PARTS:
            value = builder.load(at(builder, data, builder.add(arguments[1], part), wide), align=4)
            there = at(builder, tops, part, wide)
            best = builder.load(there, align=4)
            builder.store(builder.select(builder.fcmp_ordered(">", value, best), value, best), there, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _exponentials(typingctx, logits, entries, tops, totals):  # type: ignore[no-untyped-def]
    """logits = exp(logits - top) in place for each entry's 64 tokens; their sums in totals[:64]."""
    signature = types.void(logits, types.int64, tops, totals)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data, tops, totals = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 2, 3))
        shifts = [builder.load(at(builder, tops, part, wide), align=4) for part in _PARTS]
        sums = [cgutils.alloca_once_value(builder, constant(0.0, wide)) for _ in _PARTS]
        with cgutils.for_range(builder, arguments[1]) as loop:
            first = builder.mul(loop.index, ir.Constant(i64, BLOCK))
            for part, shift, held in zip(_PARTS, shifts, sums, strict=True):
                there = at(builder, data, builder.add(first, part), wide)
                value = exponential(builder, builder.fsub(builder.load(there, align=4), shift))
                builder.store(value, there, align=4)
                builder.store(builder.fadd(builder.load(held), value), held)
        for part, held in zip(_PARTS, sums, strict=True):
            builder.store(builder.load(held), at(builder, totals, part, wide), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _scaled(typingctx, row, start, factors):  # type: ignore[no-untyped-def]
    """row[start : start + 64] *= factors[:64]; returns the sum."""
    signature = types.float32(row, types.int64, factors)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data, factors = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 2))
        total = constant(0.0, wide)
        for part in _PARTS:
            there = at(builder, data, builder.add(arguments[1], part), wide)
            factor = builder.load(at(builder, factors, part, wide), align=4)
            value = builder.fmul(builder.load(there, align=4), factor)
            builder.store(value, there, align=4)
            total = builder.fadd(total, value)
        return total_of(builder, total)

    return signature, generate


@kernel
def _add_table(table, ids, first, width, tile, gathered, turned, logits):
    """logits[tile : tile + TILE] += these columns of the table's rows of a block's tokens, turned."""
    entries = min(TILE, table.shape[1] - tile)
    for t in range(width):
        for e in range(entries):
            gathered[t * TILE + e] = table[ids[first + t], tile + e]
    turn(gathered, 0, TILE, width, TILE, turned, 0, BLOCK)
    for i in range(entries * BLOCK):
        logits[tile * BLOCK + i] += turned[i]


@kernel
def _logits(hidden, starts, columns, values, bias, table, ids, first, width, gathered, turned, logits, tops):
    """A block's logits, and the largest of each token."""
    tops[:] = -np.inf
    for tile in range(0, bias.shape[0], TILE):
        end = min(tile + TILE, bias.shape[0])
        for v in range(tile, end):
            logits[v * BLOCK : (v + 1) * BLOCK] = bias[v]
            accumulate(logits, v * BLOCK, values, columns, starts[v], starts[v + 1], hidden, 0, BLOCK)  # type: ignore[call-arg]
        if table.shape[0] > 0:
            _add_table(table, ids, first, width, tile, gathered, turned, logits)
        for v in range(tile, end):
            _raise_tops(logits, v * BLOCK, tops)  # type: ignore[call-arg]


@kernel
def _gradients(logits, factors, starts, columns, values, hidden, d_hidden, d_values, d_bias):
    """What the errors, `factors` times `logits` without their targets' part, give to all gradients."""
    for v in range(d_bias.shape[0]):
        here, p, end = v * BLOCK, starts[v], starts[v + 1]
        d_bias[v] += _scaled(logits, here, factors)  # type: ignore[call-arg]
        sampled_dots(d_values, columns, p, end, logits, here, hidden, BLOCK)  # type: ignore[call-arg]
        scatter(d_hidden, BLOCK, values, columns, p, end, logits[here : here + BLOCK])  # type: ignore[call-arg]


@kernel(parallel=True)
def held_cross_entropy(
    hidden, weight, values, bias, table, ids, targets, share, losses, errors, d_hidden, d_values, d_bias, groups, chunks
):
    """losses[n] = -log softmax[target] of the logits hidden · Wᵀ + bias (+ table[ids] where the table is not empty), W
    [V, D] given by (starts, columns) by row; and the gradients of `share` times their sum: by the logits in errors
    [n, V] (not where it is empty), by hidden, W's values and bias.

    Blocks are summed in `groups`, and these at the end: the numbers are the same for any number of threads.
    """
    n, wide_in, entries = hidden.shape[0], hidden.shape[1], bias.shape[0]
    blocks, (starts, columns) = (n + BLOCK - 1) // BLOCK, weight
    source, target, written = hidden.reshape(-1), d_hidden.reshape(-1), errors.reshape(-1)
    value_sums = np.zeros((groups, d_values.shape[0]), dtype=np.float32)
    bias_sums = np.zeros((groups, entries), dtype=np.float32)
    for chunk in prange(chunks):
        inside, back = np.zeros(wide_in * BLOCK, dtype=np.float32), np.empty(wide_in * BLOCK, dtype=np.float32)
        logits = np.empty(entries * BLOCK, dtype=np.float32)
        gathered, turned = np.zeros(BLOCK * TILE, dtype=np.float32), np.zeros(TILE * BLOCK, dtype=np.float32)
        tops, totals = np.empty(BLOCK, dtype=np.float32), np.empty(BLOCK, dtype=np.float32)
        for group in range(chunk * groups // chunks, (chunk + 1) * groups // chunks):
            for block in range(group * blocks // groups, (group + 1) * blocks // groups):
                first = block * BLOCK
                width = turn_in(source, block, n, wide_in, inside)
                _logits(inside, starts, columns, values, bias, table, ids, first, width, gathered, turned, logits, tops)
                for t in range(width):
                    losses[first + t] = tops[t] - logits[targets[first + t] * BLOCK + t]
                _exponentials(logits, entries, tops, totals)  # type: ignore[call-arg]
                for t in range(width):
                    losses[first + t] += f32(math.log(totals[t]))
                    logits[targets[first + t] * BLOCK + t] -= totals[t]
                    totals[t] = f32(share) / totals[t]
                totals[width:] = 0
                back[:] = 0
                _gradients(logits, totals, starts, columns, values, inside, back, value_sums[group], bias_sums[group])
                turn(back, 0, BLOCK, wide_in, width, target, first * wide_in, wide_in)
                if errors.shape[0] > 0:
                    turn(logits, 0, BLOCK, entries, width, written, first * entries, entries)
    add_up(value_sums, d_values)
    add_up(bias_sums, d_bias)
