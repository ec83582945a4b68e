"""Numba kernel: exact GELU, AbsTopK and the slope of both in one pass over each row."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsecircuits.kernels._cpu import keep_row, row_threshold
from sparsecircuits.kernels._cpu_exp import exponential
from sparsecircuits.kernels._cpu_simd import LANES, at, constant, data_of, i64, multiply_add
from sparsecircuits.kernels._jit import kernel

f32, i32 = np.float32, np.int32
# erf(t) = t P(t^2) / Q(t^2) on [-4, 4], outside of which it is 1 in float32; within 2e-7 of the true value
P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


def _polynomial(builder: Any, coefficients: tuple[float, ...], s: Any) -> Any:
    """Values of a polynomial, the highest power's coefficient first."""
    value = constant(coefficients[0], s.type)
    for coefficient in coefficients[1:]:
        value = multiply_add(builder, value, s, constant(coefficient, s.type))
    return value


def normal_share(builder: Any, x: Any) -> Any:
    """Φ of a vector, (1 + erf(x / √2)) / 2: GELU(x) = x Φ(x)."""
    half, end, other_end = (constant(value, x.type) for value in (0.5, 4.0, -4.0))
    t = builder.fmul(x, constant(0.5**0.5, x.type))
    t = builder.select(builder.fcmp_ordered(">", t, end), end, t)
    t = builder.select(builder.fcmp_ordered("<", t, other_end), other_end, t)
    s = builder.fmul(t, t)
    erf = builder.fdiv(builder.fmul(t, _polynomial(builder, P, s)), _polynomial(builder, Q, s))
    return multiply_add(builder, half, erf, half)


def gelu_slope(builder: Any, x: Any, phi: Any) -> Any:
    """GELU's derivative, Φ(x) + x φ(x), of a vector and its Φ."""
    bell = exponential(builder, builder.fmul(builder.fmul(x, x), constant(-0.5, x.type)))
    return multiply_add(builder, x, builder.fmul(bell, constant(0.39894228, x.type)), phi)


@intrinsic
def _gelu_8(typingctx, x, start, value, slope, groups):  # type: ignore[no-untyped-def]
    """value[j] = GELU(x[start + j]) and slope[j] = its derivative for `groups` of eight entries."""
    signature = types.void(x, types.int64, value, slope, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data, values, slopes = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 2, 3))
        with cgutils.for_range(builder, arguments[4]) as loop:
            place = builder.mul(loop.index, ir.Constant(i64, LANES))
            x = builder.load(at(builder, data, builder.add(arguments[1], place)), align=4)
            phi = normal_share(builder, x)
            builder.store(builder.fmul(x, phi), at(builder, values, place), align=4)
            builder.store(gelu_slope(builder, x, phi), at(builder, slopes, place), align=4)
        return context.get_dummy_value()

    return signature, generate


@kernel
def _gelu_row(x, value, slope):
    """The same for contiguous rows of any length."""
    n, whole = x.shape[0], x.shape[0] // LANES * LANES
    _gelu_8(x, 0, value, slope, n // LANES)  # type: ignore[call-arg]
    if whole < n:
        rest = np.zeros((3, LANES), dtype=np.float32)
        rest[0, : n - whole] = x[whole:]
        _gelu_8(rest[0], 0, rest[1], rest[2], 1)  # type: ignore[call-arg]
        value[whole:], slope[whole:] = rest[1, : n - whole], rest[2, : n - whole]


@kernel(parallel=True)
def gelu_abstopk(x, out, slope, k, chunks):
    """out = the k largest |GELU(x)| of each row, slope = its derivative, 0 elsewhere. float32[rows, n]; 0 < k < n."""
    rows, n = x.shape
    for c in prange(chunks):
        value, mask = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.bool_)
        bits = value.view(np.int32)
        threshold = i32(0x3F800000)
        for r in range(c * rows // chunks, (c + 1) * rows // chunks):
            _gelu_row(x[r], value, slope[r])
            threshold, exact = row_threshold(bits, n, k, max(i32(1), threshold))
            keep_row(bits, out[r].view(np.int32), mask, n, k, threshold, exact)
            slope_bits = slope[r].view(np.int32)
            for j in range(n):
                slope_bits[j] &= -i32(mask[j])
