"""Pieces of a decode step in LLVM's vectors: a sparse matrix's column added to a vector, and products along time.

Arrays are flat, offsets in entries. Values are float32, or bfloat16 as uint16; indices unsigned, of 16 or 32 bits.
Nothing here checks bounds.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsecircuits.kernels._cpu_gelu import normal_share
from sparsecircuits.kernels._cpu_simd import (
    LANES,
    WIDE,
    at,
    constant,
    data_of,
    everywhere,
    i64,
    multiply_add,
    total_of,
    wide,
)
from sparsecircuits.kernels._jit import kernel

UNROLLED = 4
AHEAD = 6  # columns that are asked for before they are needed
LINE = 64  # bytes
_word, _float = ir.IntType(32), ir.FloatType()


def _value(builder: Any, kind: Any, data: Any, place: Any) -> Any:
    """A stored value as float32."""
    stored = builder.load(builder.gep(data, [place]))
    if kind.dtype == types.float32:
        return stored
    return builder.bitcast(builder.shl(builder.zext(stored, _word), ir.Constant(_word, 16)), _float)


@intrinsic
def add_column(typingctx, out, start, factor, indices, values, first, last):  # type: ignore[no-untyped-def]
    """out[start + indices[p]] += factor * values[p], first <= p < last; no index twice."""
    signature = types.void(out, types.int64, types.float32, indices, values, types.int64, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, start, factor, _, _, first, last = arguments
        kinds = signature.args
        out, indices, values = (data_of(context, builder, kinds[k], arguments[k]) for k in (0, 3, 4))
        out = builder.gep(out, [start])

        def add(places: list[Any]) -> None:
            # All are read before any is written: no index is there twice.
            targets = [builder.gep(out, [builder.zext(builder.load(builder.gep(indices, [p])), i64)]) for p in places]
            factors = [_value(builder, kinds[4], values, p) for p in places]
            sums = [
                builder.fadd(builder.load(target), builder.fmul(factor, value))
                for target, value in zip(targets, factors, strict=True)
            ]
            for target, total in zip(targets, sums, strict=True):
                builder.store(total, target)

        count = builder.sub(last, first)
        groups = builder.lshr(count, ir.Constant(i64, UNROLLED.bit_length() - 1))
        with cgutils.for_range(builder, groups) as loop:
            p = builder.add(first, builder.mul(loop.index, ir.Constant(i64, UNROLLED)))
            add([builder.add(p, ir.Constant(i64, k)) for k in range(UNROLLED)])
        rest = builder.and_(count, ir.Constant(i64, UNROLLED - 1))
        begin = builder.sub(last, rest)
        with cgutils.for_range(builder, rest) as loop:
            add([builder.add(begin, loop.index)])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def fetch(typingctx, array, place):  # type: ignore[no-untyped-def]
    """Ask for the cache line of array[place], which will be read soon."""
    signature = types.void(array, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = builder.gep(data_of(context, builder, signature.args[0], arguments[0]), [arguments[1]])
        pointer = builder.bitcast(data, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _word, _word, _word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, ir.Constant(_word, 0), ir.Constant(_word, 3), ir.Constant(_word, 1)])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_scaled(typingctx, out, o, factor, rows, r, groups):  # type: ignore[no-untyped-def]
    """out[o + j] += factor * rows[r + j] for `groups` wide groups."""
    signature = types.void(out, types.int64, types.float32, rows, types.int64, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, o, factor, _, r, groups = arguments
        write, read = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 3))
        factor = everywhere(builder, factor, wide)
        with cgutils.for_range(builder, groups) as loop:
            step = builder.mul(loop.index, ir.Constant(i64, WIDE))
            target = at(builder, write, builder.add(o, step), wide)
            entries = builder.load(at(builder, read, builder.add(r, step), wide), align=4)
            builder.store(multiply_add(builder, factor, entries, builder.load(target, align=4)), target, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def dot(typingctx, a, i, b, j, groups):  # type: ignore[no-untyped-def]
    """Σ a[i + p] * b[j + p] over `groups` wide groups."""
    signature = types.float32(a, types.int64, b, types.int64, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, i, _, j, groups = arguments
        left, right = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 2))
        total = cgutils.alloca_once_value(builder, constant(0.0, wide))
        builder.store(constant(0.0, wide), total)
        with cgutils.for_range(builder, groups) as loop:
            step = builder.mul(loop.index, ir.Constant(i64, WIDE))
            a, b = (
                builder.load(at(builder, data, builder.add(first, step), wide), align=4)
                for data, first in ((left, i), (right, j))
            )
            builder.store(multiply_add(builder, a, b, builder.load(total)), total)
        return total_of(builder, builder.load(total))

    return signature, generate


@intrinsic
def _gelu_8(typingctx, x, groups):  # type: ignore[no-untyped-def]
    """x = GELU(x) in place, for `groups` of eight entries."""
    signature = types.void(x, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = data_of(context, builder, signature.args[0], arguments[0])
        with cgutils.for_range(builder, arguments[1]) as loop:
            there = at(builder, data, builder.mul(loop.index, ir.Constant(i64, LANES)))
            x = builder.load(there, align=4)
            builder.store(builder.fmul(x, normal_share(builder, x)), there, align=4)
        return context.get_dummy_value()

    return signature, generate


@kernel
def gelu(x, n):
    """x[:n] = GELU(x[:n]) in place; x has room for a multiple of eight entries, what is in the rest is lost."""
    _gelu_8(x, (n + LANES - 1) // LANES)  # type: ignore[call-arg]


@kernel
def add_columns(places, factors, count, starts, base, indices, values, out, start):
    """out[start:] += Σ_j factors[j] * column places[j] of a sparse matrix whose columns begin at starts[base:]."""
    per_line = LINE // 2
    for j in range(count):
        if j + AHEAD < count:
            first = starts[base + places[j + AHEAD]]
            fetch(indices, first)  # type: ignore[call-arg]
            fetch(values, first)  # type: ignore[call-arg]
            fetch(values, first + per_line // 2)  # type: ignore[call-arg]
        c = base + places[j]
        add_column(out, start, factors[j], indices, values, np.int64(starts[c]), np.int64(starts[c + 1]))  # type: ignore[call-arg]
