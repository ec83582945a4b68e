"""Numba kernels for causal attention on the CPU: one (sequence, head) at a time, all of it in the cache.

Keys and values are turned to [channel, position], so that every inner loop runs over positions and is
vectorised. Positions are padded to whole groups of 32: a vector loop then never ends in scalar steps.
Only reassociation and contraction are allowed, so that infinities and NaN behave as they should.
"""

import math

import numpy as np
from numba import njit, prange

from sparsecircuits.kernels._cpu_exp import exponentials

GROUP = 32
FAST = {"contract", "reassoc", "nsz"}
f32 = np.float32


@njit(nogil=True, cache=True)
def _turn(x, b, first, out, factor):
    """out[c, t] = factor * x[b, t, first + c]."""
    for t in range(x.shape[1]):
        for c in range(out.shape[0]):
            out[c, t] = factor * x[b, t, first + c]


@njit(nogil=True, cache=True, fastmath=FAST)
def _combine(row, turned, n, out):
    """out[:n] = Σ_c row[c] * turned[c, :n]."""
    width = turned.shape[0]
    for j in range(n):
        out[j] = 0
    c = 0
    while c + 4 <= width:
        a0, a1, a2, a3 = row[c], row[c + 1], row[c + 2], row[c + 3]
        t0, t1, t2, t3 = turned[c], turned[c + 1], turned[c + 2], turned[c + 3]
        for j in range(n):
            out[j] += a0 * t0[j] + a1 * t1[j] + a2 * t2[j] + a3 * t3[j]
        c += 4
    while c < width:
        for j in range(n):
            out[j] += row[c] * turned[c, j]
        c += 1


@njit(nogil=True, cache=True, fastmath=FAST)
def _dot(a, b, n):
    total = f32(0)
    for j in range(n):
        total += a[j] * b[j]
    return total


@njit(nogil=True, cache=True, fastmath=FAST)
def _add_scaled(target, factor, values, n):
    for j in range(n):
        target[j] += factor * values[j]


@njit(nogil=True, cache=True, fastmath=FAST)
def _largest(scores, n, start):
    top = start
    for j in range(n):
        top = max(top, scores[j])
    return top


@njit(nogil=True, cache=True)
def _forward_head(q, k, v, y, lse, b, h, sink, keys, values, scores, powers):
    width, length = keys.shape[0], q.shape[1]
    first = h * width
    _turn(k, b, first, keys, f32(1.0 / math.sqrt(width)))
    _turn(v, b, first, values[:width], f32(1))
    for i in range(length):
        n = (i // GROUP + 1) * GROUP
        _combine(q[b, i, first : first + width], keys, n, scores)
        top = _largest(scores, i + 1, sink)
        for j in range(n):
            scores[j] -= top
        exponentials(scores, powers, n)
        for j in range(i + 1, n):
            scores[j] = 0
        total = _dot(scores, values[width], n) + (math.exp(sink - top) if sink > -np.inf else f32(0))
        for c in range(width):
            y[b, i, first + c] = _dot(scores, values[c], n) / total
        lse[b, h, i] = top + math.log(total)


@njit(nogil=True, parallel=True, cache=True)
def attention_forward(q, k, v, sink, y, lse, chunks):
    """y[B, T, H K] and lse[B, H, T] (log of the softmax denominator). sink[H]: -inf where there is none."""
    batch, length, heads = q.shape[0], q.shape[1], lse.shape[1]
    width = q.shape[2] // heads
    padded = (length + GROUP - 1) // GROUP * GROUP
    tasks = batch * heads
    for chunk in prange(chunks):
        keys = np.zeros((width, padded), dtype=np.float32)
        values = np.zeros((width + 1, padded), dtype=np.float32)
        scores, powers = np.zeros(padded, dtype=np.float32), np.zeros(padded, dtype=np.int32)
        values[width] = 1  # a channel of ones sums the probabilities
        for task in range(chunk * tasks // chunks, (chunk + 1) * tasks // chunks):
            b, h = task // heads, task % heads
            _forward_head(q, k, v, y, lse, b, h, sink[h], keys, values, scores, powers)


@njit(nogil=True, cache=True)
def _backward_head(q, k, v, sink, lse, grad, dq, dk, dv, b, h, keys, values, dkeys, dvalues, p, dp, powers):
    width, length = keys.shape[0], q.shape[1]
    first, scale = h * width, f32(1.0 / math.sqrt(width))
    _turn(k, b, first, keys, scale)
    _turn(v, b, first, values, f32(1))
    dkeys[:, :] = 0
    dvalues[:, :] = 0
    dsink = f32(0)
    for i in range(length):
        n = (i // GROUP + 1) * GROUP
        row, upstream = q[b, i, first : first + width], grad[b, i, first : first + width]
        _combine(row, keys, n, p)
        for j in range(n):
            p[j] -= lse[b, h, i]
        exponentials(p, powers, n)
        for j in range(i + 1, n):
            p[j] = 0
        _combine(upstream, values, n, dp)
        mean = _dot(p, dp, n)
        if sink > -np.inf:
            dsink -= math.exp(sink - lse[b, h, i]) * mean
        for j in range(n):
            dp[j] = p[j] * (dp[j] - mean)
        for c in range(width):
            dq[b, i, first + c] = _dot(dp, keys[c], n)
            _add_scaled(dkeys[c], scale * row[c], dp, n)
            _add_scaled(dvalues[c], upstream[c], p, n)
    for t in range(length):
        for c in range(width):
            dk[b, t, first + c] = dkeys[c, t]
            dv[b, t, first + c] = dvalues[c, t]
    return dsink


@njit(nogil=True, parallel=True, cache=True)
def attention_backward(q, k, v, sink, lse, grad, dq, dk, dv, dsink, chunks):
    """Gradients of q, k, v [B, T, H K]; dsink[B, H] is to be summed over B."""
    batch, length, heads = q.shape[0], q.shape[1], lse.shape[1]
    width = q.shape[2] // heads
    padded = (length + GROUP - 1) // GROUP * GROUP
    tasks = batch * heads
    for chunk in prange(chunks):
        scratch = np.zeros((4, width, padded), dtype=np.float32)
        p, dp = np.zeros(padded, dtype=np.float32), np.zeros(padded, dtype=np.float32)
        powers = np.zeros(padded, dtype=np.int32)
        for task in range(chunk * tasks // chunks, (chunk + 1) * tasks // chunks):
            b, h = task // heads, task % heads
            dsink[b, h] = _backward_head(
                q, k, v, sink[h], lse, grad, dq, dk, dv, b, h,
                scratch[0], scratch[1], scratch[2], scratch[3], p, dp, powers,
            )  # fmt: skip
