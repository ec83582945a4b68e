"""Numba kernels: an attention layer whose two weights are held as their nonzeros, one sequence at a time.

Everything lies turned, a channel's positions beside one another: products with nonzeros want it so, and so does the
softmax, whose 32 queries advance together (scores are [keys, queries]), with no sum across a register. A head's
gradients go into those of the weights and of the input as soon as they are there.

Positions are filled up to whole blocks of 64: queries there see what is before them, keys there are seen by none
of the others, and what would flow back from there is zero.
"""

import math

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsecircuits.kernels._cpu_exp import exponential
from sparsecircuits.kernels._cpu_held_mlp import BLOCK, add_up, turn_in
from sparsecircuits.kernels._cpu_lane_topk import (
    ABOVE,
    ABSENT,
    BYTES,
    KEYS,
    LEVEL,
    choose,
    keep,
    kept_lanes,
    make_keys,
    padded_units,
)
from sparsecircuits.kernels._cpu_simd import (
    COLUMNS,
    ROWS,
    WIDE,
    accumulate,
    at,
    constant,
    data_of,
    everywhere,
    i64,
    sampled_dots,
    scatter,
    tile,
    total_of,
    turn,
    wide,
)
from sparsecircuits.kernels._jit import kernel

QUERIES = 32  # whose scores are kept at a time: with 128 keys they fill half of the first cache
EXPECTED = 0x3F80  # the key of 1.0
f32 = np.float32

_word = ir.VectorType(ir.IntType(32), WIDE)
_PARTS = range(0, QUERIES, WIDE)


def _entries(builder, data, row, part):  # type: ignore[no-untyped-def]
    """Pointer to `part` of a row's queries."""
    there = builder.add(builder.mul(row, ir.Constant(i64, QUERIES)), ir.Constant(i64, part))
    return at(builder, data, there, wide)


def _seen(builder, key, first, part):  # type: ignore[no-untyped-def]
    """Which of the queries first + part, ... see a key: those that are not before it."""
    ahead = builder.trunc(builder.sub(key, first), ir.IntType(32))
    lanes = ir.Constant(_word, list(range(part, part + WIDE)))
    return builder.icmp_signed(">=", lanes, everywhere(builder, ahead, _word))


@intrinsic
def _softmax(typingctx, scores, keys, first, sink, tops, totals):  # type: ignore[no-untyped-def]
    """scores[key, query] = exp(score - top) for the first `keys` keys and the queries from `first` on, 0 where a query
    does not see the key; its top and the sum in tops[:QUERIES] and totals[:QUERIES], the sink's part included."""
    signature = types.void(scores, types.int64, types.int64, types.float32, tops, totals)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, keys, first, sink, _, _ = arguments
        data, tops, totals = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 4, 5))
        lowest, nothing = constant(float("-inf"), wide), constant(0.0, wide)
        sink = everywhere(builder, sink, wide)
        held = {part: cgutils.alloca_once_value(builder, sink) for part in _PARTS}
        for top in held.values():
            builder.store(sink, top)
        with cgutils.for_range(builder, keys) as loop:
            for part, top in held.items():
                score = builder.load(_entries(builder, data, loop.index, part), align=4)
                score = builder.select(_seen(builder, loop.index, first, part), score, lowest)
                best = builder.load(top)
                builder.store(builder.select(builder.fcmp_ordered(">", score, best), score, best), top)
        sums = {}
        for part, top in held.items():
            shift = builder.load(top)
            own = exponential(builder, builder.fsub(sink, shift))
            own = builder.select(builder.fcmp_ordered("==", sink, lowest), nothing, own)
            sums[part] = cgutils.alloca_once_value(builder, nothing)
            builder.store(own, sums[part])
        with cgutils.for_range(builder, keys) as loop:
            for part, top in held.items():
                there = _entries(builder, data, loop.index, part)
                value = exponential(builder, builder.fsub(builder.load(there, align=4), builder.load(top)))
                value = builder.select(_seen(builder, loop.index, first, part), value, nothing)
                builder.store(value, there, align=4)
                builder.store(builder.fadd(builder.load(sums[part]), value), sums[part])
        for part, top in held.items():
            for source, target in ((top, tops), (sums[part], totals)):
                builder.store(builder.load(source), at(builder, target, ir.Constant(i64, part), wide), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _softmax_backward(typingctx, scores, grads, keys, first, shifts, means):  # type: ignore[no-untyped-def]
    """scores = p = exp(score - shift), 0 where a query does not see the key, and grads = p (grad - mean), in place;
    shifts[first:] and means[first:] are those of the queries."""
    signature = types.void(scores, grads, types.int64, types.int64, shifts, means)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, _, keys, first, _, _ = arguments
        data, grads, shifts, means = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 1, 4, 5))
        rows = [builder.add(first, ir.Constant(i64, part)) for part in _PARTS]
        known = [[builder.load(at(builder, x, row, wide), align=4) for x in (shifts, means)] for row in rows]
        nothing = constant(0.0, wide)
        with cgutils.for_range(builder, keys) as loop:
            for part, (shift, mean) in zip(_PARTS, known, strict=True):
                there, back = (_entries(builder, x, loop.index, part) for x in (data, grads))
                p = exponential(builder, builder.fsub(builder.load(there, align=4), shift))
                p = builder.select(_seen(builder, loop.index, first, part), p, nothing)
                builder.store(p, there, align=4)
                change = builder.fmul(p, builder.fsub(builder.load(back, align=4), mean))
                builder.store(change, back, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _masked(typingctx, back, kept, place, factor):  # type: ignore[no-untyped-def]
    """back[:64] times `factor` where the bits of kept[place : place + 8] say so, 0 elsewhere. Returns its sum."""
    signature = types.float32(back, kept, types.int64, types.float32)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data, kept = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 1))
        factor, nothing = everywhere(builder, arguments[3], wide), constant(0.0, wide)
        total = nothing
        for part in range(BLOCK // WIDE):
            there = at(builder, data, ir.Constant(i64, part * WIDE), wide)
            here = kept_lanes(builder, kept, arguments[2], ir.Constant(i64, part))
            value = builder.select(here, builder.fmul(builder.load(there, align=4), factor), nothing)
            builder.store(value, there, align=4)
            total = builder.fadd(total, value)
        return total_of(builder, total)

    return signature, generate


@kernel
def _head(source, first, width, factor, out):
    """out[c] = factor * source[first + c], both [channels, positions], and 0 in channels from `width` on."""
    for c in range(width):
        for t in range(out.shape[1]):
            out[c, t] = factor * source[first + c, t]
    out[width:] = 0


@kernel
def _scores(keys, queries, first, n, out):
    """out[j, i] = Σ_c keys[c, j] queries[c, first + i] for n keys, a multiple of ROWS, and QUERIES queries."""
    channels, length = keys.shape
    for j in range(0, n, ROWS):
        for i in range(0, QUERIES, COLUMNS):
            tile(  # type: ignore[call-arg]
                out, j * QUERIES + i, QUERIES, keys, j, 1, length, queries, first + i, length, channels, False
            )


@kernel
def _add_offsets(scores, first, offsets):
    """Adds to scores[key, query] those of the latest keys of the queries from `first` on."""
    for i in range(QUERIES):
        for d in range(min(len(offsets), first + i + 1)):
            scores[first + i - d, i] += offsets[d]


@kernel
def _mix(values, weights, n, out, first):
    """out[c, first + i] = Σ_j values[c, j] weights[j, i] over n keys."""
    channels, length = values.shape
    for c in range(0, channels, ROWS):
        for i in range(0, QUERIES, COLUMNS):
            tile(  # type: ignore[call-arg]
                out, c * length + first + i, length, values, c * length, length, 1, weights, i, QUERIES, n, False
            )


@kernel
def _spread(weights, n, rows, first, out):
    """out[j, c] += Σ_i weights[j, i] rows[first + i, c] for n keys; rows and out are [positions, channels]."""
    channels = rows.shape[1]
    for j in range(0, n, ROWS):
        for c in range(0, channels, COLUMNS):
            tile(  # type: ignore[call-arg]
                out, j * channels + c, channels, weights, j * QUERIES, QUERIES, 1, rows, first * channels + c, channels,
                QUERIES, True,
            )  # fmt: skip


@kernel
def _attend(queries, keys, values, sink, offsets, scores, tops, totals, mixed, shifts):
    """One head: mixed[c, t] and the log of the softmax's denominator shifts[t]; queries are scaled."""
    for first in range(0, keys.shape[1], QUERIES):
        n = first + QUERIES
        _scores(keys, queries, first, n, scores)
        _add_offsets(scores, first, offsets)
        _softmax(scores, n, first, sink, tops, totals)  # type: ignore[call-arg]
        _mix(values, scores, n, mixed, first)
        for i in range(QUERIES):
            shifts[first + i] = tops[i] + f32(math.log(totals[i]))
            totals[i] = f32(1) / totals[i]
        for c in range(mixed.shape[0]):
            for i in range(QUERIES):
                mixed[c, first + i] *= totals[i]


@kernel
def _project_qkv(turned, attn, values, bias, k, block, room, qkv, kept):
    """qkv[units, block] = AbsTopK of W turned + bias, of queries, keys and values each, and the bits of kept[units,
    block] say which."""
    starts, columns = attn
    h, keys, state, short, candidates = room
    flags, row_flags = kept.reshape(-1), kept.shape[1]
    width = qkv.shape[0] // 3
    padded, bits = padded_units(width), h.view(np.int32)
    for part in range(3):
        for u in range(width):
            unit, here = part * width + u, u * BLOCK
            h[here : here + BLOCK] = bias[unit]
            accumulate(h, here, values, columns, starts[unit], starts[unit + 1], turned, 0, BLOCK)  # type: ignore[call-arg]
        first = block * BLOCK
        if k[part] >= width:
            for u in range(width):
                qkv[part * width + u, first : first + BLOCK] = h[u * BLOCK : (u + 1) * BLOCK]
                kept[part * width + u, block * BYTES : (block + 1) * BYTES] = 255
            continue
        for u in range(width):
            make_keys(h, u * BLOCK, keys, u * KEYS, padded * KEYS)  # type: ignore[call-arg]
        ties = choose(keys, bits, width, padded, k[part], state[part], short, candidates)
        for u in range(width):
            unit = part * width + u
            row = qkv[unit, first : first + BLOCK].view(np.int32)
            keep(bits, u * BLOCK, state[part], ties, row, flags, unit * row_flags + block * BYTES)  # type: ignore[call-arg]


@kernel
def _scatter_head(mixed, first, width, proj, values, out):
    """out[block][outputs, 64] += what these channels of the mixed values give."""
    starts, rows = proj
    for block in range(out.shape[0]):
        for c in range(width):
            u = first + c
            row = mixed[c, block * BLOCK : (block + 1) * BLOCK]
            scatter(out[block], BLOCK, values, rows, starts[u], starts[u + 1], row)  # type: ignore[call-arg]


@kernel(parallel=True)
def held_attention(
    x, k, attn, attn_values, attn_bias, proj, proj_values, proj_bias, sink, offsets, y, qkv, mixed, lse, kept, chunks
):
    """y[B, T, outputs] = W_proj attention(AbsTopK(q), AbsTopK(k), AbsTopK(v)) + b_proj, where q, k, v = W_attn x + b.

    x[B, T, inputs]; k[3]: entries kept, all from the width on; attn: (starts, columns) of W_attn by row; proj: (starts,
    rows) of W_proj by column; sink[H], -inf where there is none; offsets[H, N], N 0 where there are none. For backward:
    qkv[B, 3 A, P], mixed[B, A, P], lse[B, H, P] and what AbsTopK kept, kept[B, 3 A, P / 8], a bit for each; all turned,
    P: T in whole blocks.
    """
    batch, length, n_in = x.shape
    padded, width, heads, n_out = qkv.shape[2], mixed.shape[1], lse.shape[1], y.shape[2]
    channels, blocks = width // heads, padded // BLOCK
    whole, scale = (channels + COLUMNS - 1) // COLUMNS * COLUMNS, f32(1.0 / math.sqrt(channels))
    for chunk in prange(chunks):
        turned, out = np.zeros(n_in * BLOCK, dtype=np.float32), np.empty((blocks, n_out * BLOCK), dtype=np.float32)
        state = np.zeros((3, 8, BLOCK), dtype=np.int32)
        state[:, LEVEL, :], state[:, ABOVE, :] = EXPECTED, -1
        room = (
            np.empty(width * BLOCK, dtype=np.float32),
            np.full(padded_units(width) * BLOCK, ABSENT, dtype=np.int16),
            state,
            np.zeros((2, BLOCK), dtype=np.int16),
            np.empty((BLOCK, width), dtype=np.int32),
        )
        sides, scores = np.zeros((4, whole, padded), dtype=np.float32), np.empty((padded, QUERIES), dtype=np.float32)
        tops, totals = np.empty(QUERIES, dtype=np.float32), np.empty(QUERIES, dtype=np.float32)
        for b in range(chunk * batch // chunks, (chunk + 1) * batch // chunks):
            source, target = x[b].reshape(-1), y[b].reshape(-1)
            for block in range(blocks):
                turn_in(source, block, length, n_in, turned)
                _project_qkv(turned, attn, attn_values, attn_bias, k, block, room, qkv[b], kept[b])
                for o in range(n_out):
                    out[block, o * BLOCK : (o + 1) * BLOCK] = proj_bias[o]
            for h in range(heads):
                first = h * channels
                _head(qkv[b], first, channels, scale, sides[0])
                _head(qkv[b], width + first, channels, f32(1), sides[1])
                _head(qkv[b], 2 * width + first, channels, f32(1), sides[2])
                _attend(sides[0], sides[1], sides[2], sink[h], offsets[h], scores, tops, totals, sides[3], lse[b, h])
                mixed[b, first : first + channels] = sides[3, :channels]
                _scatter_head(sides[3], first, channels, proj, proj_values, out)
            for block in range(blocks):
                here = min(length - block * BLOCK, BLOCK)
                turn(out[block], 0, BLOCK, n_out, here, target, block * BLOCK * n_out, n_out)


@kernel
def _upstream(mixed, dy, first, proj, values, d_values, back):
    """back[c, t]: the gradient of a head's mixed values; d_values += what they give to that of W_proj."""
    starts, rows = proj
    for c in range(mixed.shape[0]):
        p, end = starts[first + c], starts[first + c + 1]
        back[c] = 0
        for block in range(dy.shape[0]):
            here = block * BLOCK
            accumulate(back[c], here, values, rows, p, end, dy[block], 0, BLOCK)  # type: ignore[call-arg]
            sampled_dots(d_values, rows, p, end, mixed[c], here, dy[block], BLOCK)  # type: ignore[call-arg]


@kernel
def _attend_backward(sides, rows, scores, grads, mixed, shifts, means, offsets, doffsets):
    """A head's gradients, of queries (as they were scaled) turned in sides[4] and of keys and values by position in
    rows[2] and rows[3]. sides: queries, keys, values and the mixed values' gradient, all turned; rows: queries and that
    gradient by position. Fills means[t]; doffsets are added to (queries past the end add 0)."""
    length = means.shape[0]
    means[:] = 0
    for c in range(mixed.shape[0]):
        for t in range(length):
            means[t] += mixed[c, t] * sides[3, c, t]
    rows[2] = 0
    rows[3] = 0
    for first in range(0, length, QUERIES):
        n = first + QUERIES
        _scores(sides[1], sides[0], first, n, scores)
        _add_offsets(scores, first, offsets)
        _scores(sides[2], sides[3], first, n, grads)
        _softmax_backward(scores, grads, n, first, shifts, means)  # type: ignore[call-arg]
        for i in range(QUERIES):
            for d in range(min(len(offsets), first + i + 1)):
                doffsets[d] += grads[first + i - d, i]
        _mix(sides[1], grads, n, sides[4], first)
        _spread(grads, n, rows[0], first, rows[2])
        _spread(scores, n, rows[1], first, rows[3])


@kernel
def _units_backward(back, kept, factor, first, turned, attn, values, dx, d_values, d_bias):
    """What the gradients of some channels' outputs give to all else: back[c, t] where kept, times `factor`."""
    starts, columns = attn
    for c in range(kept.shape[0]):
        u = first + c
        for block in range(dx.shape[0]):
            row = back[c, block * BLOCK : (block + 1) * BLOCK]
            d_bias[u] += _masked(row, kept[c], block * BYTES, factor)  # type: ignore[call-arg]
            sampled_dots(d_values, columns, starts[u], starts[u + 1], row, 0, turned[block], BLOCK)  # type: ignore[call-arg]
            scatter(dx[block], BLOCK, values, columns, starts[u], starts[u + 1], row)  # type: ignore[call-arg]


@kernel
def _head_backward(
    h, qkv, kept, mixed, lse, sink, offsets, turned, dy, attn, attn_values, proj, proj_values, dx, sides, rows, scores,
    grads, means, sums, dsink, doffsets,
):  # fmt: skip
    """One head of one sequence: what it adds to every gradient."""
    d_attn, d_bias, d_proj = sums
    heads, (width, length) = lse.shape[0], mixed.shape
    channels = width // heads
    first, scale, whole = h * channels, f32(1.0 / math.sqrt(channels)), rows.shape[2]
    own = mixed[first : first + channels]
    _upstream(own, dy, first, proj, proj_values, d_proj, sides[3])
    _head(qkv, first, channels, scale, sides[0])
    _head(qkv, width + first, channels, f32(1), sides[1])
    _head(qkv, 2 * width + first, channels, f32(1), sides[2])
    turn(sides[0].reshape(-1), 0, length, whole, length, rows[0].reshape(-1), 0, whole)
    turn(sides[3].reshape(-1), 0, length, whole, length, rows[1].reshape(-1), 0, whole)
    _attend_backward(sides, rows, scores, grads, own, lse[h], means, offsets, doffsets[h])
    if sink > -np.inf:
        for t in range(length):
            dsink[h] -= f32(math.exp(sink - lse[h, t])) * means[t]
    turn(rows[2].reshape(-1), 0, whole, length, whole, sides[0].reshape(-1), 0, length)
    turn(rows[3].reshape(-1), 0, whole, length, whole, sides[1].reshape(-1), 0, length)
    for part in range(3):
        back, factor = (sides[4], scale) if part == 0 else (sides[part - 1], f32(1))
        unit = part * width + first
        flags = kept[unit : unit + channels]
        _units_backward(back, flags, factor, unit, turned, attn, attn_values, dx, d_attn, d_bias)


@kernel(parallel=True)
def held_attention_backward(
    grad, x, qkv, kept, mixed, lse, attn, attn_values, proj, proj_values, sink, offsets, dx, d_attn, d_bias, d_proj,
    dsink, doffsets, groups, chunks,
):  # fmt: skip
    """The gradients of `held_attention` by x, both weights' values (in the orders given), the first bias, the sinks and
    the offsets; arguments as there.

    Sequences are summed in `groups`, and these at the end: the numbers are the same for any number of threads.
    """
    batch, length, n_in = x.shape
    padded, heads, n_out = qkv.shape[2], lse.shape[1], grad.shape[2]
    channels, blocks = mixed.shape[1] // heads, padded // BLOCK
    whole = (channels + COLUMNS - 1) // COLUMNS * COLUMNS
    attn_sums = np.zeros((groups, d_attn.shape[0]), dtype=np.float32)
    bias_sums = np.zeros((groups, d_bias.shape[0]), dtype=np.float32)
    proj_sums = np.zeros((groups, d_proj.shape[0]), dtype=np.float32)
    sink_sums = np.zeros((groups, heads), dtype=np.float32)
    offset_sums = np.zeros((groups, heads, offsets.shape[1]), dtype=np.float32)
    for chunk in prange(chunks):
        turned, dy = np.zeros((blocks, n_in * BLOCK), dtype=np.float32), np.zeros((blocks, n_out * BLOCK), np.float32)
        out, means = np.empty((blocks, n_in * BLOCK), dtype=np.float32), np.empty(padded, dtype=np.float32)
        sides, rows = np.zeros((5, whole, padded), dtype=np.float32), np.zeros((4, padded, whole), dtype=np.float32)
        scores, grads = np.empty((padded, QUERIES), dtype=np.float32), np.empty((padded, QUERIES), dtype=np.float32)
        for group in range(chunk * groups // chunks, (chunk + 1) * groups // chunks):
            sums = (attn_sums[group], bias_sums[group], proj_sums[group])
            for b in range(group * batch // groups, (group + 1) * batch // groups):
                source, upstream, target = x[b].reshape(-1), grad[b].reshape(-1), dx[b].reshape(-1)
                for block in range(blocks):
                    turn_in(source, block, length, n_in, turned[block])
                    turn_in(upstream, block, length, n_out, dy[block])
                out[:] = 0
                for h in range(heads):
                    _head_backward(
                        h, qkv[b], kept[b], mixed[b], lse[b], sink[h], offsets[h], turned, dy, attn, attn_values, proj,
                        proj_values, out, sides, rows, scores, grads, means, sums, sink_sums[group], offset_sums[group],
                    )  # fmt: skip
                for block in range(blocks):
                    here = min(length - block * BLOCK, BLOCK)
                    turn(out[block], 0, BLOCK, n_in, here, target, block * BLOCK * n_in, n_in)
    add_up(attn_sums, d_attn)
    add_up(bias_sums, d_bias)
    add_up(proj_sums, d_proj)
    add_up(sink_sums, dsink)
    add_up(offset_sums.reshape(groups, -1), doffsets.reshape(-1))
