"""Numba kernels for RMSNorm on the CPU: a row at a time, read once."""

import math

import numpy as np
from numba import prange

from sparsecircuits.kernels._jit import kernel

FAST = {"contract", "reassoc", "nsz"}
f32 = np.float32


@kernel(fastmath=FAST)
def _scale_row(x, weight, eps, y):
    total = f32(0)
    for j in range(x.shape[0]):
        total += x[j] * x[j]
    scale = f32(1.0 / math.sqrt(total / f32(x.shape[0]) + eps))
    for j in range(x.shape[0]):
        y[j] = x[j] * scale * weight[j]
    return scale


@kernel(parallel=True)
def rms_norm(x, weight, eps, y, scales, chunks):
    """y[rows, n] = x * scale * weight with scales[rows] = 1 / √(mean x² + eps)."""
    rows = x.shape[0]
    for c in prange(chunks):
        for r in range(c * rows // chunks, (c + 1) * rows // chunks):
            scales[r] = _scale_row(x[r], weight, f32(eps), y[r])


@kernel(fastmath=FAST)
def _backward_row(grad, x, weight, scale, dx, total):
    dot = f32(0)
    for j in range(x.shape[0]):
        dot += grad[j] * weight[j] * x[j]
    back = dot * scale * scale / f32(x.shape[0])
    for j in range(x.shape[0]):
        total[j] += grad[j] * x[j] * scale
        dx[j] = scale * (grad[j] * weight[j] - x[j] * back)


@kernel(parallel=True)
def rms_norm_backward(grad, x, weight, scales, dx, partial, chunks):
    """dx[rows, n]; partial[chunk, n]: the chunk's share of the gradient of weight."""
    rows = x.shape[0]
    for c in prange(chunks):
        for r in range(c * rows // chunks, (c + 1) * rows // chunks):
            _backward_row(grad[r], x[r], weight, scales[r], dx[r], partial[c])
