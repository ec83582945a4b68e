"""Numba kernels for causal attention on the CPU: one (sequence, head) at a time, all of it in the cache.

A head's queries, keys and values are copied side by side, filled up with zeros to whole tiles of 16 channels and
whole blocks of 32 positions; every product is then made of tiles that stay in registers (`tile`). AbsTopK's
zeros are multiplied like any number: at 16 channels a head that is faster than passing over them.
"""

import math

import numpy as np
from numba import prange

from sparsecircuits.kernels._cpu_exp import exponentials_8, largest_8
from sparsecircuits.kernels._cpu_simd import COLUMNS, LANES, ROWS, tile, turn
from sparsecircuits.kernels._jit import kernel

BLOCK = 32  # queries whose probabilities are kept at a time going backward: two blocks fit in the first cache
f32 = np.float32


@kernel
def _copy(x, b, first, width, factor, out):
    """out[t, c] = factor * x[b, t, first + c]; the rest of `out` stays as it is."""
    for t in range(x.shape[1]):
        for c in range(width):
            out[t, c] = factor * x[b, t, first + c]


@kernel
def _put(x, factor, out, b, first, width):
    """out[b, t, first + c] = factor * x[t, c]."""
    for t in range(out.shape[1]):
        for c in range(width):
            out[b, t, first + c] = factor * x[t, c]


@kernel
def _scores(left, i, turned, out, row, n):
    """out[row : row + ROWS, :n] = left[i : i + ROWS] @ turned[:, :n], n a multiple of 16."""
    wide, stride = left.shape[1], out.shape[1]
    for j in range(0, n, COLUMNS):
        tile(out, row * stride + j, stride, left, i * wide, wide, 1, turned, j, turned.shape[1], wide, False)  # type: ignore[call-arg]


@kernel
def _mix(weights, row, n, right, out, i):
    """out[i : i + ROWS] = weights[row : row + ROWS, :n] @ right[:n]."""
    wide, stride = right.shape[1], weights.shape[1]
    for c in range(0, wide, COLUMNS):
        tile(out, i * wide + c, wide, weights, row * stride, stride, 1, right, c, wide, n, False)  # type: ignore[call-arg]


@kernel
def _spread(weights, n, left, i, out):
    """out[:n] += weights[:, :n]ᵀ @ left[i : i + rows of weights], n a multiple of ROWS."""
    wide, stride, rows = out.shape[1], weights.shape[1], weights.shape[0]
    for j in range(0, n, ROWS):
        for c in range(0, wide, COLUMNS):
            tile(out, j * wide + c, wide, weights, j, 1, stride, left, i * wide + c, wide, rows, True)  # type: ignore[call-arg]


@kernel
def _whole(n, size):
    """n rounded up to whole `size`s."""
    return (n + size - 1) // size * size


@kernel
def _add_offsets(scores, row, t, offsets):
    """Adds to the scores of query t, in `row`, those of the latest keys."""
    for d in range(min(len(offsets), t + 1)):
        scores[row, t - d] += offsets[d]


@kernel
def _forward_head(q, k, v, y, lse, b, h, sink, offsets, queries, keys, turned, values, scores, mixed):
    length, width = q.shape[1], q.shape[2] // lse.shape[1]
    padded, wide = keys.shape
    first, shares = h * width, np.zeros(ROWS, dtype=np.float32)
    _copy(q, b, first, width, f32(1.0 / math.sqrt(width)), queries)
    _copy(k, b, first, width, f32(1), keys)
    _copy(v, b, first, width, f32(1), values)
    turn(keys, 0, wide, padded, wide, turned, 0, padded)
    for i in range(0, length, ROWS):
        n = _whole(i + ROWS, COLUMNS)
        _scores(queries, i, turned, scores, 0, n)
        for r in range(min(ROWS, length - i)):
            _add_offsets(scores, r, i + r, offsets)
            top: float = largest_8(scores, r * padded, n // LANES, i + r + 1)  # type: ignore[call-arg]
            top = sink if sink > top else top
            total: float = exponentials_8(scores, r * padded, n // LANES, i + r + 1, top)  # type: ignore[call-arg]
            if sink > -np.inf:
                total += f32(math.exp(sink - top))
            lse[b, h, i + r] = top + f32(math.log(total))
            shares[r] = f32(1) / total
        _mix(scores, 0, min(n, length), values, mixed, i)
        for r in range(ROWS):
            for c in range(wide):
                mixed[i + r, c] *= shares[r]
    _put(mixed, f32(1), y, b, first, width)


@kernel(parallel=True)
def attention_forward(q, k, v, sink, offsets, y, lse, chunks):
    """y[B, T, H K] and lse[B, H, T] (log of the softmax denominator). sink[H]: -inf where there is none; offsets[H, N],
    N 0 where there are none."""
    batch, length, heads = q.shape[0], q.shape[1], lse.shape[1]
    wide, padded = _whole(q.shape[2] // heads, COLUMNS), _whole(length, BLOCK)
    tasks = batch * heads
    for chunk in prange(chunks):
        scratch = np.zeros((4, padded, wide), dtype=np.float32)
        turned, scores = np.zeros((wide, padded), dtype=np.float32), np.zeros((ROWS, padded), dtype=np.float32)
        for task in range(chunk * tasks // chunks, (chunk + 1) * tasks // chunks):
            b, h = task // heads, task % heads
            _forward_head(
                q, k, v, y, lse, b, h, sink[h], offsets[h], scratch[0], scratch[1], turned, scratch[2], scores,
                scratch[3],
            )  # fmt: skip


@kernel(fastmath={"contract", "reassoc", "nsz"})
def _softmax_backward(p, dp):
    """dp = p * (dp - p · dp) in place; returns p · dp."""
    mean = f32(0)
    for j in range(p.shape[0]):
        mean += p[j] * dp[j]
    for j in range(p.shape[0]):
        dp[j] = p[j] * (dp[j] - mean)
    return mean


@kernel
def _backward_head(q, k, v, sink, offsets, lse, grad, dq, dk, dv, doffsets, b, h, sides, turned, p, dp):
    queries, keys, values, upstream, dqueries, dkeys, dvalues = sides
    length, width = q.shape[1], q.shape[2] // lse.shape[1]
    padded, wide = keys.shape
    first, scale, dsink = h * width, f32(1.0 / math.sqrt(width)), f32(0)
    _copy(q, b, first, width, scale, queries)
    _copy(k, b, first, width, f32(1), keys)
    _copy(v, b, first, width, f32(1), values)
    _copy(grad, b, first, width, f32(1), upstream)
    turn(keys, 0, wide, padded, wide, turned[0], 0, padded)
    turn(values, 0, wide, padded, wide, turned[1], 0, padded)
    dkeys[:] = 0
    dvalues[:] = 0
    doffsets[:] = 0
    for start in range(0, length, BLOCK):
        n = start + BLOCK
        for i in range(start, n, ROWS):
            _scores(queries, i, turned[0], p, i - start, n)
            _scores(upstream, i, turned[1], dp, i - start, n)
            for r in range(i - start, i - start + ROWS):
                if start + r >= length:
                    p[r, :n], dp[r, :n] = 0, 0
                    continue
                shift = lse[b, h, start + r]
                _add_offsets(p, r, start + r, offsets)
                exponentials_8(p, r * padded, n // LANES, start + r + 1, shift)  # type: ignore[call-arg]
                mean = _softmax_backward(p[r, :n], dp[r, :n])
                if sink > -np.inf:
                    dsink -= f32(math.exp(sink - shift)) * mean
                for d in range(min(len(offsets), start + r + 1)):
                    doffsets[d] += dp[r, start + r - d]
            _mix(dp, i - start, min(n, length), keys, dqueries, i)
        _spread(dp, n, queries, start, dkeys)
        _spread(p, n, upstream, start, dvalues)
    _put(dqueries, scale, dq, b, first, width)
    _put(dkeys, f32(1), dk, b, first, width)
    _put(dvalues, f32(1), dv, b, first, width)
    return dsink


@kernel(parallel=True)
def attention_backward(q, k, v, sink, offsets, lse, grad, dq, dk, dv, dsink, doffsets, chunks):
    """Gradients of q, k, v [B, T, H K]; dsink[B, H] and doffsets[B, H, N] are to be summed over B."""
    batch, length, heads = q.shape[0], q.shape[1], lse.shape[1]
    wide, padded = _whole(q.shape[2] // heads, COLUMNS), _whole(length, BLOCK)
    tasks = batch * heads
    for chunk in prange(chunks):
        sides = np.zeros((7, padded, wide), dtype=np.float32)
        turned = np.zeros((2, wide, padded), dtype=np.float32)
        p, dp = np.zeros((BLOCK, padded), dtype=np.float32), np.zeros((BLOCK, padded), dtype=np.float32)
        for task in range(chunk * tasks // chunks, (chunk + 1) * tasks // chunks):
            b, h = task // heads, task % heads
            dsink[b, h] = _backward_head(
                q, k, v, sink[h], offsets[h], lse, grad, dq, dk, dv, doffsets[b, h], b, h,
                (sides[0], sides[1], sides[2], sides[3], sides[4], sides[5], sides[6]), turned, p, dp,
            )  # fmt: skip
