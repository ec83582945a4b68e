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
f32, i32 = np.float32, np.int32


@njit(nogil=True, cache=True)
def _turn(x, b, first, out, factor):
    """out[c, t] = factor * x[b, t, first + c]."""
    for t in range(x.shape[1]):
        for c in range(out.shape[0]):
            out[c, t] = factor * x[b, t, first + c]


@njit(nogil=True, cache=True, fastmath=FAST)
def _combine(row, turned, n, out, places):
    """out[:n] = Σ_c row[c] * turned[c, :n], passing over the zeros of `row`: AbsTopK leaves few channels.

    Returns how many are not zero; places[:that] are they.
    """
    width, found = row.shape[0], 0
    for c in range(width):
        places[found] = c
        found += row[c] != 0
    places[found : found + 3] = 0
    for j in range(n):
        out[j] = 0
    for start in range(0, found, 4):  # a group of four at once, the last one filled up with zeros
        c0, c1, c2, c3 = places[start], places[start + 1], places[start + 2], places[start + 3]
        a0 = row[c0]
        a1 = row[c1] if start + 1 < found else f32(0)
        a2 = row[c2] if start + 2 < found else f32(0)
        a3 = row[c3] if start + 3 < found else f32(0)
        t0, t1, t2, t3 = turned[c0], turned[c1], turned[c2], turned[c3]
        for j in range(n):
            out[j] += a0 * t0[j] + a1 * t1[j] + a2 * t2[j] + a3 * t3[j]
    return found


@njit(nogil=True, cache=True, fastmath=FAST)
def _dot(a, b, n):
    total = f32(0)
    for j in range(n):
        total += a[j] * b[j]
    return total


@njit(nogil=True, cache=True, fastmath=FAST)
def _dots(a, rows, n, out):
    """out[c] = Σ_j a[j] * rows[c, j], four at a time."""
    width, c = out.shape[0], 0
    while c + 4 <= width:
        r0, r1, r2, r3 = rows[c], rows[c + 1], rows[c + 2], rows[c + 3]
        s0, s1, s2, s3 = f32(0), f32(0), f32(0), f32(0)
        for j in range(n):
            s0 += a[j] * r0[j]
            s1 += a[j] * r1[j]
            s2 += a[j] * r2[j]
            s3 += a[j] * r3[j]
        out[c], out[c + 1], out[c + 2], out[c + 3] = s0, s1, s2, s3
        c += 4
    while c < width:
        out[c] = _dot(a, rows[c], n)
        c += 1


@njit(nogil=True, cache=True, fastmath=FAST)
def _add_scaled(target, factor, values, n):
    for j in range(n):
        target[j] += factor * values[j]


@njit(nogil=True, cache=True)
def _largest(bits, n):
    """The largest of n floats given as int32 bits, as such; NaN counts as the largest.

    In integers, since LLVM does not vectorise a maximum of floats that may be NaN.
    """
    top = i32(-0x80000000)
    for j in range(n):
        top = max(top, bits[j] ^ ((bits[j] >> i32(31)) & i32(0x7FFFFFFF)))
    return top ^ ((top >> i32(31)) & i32(0x7FFFFFFF))


@njit(nogil=True, cache=True)
def _forward_head(q, k, v, y, lse, b, h, sink, keys, values, scores, powers, places, sums):
    width, length = keys.shape[0], q.shape[1]
    first, bits, highest = h * width, scores.view(np.int32), np.empty(1, dtype=np.int32)
    _turn(k, b, first, keys, f32(1.0 / math.sqrt(width)))
    _turn(v, b, first, values[:width], f32(1))
    for i in range(length):
        n = (i // GROUP + 1) * GROUP
        _combine(q[b, i, first : first + width], keys, n, scores, places)
        highest[0] = _largest(bits, i + 1)
        top = highest.view(np.float32)[0]
        top = sink if sink > top else top
        for j in range(n):
            scores[j] -= top
        exponentials(scores, powers, n)
        for j in range(i + 1, n):
            scores[j] = 0
        total = _dot(scores, values[width], n) + (math.exp(sink - top) if sink > -np.inf else f32(0))
        _dots(scores, values, n, sums)
        for c in range(width):
            y[b, i, first + c] = sums[c] / total
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
        places, sums = np.zeros(width + 3, dtype=np.int32), np.zeros(width, dtype=np.float32)
        values[width] = 1  # a channel of ones sums the probabilities
        for task in range(chunk * tasks // chunks, (chunk + 1) * tasks // chunks):
            b, h = task // heads, task % heads
            _forward_head(q, k, v, y, lse, b, h, sink[h], keys, values, scores, powers, places, sums)


@njit(nogil=True, cache=True)
def _backward_head(
    q, k, v, sink, lse, grad, dq, dk, dv, b, h, keys, values, dkeys, dvalues, p, dp, powers, places, others
):
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
        found = _combine(row, keys, n, p, places)
        for j in range(n):
            p[j] -= lse[b, h, i]
        exponentials(p, powers, n)
        for j in range(i + 1, n):
            p[j] = 0
        _combine(upstream, values, n, dp, others)
        mean = _dot(p, dp, n)
        if sink > -np.inf:
            dsink -= math.exp(sink - lse[b, h, i]) * mean
        for j in range(n):
            dp[j] = p[j] * (dp[j] - mean)
        _dots(dp, keys, n, dq[b, i, first : first + width])
        for place in range(found):
            _add_scaled(dkeys[places[place]], scale * row[places[place]], dp, n)
        for c in range(width):
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
        places, others = np.zeros(width + 3, dtype=np.int32), np.zeros(width + 3, dtype=np.int32)
        for task in range(chunk * tasks // chunks, (chunk + 1) * tasks // chunks):
            b, h = task // heads, task % heads
            dsink[b, h] = _backward_head(
                q, k, v, sink[h], lse, grad, dq, dk, dv, b, h,
                scratch[0], scratch[1], scratch[2], scratch[3], p, dp, powers, places, others,
            )  # fmt: skip
