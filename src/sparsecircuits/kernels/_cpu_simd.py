"""Building blocks in LLVM's portable vectors, which Numba's own vectoriser does not find.

Arrays are flat float32, or int32 for `compare_8`, with offsets in entries. LLVM lowers the vectors to what the
CPU has (AVX-512, AVX, SSE, NEON): products are 16 wide where registers are, all else is 8 wide. Nothing here checks
bounds.
"""

from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsecircuits.kernels._jit import kernel

LANES = 8
WIDE = 16 if get_host_cpu_features().get("avx512f", False) else 8  # lanes of the products
ROWS, COLUMNS = WIDE // 2, 16  # of a `tile`: eight registers of sums
WIDTH = 64  # entries that `accumulate` works on: they stay in registers

i64 = ir.IntType(64)
vector = ir.VectorType(ir.FloatType(), LANES)
wide = ir.VectorType(ir.FloatType(), WIDE)


def data_of(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Pointer to an array's first entry."""
    return context.make_array(kind)(context, builder, array).data


def at(builder: Any, data: Any, offset: Any, kind: Any = vector) -> Any:
    """Pointer to a vector's entries (eight, if no kind is given) from an offset on."""
    return builder.bitcast(builder.gep(data, [offset]), kind.as_pointer())


def constant(value: float, kind: Any = vector) -> Any:
    """A vector with one known number in all its lanes."""
    return ir.Constant(kind, [value] * kind.count)


def everywhere(builder: Any, value: Any, kind: Any) -> Any:
    """A vector of type `kind` with one number in all its lanes."""
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        first, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    )


def call(builder: Any, name: str, kind: Any, *arguments: Any) -> Any:
    """An LLVM intrinsic whose arguments are of the result's type."""
    function = ir.FunctionType(kind, [kind] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), list(arguments))


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, fused where the CPU can."""
    return call(builder, f"llvm.fmuladd.v{a.type.count}f32", a.type, a, b, c)


def _shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def total_of(builder: Any, value: Any) -> Any:
    """The sum of a vector's entries, in a fixed order; a wide one."""
    for step in (8, 4, 2, 1)[-(WIDE - 1).bit_length() :]:
        other = _shuffle(builder, value, value, [(k + step) % WIDE for k in range(WIDE)])
        value = builder.fadd(value, other)
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))


def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    """An 8x8 transpose in registers: pairs, then fours, then halves change places."""
    low, high = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
    pairs = [_shuffle(builder, rows[k], rows[k + 1], lanes) for k in range(0, 8, 2) for lanes in (low, high)]
    low, high = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    fours = [
        _shuffle(builder, pairs[k + side], pairs[k + side + 2], lanes)
        for k in (0, 4)
        for side in (0, 1)
        for lanes in (low, high)
    ]
    low, high = [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]
    return [_shuffle(builder, fours[k], fours[k + 4], lanes) for lanes in (low, high) for k in range(4)]


@intrinsic
def _turn_8x8(typingctx, source, start, stride, target, target_start, target_stride):  # type: ignore[no-untyped-def]
    """target[target_start + i * target_stride + j] = source[start + j * stride + i] for i, j in 0..7."""
    signature = types.void(source, types.int64, types.int64, target, types.int64, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        source, start, stride, target, target_start, target_stride = arguments
        read = data_of(context, builder, signature.args[0], source)
        write = data_of(context, builder, signature.args[3], target)

        def offset(first: Any, step: Any, k: int) -> Any:
            return builder.add(first, builder.mul(step, ir.Constant(i64, k)))

        rows = [builder.load(at(builder, read, offset(start, stride, j)), align=4) for j in range(LANES)]
        for i, column in enumerate(_turned(builder, rows)):
            builder.store(column, at(builder, write, offset(target_start, target_stride, i)), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def compare_8(typingctx, bits, start, mask, low, high):  # type: ignore[no-untyped-def]
    """Of the eight values bits[start : start + 8] & mask: how many are above `high`, times 256, plus a bit each
    (the lowest: the first) for those in low..high."""
    signature = types.int64(bits, types.int64, types.int32, types.int32, types.int32)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        bits, start, mask, low, high = arguments
        kind, byte = ir.VectorType(ir.IntType(32), LANES), ir.IntType(LANES)
        data = builder.gep(data_of(context, builder, signature.args[0], bits), [start])
        mask, low, high = (everywhere(builder, value, kind) for value in (mask, low, high))
        values = builder.and_(builder.load(builder.bitcast(data, kind.as_pointer()), align=4), mask)
        above = builder.bitcast(builder.icmp_signed(">", values, high), byte)
        reach = builder.bitcast(builder.icmp_signed(">=", values, low), byte)
        inside = builder.zext(builder.and_(reach, builder.not_(above)), i64)
        count = builder.zext(builder.ctpop(above), i64)
        return builder.or_(builder.shl(count, ir.Constant(i64, 8)), inside)

    return signature, generate


@intrinsic
def accumulate(typingctx, out, o, values, indices, first, last, rows, start, stride):  # type: ignore[no-untyped-def]
    """out[o : o + 64] += Σ_p values[p] * rows[start + stride * indices[p] :][:64], first <= p < last.

    The 64 sums stay in registers: one load for each multiply-add. indices: int32.
    """
    signature = types.void(out, types.int64, values, indices, types.int64, types.int64, rows, types.int64, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        out, o, values, indices, first, last, rows, start, stride = arguments
        kinds = signature.args
        write = data_of(context, builder, kinds[0], out)
        factors, places = data_of(context, builder, kinds[2], values), data_of(context, builder, kinds[3], indices)
        read = data_of(context, builder, kinds[6], rows)
        targets = [at(builder, write, builder.add(o, ir.Constant(i64, WIDE * k)), wide) for k in range(WIDTH // WIDE)]
        sums = [cgutils.alloca_once_value(builder, builder.load(target, align=4)) for target in targets]
        with cgutils.for_range(builder, builder.sub(last, first)) as loop:
            p = builder.add(first, loop.index)
            factor = builder.load(builder.gep(factors, [p]))
            factor = everywhere(builder, factor, wide)
            place = builder.sext(builder.load(builder.gep(places, [p])), i64)
            base = builder.add(start, builder.mul(stride, place))
            for k, held in enumerate(sums):
                entry = builder.load(at(builder, read, builder.add(base, ir.Constant(i64, WIDE * k)), wide), align=4)
                builder.store(multiply_add(builder, factor, entry, builder.load(held)), held)
        for target, held in zip(targets, sums, strict=True):
            builder.store(builder.load(held), target, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def scatter(typingctx, out, stride, values, indices, first, last, row):  # type: ignore[no-untyped-def]
    """out[stride * indices[p] :][:64] += values[p] * row[:64], first <= p < last.

    The 64 entries of `row` stay in registers. indices: int32, none twice in first..last.
    """
    signature = types.void(out, types.int64, values, indices, types.int64, types.int64, row)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, stride, _, _, first, last, _ = arguments
        write, factors, places, read = (
            data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 2, 3, 6)
        )
        parts = [ir.Constant(i64, WIDE * k) for k in range(WIDTH // WIDE)]
        kept = [builder.load(at(builder, read, part, wide), align=4) for part in parts]
        with cgutils.for_range(builder, builder.sub(last, first)) as loop:
            p = builder.add(first, loop.index)
            factor = everywhere(builder, builder.load(builder.gep(factors, [p])), wide)
            base = builder.mul(stride, builder.sext(builder.load(builder.gep(places, [p])), i64))
            for part, entries in zip(parts, kept, strict=True):
                target = at(builder, write, builder.add(base, part), wide)
                builder.store(multiply_add(builder, factor, entries, builder.load(target, align=4)), target, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def sampled_dots(typingctx, out, indices, first, last, left, start, right, stride):  # type: ignore[no-untyped-def]
    """out[p] += left[start : start + 64] · right[stride * indices[p] :][:64], first <= p < last.

    The 64 entries of `left` stay in registers. indices: int32.
    """
    signature = types.void(out, indices, types.int64, types.int64, left, types.int64, right, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, _, first, last, _, start, _, stride = arguments
        write, places, factors, read = (
            data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 1, 4, 6)
        )
        parts = [ir.Constant(i64, WIDE * k) for k in range(WIDTH // WIDE)]
        kept = [builder.load(at(builder, factors, builder.add(start, part), wide), align=4) for part in parts]
        with cgutils.for_range(builder, builder.sub(last, first)) as loop:
            p = builder.add(first, loop.index)
            base = builder.mul(stride, builder.sext(builder.load(builder.gep(places, [p])), i64))
            entries = [builder.load(at(builder, read, builder.add(base, part), wide), align=4) for part in parts]
            sums = [builder.fmul(kept[k], entries[k]) for k in (0, 1)]  # two chains: a multiply-add takes four cycles
            for k in range(2, len(parts)):
                sums[k % 2] = multiply_add(builder, kept[k], entries[k], sums[k % 2])
            dot = total_of(builder, builder.fadd(*sums))
            target = builder.gep(write, [p])
            builder.store(builder.fadd(builder.load(target), dot), target)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def tile(typingctx, out, o, o_row, a, a_start, a_row, a_step, b, b_start, b_step, n, add):  # type: ignore[no-untyped-def]
    """out[r, c] = (add: out[r, c] +) Σ_p a[r, p] b[p, c] for ROWS rows and 16 columns; p < n.

    out[r, c] is out[o + r * o_row + c], a[r, p] is a[a_start + r * a_row + p * a_step], and b[p, c] is
    b[b_start + p * b_step + c].
    """
    signature = types.void(out, *[types.int64] * 2, a, *[types.int64] * 3, b, *[types.int64] * 3, types.boolean)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, o, o_row, _, a_start, a_row, a_step, _, b_start, b_step, n, add = arguments
        write, left, right = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 3, 7))

        def place(first: Any, step: Any, k: int, more: int = 0) -> Any:
            there = builder.add(first, builder.mul(step, ir.Constant(i64, k)))
            return builder.add(there, ir.Constant(i64, more)) if more else there

        parts = range(COLUMNS // WIDE)
        targets = [at(builder, write, place(o, o_row, r, WIDE * k), wide) for r in range(ROWS) for k in parts]
        sums = [cgutils.alloca_once_value(builder, constant(0.0, wide)) for _ in targets]
        with builder.if_then(add):
            for target, held in zip(targets, sums, strict=True):
                builder.store(builder.load(target, align=4), held)
        starts = [place(a_start, a_row, r) for r in range(ROWS)]
        with cgutils.for_range(builder, n) as loop:
            there = builder.add(b_start, builder.mul(b_step, loop.index))
            entries = [
                builder.load(at(builder, right, builder.add(there, ir.Constant(i64, WIDE * k)), wide), align=4)
                for k in parts
            ]
            step = builder.mul(a_step, loop.index)
            for r, start in enumerate(starts):
                factor = everywhere(builder, builder.load(builder.gep(left, [builder.add(start, step)])), wide)
                for k in parts:
                    held = sums[r * len(parts) + k]
                    builder.store(multiply_add(builder, factor, entries[k], builder.load(held)), held)
        for target, held in zip(targets, sums, strict=True):
            builder.store(builder.load(held), target, align=4)
        return context.get_dummy_value()

    return signature, generate


@kernel
def turn(source, start, stride, rows, columns, target, target_start, target_stride):
    """target[target_start + c * target_stride + r] = source[start + r * stride + c] for all r, c: whole 8x8 tiles in
    registers, what is left over one by one."""
    whole_rows, whole_columns = rows - rows % LANES, columns - columns % LANES
    for line in range(0, whole_columns, 2 * LANES):  # a cache line of a row at a time: rows may fall on one another
        for r in range(0, whole_rows, LANES):
            for c in range(line, min(line + 2 * LANES, whole_columns), LANES):
                _turn_8x8(  # type: ignore[call-arg]
                    source, start + r * stride + c, stride, target, target_start + c * target_stride + r, target_stride
                )
    for r in range(rows):
        for c in range(whole_columns if r < whole_rows else 0, columns):
            target[target_start + c * target_stride + r] = source[start + r * stride + c]
