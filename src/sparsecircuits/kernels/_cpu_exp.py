"""A row's largest value and its exponentials, in one pass each, in LLVM's portable vectors (Numba here has no vector
library, and LLVM does not vectorise a maximum of floats that may be NaN).

Rows are part of flat or contiguous float32 arrays, offsets in entries. Nothing here checks bounds.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsecircuits.kernels._cpu_simd import LANES, at, call, constant, data_of, everywhere, i64, multiply_add, vector
from sparsecircuits.kernels._jit import kernel

LOWEST = -87.0  # exp of anything below is taken as exp(-87), 1.6e-38
COEFFICIENTS = (  # Cephes: exp(r) = 1 + r + r^2 p(r) for |r| <= 0.35, to 1e-7
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_whole = ir.VectorType(ir.IntType(32), LANES)


def _lanes_below(builder: Any, index: Any, count: Any) -> Any:
    """For eight entries from 8 * index on: whether each is among the first `count`."""
    left = builder.trunc(builder.sub(count, builder.mul(index, ir.Constant(i64, LANES))), ir.IntType(32))
    return builder.icmp_signed("<", ir.Constant(_whole, list(range(LANES))), everywhere(builder, left, _whole))


def _folded(builder: Any, value: Any, combine: Any) -> Any:
    """One number of a vector's eight, in a fixed order."""
    entries = [builder.extract_element(value, ir.Constant(i64, lane)) for lane in range(LANES)]
    while len(entries) > 1:
        half = len(entries) // 2
        entries = [combine(a, b) for a, b in zip(entries[:half], entries[half:], strict=True)]
    return entries[0]


def _larger(builder: Any, a: Any, b: Any) -> Any:
    """The larger of two; a where b is NaN."""
    return builder.select(builder.fcmp_ordered(">", b, a), b, a)


@intrinsic
def largest_8(typingctx, x, start, groups, count):  # type: ignore[no-untyped-def]
    """The largest of x[start : start + count], NaN apart; they lie in `groups` of eight entries."""
    signature = types.float32(x, types.int64, types.int64, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = data_of(context, builder, signature.args[0], arguments[0])
        lowest = constant(float("-inf"))
        top = cgutils.alloca_once_value(builder, lowest)
        with cgutils.for_range(builder, arguments[2]) as loop:
            there = builder.add(arguments[1], builder.mul(loop.index, ir.Constant(i64, LANES)))
            value = builder.load(at(builder, data, there), align=4)
            value = builder.select(_lanes_below(builder, loop.index, arguments[3]), value, lowest)
            builder.store(_larger(builder, builder.load(top), value), top)
        return _folded(builder, builder.load(top), lambda a, b: _larger(builder, a, b))

    return signature, generate


def exponential(builder: Any, v: Any) -> Any:
    """exp of a vector of numbers of at most 88: 2^e (1 + r + r^2 p(r)), r = v - e ln 2. NaN stays NaN."""
    lanes, whole = v.type.count, ir.VectorType(ir.IntType(32), v.type.count)

    def known(value: float) -> Any:
        return constant(value, v.type)

    v = builder.select(builder.fcmp_ordered("<", v, known(LOWEST)), known(LOWEST), v)
    scaled = multiply_add(builder, v, known(1.44269504), known(0.5))
    e = call(builder, f"llvm.floor.v{lanes}f32", v.type, scaled)
    r = multiply_add(builder, e, known(-0.693359375), v)  # ln 2 in two parts, the first one exact
    r = multiply_add(builder, e, known(2.12194440e-4), r)
    p = known(COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        p = multiply_add(builder, p, r, known(coefficient))
    p = builder.fadd(multiply_add(builder, builder.fmul(p, r), r, r), known(1.0))
    power = builder.add(builder.fptosi(e, whole), ir.Constant(whole, [127] * lanes))
    power = builder.bitcast(builder.shl(power, ir.Constant(whole, [23] * lanes)), v.type)
    return builder.fmul(p, power)


@intrinsic
def exponentials_8(typingctx, x, start, groups, count, shift):  # type: ignore[no-untyped-def]
    """x = exp(x - shift) in place for x[start : start + count], zero in what is left of `groups` of eight entries;
    returns the sum. x - shift is at most 88."""
    signature = types.float32(x, types.int64, types.int64, types.int64, types.float32)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = data_of(context, builder, signature.args[0], arguments[0])
        nothing = constant(0.0)
        total = cgutils.alloca_once_value(builder, nothing)
        shift = everywhere(builder, arguments[4], vector)
        with cgutils.for_range(builder, arguments[2]) as loop:
            there = at(builder, data, builder.add(arguments[1], builder.mul(loop.index, ir.Constant(i64, LANES))))
            value = exponential(builder, builder.fsub(builder.load(there, align=4), shift))
            value = builder.select(_lanes_below(builder, loop.index, arguments[3]), value, nothing)
            builder.store(value, there, align=4)
            builder.store(builder.fadd(builder.load(total), value), total)
        return _folded(builder, builder.load(total), builder.fadd)

    return signature, generate


@kernel
def largest(row):
    """The largest entry of a contiguous row of any length, NaN apart."""
    groups = row.shape[0] // LANES
    top: float = largest_8(row, 0, groups, row.shape[0])  # type: ignore[call-arg]
    for j in range(groups * LANES, row.shape[0]):
        top = row[j] if row[j] > top else top
    return top


@kernel
def exponentials(row, shift):
    """row = exp(row - shift) in place, for a contiguous row of any length; returns the sum."""
    n = row.shape[0]
    whole = n // LANES * LANES
    total: float = exponentials_8(row, 0, n // LANES, n, shift)  # type: ignore[call-arg]
    if whole < n:
        rest = np.zeros(LANES, dtype=np.float32)
        rest[: n - whole] = row[whole:]
        total += exponentials_8(rest, 0, 1, n - whole, shift)  # type: ignore[call-arg]
        row[whole:] = rest[: n - whole]
    return total
