"""Numba kernel: exact GELU, AbsTopK and the slope of both in one pass over each row."""

import numpy as np
from numba import njit, prange

from sparsecircuits.kernels._cpu import keep_row, row_threshold
from sparsecircuits.kernels._cpu_exp import exponentials

f32, i32 = np.float32, np.int32


@njit(nogil=True, cache=True, fastmath={"contract"})
def _gelu_row(x, value, slope, powers):
    """value = x Φ(x) and slope = Φ(x) + x φ(x), with Φ = (1 + erf(x / √2)) / 2.

    erf as a ratio of polynomials on [-4, 4], outside of which it is 1 in float32; within 2e-7 of the true value.
    """
    n = x.shape[0]
    for j in range(n):
        t = x[j] * f32(0.70710678)
        t = f32(4) if t > f32(4) else (f32(-4) if t < f32(-4) else t)
        s = t * t
        p = f32(-2.72614225801306e-10)
        p = p * s + f32(2.77068142495902e-08)
        p = p * s + f32(-2.10102402082508e-06)
        p = p * s + f32(-5.69250639462346e-05)
        p = p * s + f32(-7.34990630326855e-04)
        p = p * s + f32(-2.95459980854025e-03)
        p = p * s + f32(-1.60960333262415e-02)
        q = f32(-1.45660718464996e-05)
        q = q * s + f32(-2.13374055278905e-04)
        q = q * s + f32(-1.68282697438203e-03)
        q = q * s + f32(-7.37332916720468e-03)
        q = q * s + f32(-1.42647390514189e-02)
        half = f32(0.5) + f32(0.5) * t * p / q
        value[j] = half
        slope[j] = f32(-0.5) * x[j] * x[j]
    exponentials(slope, powers, n)
    for j in range(n):
        half = value[j]
        slope[j] = half + x[j] * slope[j] * f32(0.39894228)
        value[j] = x[j] * half


@njit(nogil=True, parallel=True, cache=True)
def gelu_abstopk(x, out, slope, k, chunks):
    """out = the k largest |GELU(x)| of each row, slope = its derivative, 0 elsewhere. float32[rows, n]; 0 < k < n."""
    rows, n = x.shape
    for c in prange(chunks):
        value, powers = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.int32)
        bits, mask = value.view(np.int32), np.empty(n, dtype=np.bool_)
        threshold = i32(0x3F800000)
        for r in range(c * rows // chunks, (c + 1) * rows // chunks):
            _gelu_row(x[r], value, slope[r], powers)
            threshold, exact = row_threshold(bits, n, k, max(i32(1), threshold))
            keep_row(bits, out[r].view(np.int32), mask, n, k, threshold, exact)
            slope_bits = slope[r].view(np.int32)
            for j in range(n):
                slope_bits[j] &= -i32(mask[j])
