"""Numba kernels: an MLP whose two weights are held as their nonzeros, 64 tokens at a time from end to end.

What is as wide as the MLP's units stays in the cache: the activations of one block going forward, of one unit going
back. There everything about a unit is done in one go, so that it is read and written once.
"""

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsecircuits.kernels._cpu_gelu import gelu_slope, normal_share
from sparsecircuits.kernels._cpu_lane_topk import (
    ABOVE,
    ABSENT,
    BYTES,
    KEYS,
    LEVEL,
    choose,
    keep,
    kept_lanes,
    keys_of,
    padded_units,
)
from sparsecircuits.kernels._cpu_simd import (
    WIDE,
    WIDTH,
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

BLOCK = WIDTH
ONE = 0x3F80  # the key of 1.0


@intrinsic
def _gelu(typingctx, h, start, keys, place, step):  # type: ignore[no-untyped-def]
    """h[start : start + 64] = GELU of it; keys[place + g * step :][:KEYS] = the keys of its lanes, KEYS for each g."""
    signature = types.void(h, types.int64, keys, types.int64, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, start, _, place, step = arguments
        data, keys = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 2))
        with cgutils.for_range(builder, ir.Constant(i64, WIDTH // KEYS)) as loop:
            first = builder.add(start, builder.mul(loop.index, ir.Constant(i64, KEYS)))
            values = []
            for k in (0, WIDE):
                target = at(builder, data, builder.add(first, ir.Constant(i64, k)), wide)
                x = builder.load(target, align=4)
                values.append(builder.fmul(x, normal_share(builder, x)))
                builder.store(values[-1], target, align=4)
            made = keys_of(builder, *values)
            there = builder.add(place, builder.mul(loop.index, step))
            builder.store(made, at(builder, keys, there, made.type), align=2)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _gelu_backward(typingctx, h, grad, kept, place):  # type: ignore[no-untyped-def]
    """A unit's 64 tokens: where kept, h[:64] = GELU(h) and grad[:64] *= its derivative, elsewhere both are 0. Returns
    the sum of grad."""
    signature = types.float32(h, grad, kept, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        values, grads, kept = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 1, 2))
        nothing = constant(0.0, wide)
        total = cgutils.alloca_once_value(builder, nothing)
        with cgutils.for_range(builder, ir.Constant(i64, WIDTH // WIDE)) as loop:
            part = builder.mul(loop.index, ir.Constant(i64, WIDE))
            value, grad = at(builder, values, part, wide), at(builder, grads, part, wide)
            here = kept_lanes(builder, kept, arguments[3], loop.index)
            x = builder.load(value, align=4)
            phi = normal_share(builder, x)
            back = builder.fmul(builder.load(grad, align=4), gelu_slope(builder, x, phi))
            back = builder.select(here, back, nothing)
            builder.store(builder.select(here, builder.fmul(x, phi), nothing), value, align=4)
            builder.store(back, grad, align=4)
            builder.store(builder.fadd(builder.load(total), back), total)
        return total_of(builder, builder.load(total))

    return signature, generate


@kernel
def turn_in(source, block, rows, n, turned):
    """A block's tokens of source [rows, n], flat, turned: n rows of 64. Returns how many tokens there are."""
    first = block * BLOCK
    width = min(rows - first, BLOCK)
    if width < BLOCK:  # what an earlier block left would be summed
        turned[:] = 0
    turn(source, first * n, n, width, n, turned, 0, BLOCK)
    return width


@kernel
def _hidden(turned, starts, columns, values, bias, padded, h, keys):
    """h[units, 64] = GELU(W turned + bias), and the keys of it."""
    for u in range(bias.shape[0]):
        here = u * BLOCK
        h[here : here + BLOCK] = bias[u]
        accumulate(h, here, values, columns, starts[u], starts[u + 1], turned, 0, BLOCK)  # type: ignore[call-arg]
        _gelu(h, here, keys, u * KEYS, padded * KEYS)  # type: ignore[call-arg]


@kernel
def _outputs(bits, state, ties, starts, rows, values, bias, row, out, kept, place):
    """out[outputs, 64] = W a + bias, W given by column, where a is what was chosen of the units' values."""
    for o in range(bias.shape[0]):
        out[o * BLOCK : (o + 1) * BLOCK] = bias[o]
    chosen = row.view(np.int32)
    for u in range(starts.shape[0] - 1):
        keep(bits, u * BLOCK, state, ties, chosen, kept, place + u * BYTES)  # type: ignore[call-arg]
        scatter(out, BLOCK, values, rows, starts[u], starts[u + 1], row)  # type: ignore[call-arg]


@kernel(parallel=True)
def held_mlp(x, k, fc, fc_values, fc_bias, proj, proj_values, proj_bias, y, kept, chunks):
    """y[tokens, outputs] = W_proj AbsTopK(GELU(W_fc x + b_fc)) + b_proj; 0 < k, and from the number of units on all are
    kept. kept: uint8[blocks, units, 8], a bit for each of a block's tokens.

    fc: (starts, columns) of W_fc by row; proj: (starts, rows) of W_proj by column; values in the same orders.
    """
    rows, n_in, n, n_out = x.shape[0], x.shape[1], fc_bias.shape[0], y.shape[1]
    blocks, padded = (rows + BLOCK - 1) // BLOCK, padded_units(n)
    source, target, flags = x.reshape(-1), y.reshape(-1), kept.reshape(-1)
    fc_starts, fc_columns = fc
    proj_starts, proj_rows = proj
    for chunk in prange(chunks):
        turned, out = np.zeros(n_in * BLOCK, dtype=np.float32), np.empty(n_out * BLOCK, dtype=np.float32)
        h, row = np.empty(n * BLOCK, dtype=np.float32), np.empty(BLOCK, dtype=np.float32)
        keys, candidates = np.full(padded * BLOCK, ABSENT, dtype=np.int16), np.empty((BLOCK, n), dtype=np.int32)
        state, short = np.zeros((8, BLOCK), dtype=np.int32), np.zeros((2, BLOCK), dtype=np.int16)
        state[LEVEL, :], state[ABOVE, :] = ONE, -1
        bits, ties = h.view(np.int32), False
        for block in range(chunk * blocks // chunks, (chunk + 1) * blocks // chunks):
            width = turn_in(source, block, rows, n_in, turned)
            _hidden(turned, fc_starts, fc_columns, fc_values, fc_bias, padded, h, keys)
            if k < n:
                ties = choose(keys, bits, n, padded, k, state, short, candidates)
            place = block * n * BYTES
            _outputs(bits, state, ties, proj_starts, proj_rows, proj_values, proj_bias, row, out, flags, place)
            turn(out, 0, BLOCK, n_out, width, target, block * BLOCK * n_out, n_out)


@kernel
def _units_backward(
    turned, dy, fc, fc_values, fc_bias, proj, proj_values, kept, place, h, dh, dx, d_fc, d_bias, d_proj
):
    """One unit after the other: its values and gradient, and what these add to the gradients of all else."""
    fc_starts, fc_columns = fc
    proj_starts, proj_rows = proj
    for u in range(fc_bias.shape[0]):
        f, f_end, p, p_end = fc_starts[u], fc_starts[u + 1], proj_starts[u], proj_starts[u + 1]
        h[:], dh[:] = fc_bias[u], np.float32(0)
        accumulate(h, 0, fc_values, fc_columns, f, f_end, turned, 0, BLOCK)  # type: ignore[call-arg]
        accumulate(dh, 0, proj_values, proj_rows, p, p_end, dy, 0, BLOCK)  # type: ignore[call-arg]
        d_bias[u] += _gelu_backward(h, dh, kept, place + u * BYTES)  # type: ignore[call-arg]
        sampled_dots(d_fc, fc_columns, f, f_end, dh, 0, turned, BLOCK)  # type: ignore[call-arg]
        sampled_dots(d_proj, proj_rows, p, p_end, h, 0, dy, BLOCK)  # type: ignore[call-arg]
        scatter(dx, BLOCK, fc_values, fc_columns, f, f_end, dh)  # type: ignore[call-arg]


@kernel
def add_up(partial, out):
    """out = the sum over partial's rows, in their order."""
    out[:] = 0
    for group in range(partial.shape[0]):
        out += partial[group]


@kernel(parallel=True)
def held_mlp_backward(
    grad, x, kept, fc, fc_values, fc_bias, proj, proj_values, dx, d_fc, d_bias, d_proj, groups, chunks
):
    """The gradients of `held_mlp` by x, both weights' values (in the orders given) and the first bias; arguments as
    there.

    Blocks are summed in `groups`, and these at the end: the numbers are the same for any number of threads.
    """
    rows, n_in, n, n_out = x.shape[0], x.shape[1], fc_bias.shape[0], grad.shape[1]
    blocks = (rows + BLOCK - 1) // BLOCK
    source, upstream, target, flags = x.reshape(-1), grad.reshape(-1), dx.reshape(-1), kept.reshape(-1)
    fc_sums = np.zeros((groups, d_fc.shape[0]), dtype=np.float32)
    bias_sums = np.zeros((groups, n), dtype=np.float32)
    proj_sums = np.zeros((groups, d_proj.shape[0]), dtype=np.float32)
    for chunk in prange(chunks):
        turned, dy = np.zeros(n_in * BLOCK, dtype=np.float32), np.zeros(n_out * BLOCK, dtype=np.float32)
        h, dh = np.empty(BLOCK, dtype=np.float32), np.empty(BLOCK, dtype=np.float32)
        out = np.empty(n_in * BLOCK, dtype=np.float32)
        for group in range(chunk * groups // chunks, (chunk + 1) * groups // chunks):
            sums = (fc_sums[group], bias_sums[group], proj_sums[group])
            for block in range(group * blocks // groups, (group + 1) * blocks // groups):
                width = turn_in(source, block, rows, n_in, turned)
                turn_in(upstream, block, rows, n_out, dy)
                out[:] = 0
                place = block * n * BYTES
                _units_backward(turned, dy, fc, fc_values, fc_bias, proj, proj_values, flags, place, h, dh, out, *sums)
                turn(out, 0, BLOCK, n_in, width, target, block * BLOCK * n_in, n_in)
    add_up(fc_sums, d_fc)
    add_up(bias_sums, d_bias)
    add_up(proj_sums, d_proj)
