"""Pieces of a decode step in LLVM's vectors: a sparse matrix's column added to a vector, and products along time.

Arrays are flat, offsets in entries. Values are float32, or bfloat16 as uint16; indices unsigned, of 16 or 32 bits.
Nothing here checks bounds.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsecircuits.kernels._cpu import ABS
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

GROUP = 4
"""Columns hold a multiple of this many entries: a loop of few lengths is predicted better."""
LINE = 64  # bytes
SHORT, LISTED = 16, 512  # groups of a column that are listed, and of a list
_word, _float = ir.IntType(32), ir.FloatType()


def _value(builder: Any, kind: Any, data: Any, place: Any) -> Any:
    """A stored value as float32."""
    stored = builder.load(builder.gep(data, [place]))
    if kind.dtype == types.float32:
        return stored
    return builder.bitcast(builder.shl(builder.zext(stored, _word), ir.Constant(_word, 16)), _float)


def _entry(builder: Any, out: Any, indices: Any, p: Any) -> Any:
    """Pointer to out[indices[p]]."""
    return builder.gep(out, [builder.zext(builder.load(builder.gep(indices, [p])), i64)])


def _group_adder(context, builder, kinds, out, entries):  # type: ignore[no-untyped-def]
    """A function (factor, group) -> None that emits out[index] += factor * value for a group's entries. kinds: types of
    arrays of indices and of values, as which the bytes of `entries` are read: of each group the indices, then these."""
    pointers = [context.get_data_type(kind.dtype).as_pointer() for kind in kinds]
    split = GROUP * kinds[0].dtype.bitwidth // 8
    size = split + GROUP * kinds[1].dtype.bitwidth // 8

    def add(factor: Any, group: Any) -> None:
        begin = builder.gep(entries, [builder.mul(group, ir.Constant(i64, size))])
        indices = builder.bitcast(begin, pointers[0])
        values = builder.bitcast(builder.gep(begin, [ir.Constant(i64, split)]), pointers[1])
        places = [ir.Constant(i64, k) for k in range(GROUP)]
        # All are read before any is written.
        targets = [_entry(builder, out, indices, p) for p in places]
        sums = [
            builder.fadd(builder.load(target), builder.fmul(factor, _value(builder, kinds[1], values, p)))
            for target, p in zip(targets, places, strict=True)
        ]
        for target, total in zip(targets, sums, strict=True):
            builder.store(total, target)

    return add


@intrinsic
def add_column(typingctx, out, factor, entries, first, groups, index, value):  # type: ignore[no-untyped-def]
    """out[index] += factor * value for `groups` groups of entries from the group `first` on. In a group no index is
    there twice, but for those of zeros. index, value: arrays of these types."""
    signature = types.void(out, types.float32, entries, types.int64, types.int64, index, value)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        out, entries = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 2))
        add = _group_adder(context, builder, signature.args[5:], out, entries)
        with cgutils.for_range(builder, arguments[4]) as loop:
            add(arguments[1], builder.add(arguments[3], loop.index))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _add_groups(typingctx, out, factors, groups, count, entries, index, value):  # type: ignore[no-untyped-def]
    """The same for `count` groups of any columns, each with its factor."""
    signature = types.void(out, factors, groups, types.int64, entries, index, value)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        out, factors, groups, entries = (
            data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 1, 2, 4)
        )
        add = _group_adder(context, builder, signature.args[5:], out, entries)
        with cgutils.for_range(builder, arguments[3]) as loop:
            factor, group = (builder.load(builder.gep(data, [loop.index])) for data in (factors, groups))
            add(factor, builder.sext(group, i64))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _list_groups(typingctx, factors, groups, place, factor, first):  # type: ignore[no-untyped-def]
    """factors[place : place + 16] = factor, groups[place : place + 16] = first, first + 1, ...: without a branch, as
    many as a short column may have."""
    signature = types.void(factors, groups, types.int64, types.float32, types.int32)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, _, place, factor, first = arguments
        factors, groups = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 1))
        floats, whole = ir.VectorType(_float, SHORT), ir.VectorType(_word, SHORT)
        builder.store(everywhere(builder, factor, floats), at(builder, factors, place, floats), align=4)
        listed = builder.add(everywhere(builder, first, whole), ir.Constant(whole, list(range(SHORT))))
        builder.store(listed, at(builder, groups, place, whole), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_stream(typingctx, out, x, rows, columns, values, first, last):  # type: ignore[no-untyped-def]
    """out[rows[p]] += values[p] * x[columns[p]], first <= p < last, one after another."""
    signature = types.void(out, x, rows, columns, values, types.int64, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kinds = signature.args
        out, x, rows, columns, values = (data_of(context, builder, kinds[k], arguments[k]) for k in range(5))
        first, last = arguments[5:]

        def add(p: Any) -> None:
            target = _entry(builder, out, rows, p)
            factor = builder.load(_entry(builder, x, columns, p))
            builder.store(
                builder.fadd(builder.load(target), builder.fmul(factor, _value(builder, kinds[4], values, p))), target
            )

        count = builder.sub(last, first)
        whole = builder.udiv(count, ir.Constant(i64, GROUP))
        with cgutils.for_range(builder, whole) as loop:
            begin = builder.add(first, builder.mul(loop.index, ir.Constant(i64, GROUP)))
            for k in range(GROUP):
                add(builder.add(begin, ir.Constant(i64, k)))
        begin = builder.add(first, builder.mul(whole, ir.Constant(i64, GROUP)))
        with cgutils.for_range(builder, builder.sub(last, begin)) as loop:
            add(builder.add(begin, loop.index))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_by_head(typingctx, out, shares, time, head_starts, places, values, first, groups):  # type: ignore[no-untyped-def]
    """out[c] += shares[head_starts[c] + time] * values[p] with c = places[p], for `groups` groups of entries from
    `first` on. In a group no place is there twice, but for those of zeros."""
    signature = types.void(out, shares, types.int64, head_starts, places, values, types.int64, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kinds = signature.args
        out, shares, starts, places, values = (
            data_of(context, builder, kinds[k], arguments[k]) for k in (0, 1, 3, 4, 5)
        )
        shares = builder.gep(shares, [arguments[2]])
        with cgutils.for_range(builder, arguments[7]) as loop:
            begin = builder.add(arguments[6], builder.mul(loop.index, ir.Constant(i64, GROUP)))
            targets, sums = [], []
            for k in range(GROUP):
                p = builder.add(begin, ir.Constant(i64, k))
                channel = builder.zext(builder.load(builder.gep(places, [p])), i64)
                start = builder.zext(builder.load(builder.gep(starts, [channel])), i64)
                share = builder.load(builder.gep(shares, [start]))
                targets.append(builder.gep(out, [channel]))
                product = builder.fmul(share, builder.load(builder.gep(values, [p])))
                sums.append(builder.fadd(builder.load(targets[-1]), product))
            for target, total in zip(targets, sums, strict=True):
                builder.store(total, target)
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


@intrinsic
def _compress(typingctx, x, groups, least, start, places, amounts):  # type: ignore[no-untyped-def]
    """List the entries of `groups` of sixteen whose magnitude, as bits, is at least `least`: their places from `start`
    on, and themselves; returns how many. The lists have room for sixteen more."""
    signature = types.int64(x, types.int64, types.int32, types.int32, places, amounts)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, groups, least, start, _, _ = arguments
        data, places, amounts = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 4, 5))
        lanes, flags = ir.VectorType(_word, 16), ir.VectorType(ir.IntType(1), 16)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(lanes, [lanes, lanes, flags]), "llvm.x86.avx512.mask.compress.v16i32"
        )
        least, nothing = everywhere(builder, least, lanes), ir.Constant(lanes, [0] * 16)
        begin = builder.add(everywhere(builder, start, lanes), ir.Constant(lanes, list(range(16))))
        found = cgutils.alloca_once_value(builder, ir.Constant(i64, 0))
        builder.store(ir.Constant(i64, 0), found)
        with cgutils.for_range(builder, groups) as loop:
            place = builder.mul(loop.index, ir.Constant(i64, 16))
            bits = builder.load(at(builder, data, place, lanes), align=4)
            mask = builder.icmp_signed(">=", builder.and_(bits, ir.Constant(lanes, [0x7FFFFFFF] * 16)), least)
            where = builder.add(begin, everywhere(builder, builder.trunc(place, _word), lanes))
            here = builder.load(found)
            for target, listed in ((places, where), (amounts, bits)):
                packed = builder.call(function, [listed, nothing, mask])
                builder.store(packed, at(builder, target, here, lanes), align=4)
            count = builder.ctpop(builder.bitcast(mask, ir.IntType(16)))
            builder.store(builder.add(here, builder.zext(count, i64)), found)
        return builder.load(found)

    return signature, generate


VECTORS_COMPRESS = bool(get_host_cpu_features().get("avx512f", False))
SIXTEEN = 16


@kernel
def nonzeros(x, n, least, start, places, amounts):
    """List the entries of x[:n] whose magnitude, as bits, is at least `least` (at least 1): their places from `start`
    on, in order, and themselves; returns how many. The lists have room for sixteen more."""
    found, done = 0, 0
    if VECTORS_COMPRESS:
        done = n // SIXTEEN * SIXTEEN
        found = _compress(x, n // SIXTEEN, least, np.int32(start), places, amounts)  # type: ignore[call-arg]
    bits = x.view(np.int32)
    for j in range(done, n):
        places[found] = start + j
        amounts[found] = x[j]
        found += (bits[j] & ABS) >= least
    return found


@kernel
def add_columns(places, factors, count, starts, base, entries, index, value, out, listed, groups):
    """out += Σ_j factors[j] * column places[j] of a sparse matrix whose columns begin, in groups of `entries`, at
    starts[base:]. index, value: arrays of these types. listed, groups: working memory, float32 and int32[LISTED].

    Columns of few groups, of which no two are of one length, are listed group by group first: a loop over each would be
    mispredicted at its end. Meanwhile what they hold is on its way.
    """
    size = GROUP * (index.itemsize + value.itemsize)
    place = 0
    for j in range(count):
        c = base + places[j]
        first, last = np.int64(starts[c]), np.int64(starts[c + 1])
        begin, end = first * size, last * size - 1
        fetch(entries, begin)  # type: ignore[call-arg]
        fetch(entries, min(begin + LINE, end))  # type: ignore[call-arg]
        fetch(entries, min(begin + 2 * LINE, end))  # type: ignore[call-arg]
        fetch(entries, end)  # type: ignore[call-arg]
        if last - first > SHORT:
            add_column(out, factors[j], entries, first, last - first, index, value)  # type: ignore[call-arg]
            continue
        _list_groups(listed, groups, place, factors[j], np.int32(first))  # type: ignore[call-arg]
        place += last - first
        if place > LISTED - 2 * SHORT:
            _add_groups(out, listed, groups, place, entries, index, value)  # type: ignore[call-arg]
            place = 0
    _add_groups(out, listed, groups, place, entries, index, value)  # type: ignore[call-arg]
