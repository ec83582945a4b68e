"""AbsTopK of a block of 64 tokens that lie turned: unit by unit, the 64 tokens of each beside one another ("lanes").

All lanes are searched at once. First for the upper half of the bits of each one's k-th largest magnitude: half the
bytes, twice the numbers in a vector, and what is counted stays in the nearest cache. Then, where more entries than
wanted share that upper half (they are few), among these. What is kept is what `_cpu.abstopk` keeps, ties included.

Nothing here checks bounds. Units: fewer than 32,768, counts are of 16 bits.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsecircuits.kernels._cpu import ABS, row_threshold
from sparsecircuits.kernels._cpu_simd import WIDE, WIDTH, at, data_of, i64, wide
from sparsecircuits.kernels._jit import kernel

f32, i32 = np.float32, np.int32
KEYS = 2 * WIDE  # lanes in a vector of keys
ROWS = 4  # units in a step of a count
LONGEST = 16  # candidates that are compared each with each
BYTES = WIDTH // 8  # of a unit's choice, a bit for each lane
ABSENT, NOWHERE = -2, -1  # the key of what fills up the last ROWS units, and one that no unit has
TOP = 0x8000  # above every key
LEVEL, LOW, HIGH, AT_LOW, AT_HIGH, ABOVE, TIES, FOUND = range(8)
"""Rows of the search's state, int32[8, 64]: the key tried last, keys that at least and fewer than k units reach and how
many do, the bits that a kept magnitude is above, how many of those equal to them are kept too, candidates found."""
BELOW, COUNT = range(2)
"""Rows of its state of 16 bits: the keys below those tried, and how many units are above them."""

_word = ir.IntType(32)
_whole = ir.VectorType(_word, WIDE)
_key = ir.VectorType(ir.IntType(16), KEYS)
_PARTS = [ir.Constant(i64, WIDE * k) for k in range(WIDTH // WIDE)]


def _all(value: int, kind: ir.VectorType) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def keys_of(builder, first, second):  # type: ignore[no-untyped-def]
    """The keys of two wide vectors' entries: the upper halves of their magnitudes' bits."""
    bits = [builder.and_(builder.bitcast(part, _whole), _all(0x7FFFFFFF, _whole)) for part in (first, second)]
    upper = [builder.lshr(part, _all(16, _whole)) for part in bits]
    both = builder.shuffle_vector(*upper, ir.Constant(ir.VectorType(_word, KEYS), list(range(KEYS))))
    return builder.trunc(both, _key)


@intrinsic
def make_keys(typingctx, h, start, keys, place, step):  # type: ignore[no-untyped-def]
    """keys[place + g * step :][:KEYS] = the keys of h[start + g * KEYS :][:KEYS], for each g of a unit's 64 lanes."""
    signature = types.void(h, types.int64, keys, types.int64, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, start, _, place, step = arguments
        data, keys = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 2))
        for group in range(WIDTH // KEYS):
            first = builder.add(start, ir.Constant(i64, group * KEYS))
            parts = [at(builder, data, builder.add(first, ir.Constant(i64, k)), wide) for k in (0, WIDE)]
            made = keys_of(builder, *(builder.load(part, align=4) for part in parts))
            there = builder.add(place, builder.mul(step, ir.Constant(i64, group)))
            builder.store(made, at(builder, keys, there, made.type), align=2)
        return context.get_dummy_value()

    return signature, generate


@kernel
def padded_units(n):
    """As many as `choose` wants keys of: n in whole ROWS."""
    return (n + ROWS - 1) // ROWS * ROWS


@intrinsic
def _count(typingctx, keys, start, n, below, base, counts):  # type: ignore[no-untyped-def]
    """counts[base + i] = how many of keys[start + KEYS * u + i], u < n, are above below[base + i]. n: a multiple of
    ROWS."""
    signature = types.void(keys, types.int64, types.int64, below, types.int64, counts)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, start, n, _, base, _ = arguments
        data, below, counts = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 3, 5))
        level = builder.load(at(builder, below, base, _key), align=2)
        sums = [cgutils.alloca_once_value(builder, _all(0, _key)) for _ in range(2)]
        with cgutils.for_range(builder, builder.udiv(n, ir.Constant(i64, ROWS))) as loop:
            there = builder.add(start, builder.mul(loop.index, ir.Constant(i64, ROWS * KEYS)))
            for u in range(ROWS):
                key = builder.load(at(builder, data, builder.add(there, ir.Constant(i64, u * KEYS)), _key), align=2)
                above = builder.sext(builder.icmp_signed(">", key, level), _key)  # -1 where it is
                builder.store(builder.sub(builder.load(sums[u % 2]), above), sums[u % 2])
        builder.store(builder.add(*map(builder.load, sums)), at(builder, counts, base, _key), align=2)
        return context.get_dummy_value()

    return signature, generate


def _matcher(rows):  # type: ignore[no-untyped-def]
    @intrinsic
    def matches(typingctx, keys, start, wanted, base):  # type: ignore[no-untyped-def]
        """A bit for each of KEYS lanes: whether keys[start + KEYS * u + i] == wanted[base + i] for any u < rows."""
        signature = types.int64(keys, types.int64, wanted, types.int64)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            data, wanted = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 2))
            level = builder.load(at(builder, wanted, arguments[3], _key), align=2)
            hits = ir.Constant(ir.VectorType(ir.IntType(1), KEYS), [0] * KEYS)
            for u in range(rows):
                there = builder.add(arguments[1], ir.Constant(i64, u * KEYS))
                key = builder.load(at(builder, data, there, _key), align=2)
                hits = builder.or_(hits, builder.icmp_signed("==", key, level))
            return builder.zext(builder.bitcast(hits, ir.IntType(KEYS)), i64)

        return signature, generate

    return matches


_matches_in_rows, _matches = _matcher(ROWS), _matcher(1)


@intrinsic
def _lowest(typingctx, bits):  # type: ignore[no-untyped-def]
    """The place of the lowest bit that is set; one is."""
    signature = types.int64(types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return signature, generate


@intrinsic
def keep(typingctx, bits, start, state, ties, out, kept, place):  # type: ignore[no-untyped-def]
    """A unit's 64 entries from bits[start] on: out[:64] = those that `choose` chose, 0 elsewhere, and the bits of
    kept[place : place + 8] say which. `ties`: whether any lane keeps some of several equal entries."""
    signature = types.void(bits, types.int64, state, types.boolean, out, kept, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, start, _, ties, _, _, place = arguments
        data, rows, out, kept = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 2, 4, 5))

        def part_of(part: ir.Constant, some_ties: bool) -> None:
            entries = builder.load(at(builder, data, builder.add(start, part), _whole), align=4)
            size = builder.and_(entries, _all(0x7FFFFFFF, _whole))
            level = at(builder, rows, builder.add(ir.Constant(i64, ABOVE * WIDTH), part), _whole)
            chosen = builder.icmp_signed(">", size, builder.load(level, align=4))
            if some_ties:  # the first ones by index survive
                left = at(builder, rows, builder.add(ir.Constant(i64, TIES * WIDTH), part), _whole)
                rest = builder.load(left, align=4)
                tie = builder.icmp_signed("==", size, builder.load(level, align=4))
                tie = builder.and_(tie, builder.icmp_signed(">", rest, _all(0, _whole)))
                builder.store(builder.add(rest, builder.sext(tie, _whole)), left, align=4)
                chosen = builder.or_(chosen, tie)
            target = at(builder, out, part, _whole)
            builder.store(builder.select(chosen, entries, _all(0, _whole)), target, align=4)
            flags = builder.gep(kept, [builder.add(place, builder.udiv(part, ir.Constant(i64, 8)))])
            flags = builder.bitcast(flags, ir.IntType(WIDE).as_pointer())
            builder.store(builder.bitcast(chosen, ir.IntType(WIDE)), flags, align=1)

        with builder.if_else(ties) as (some, none):
            for branch, some_ties in ((some, True), (none, False)):
                with branch:
                    for part in _PARTS:
                        part_of(part, some_ties)
        return context.get_dummy_value()

    return signature, generate


def kept_lanes(builder, kept, place, part):  # type: ignore[no-untyped-def]
    """Of the bits that `keep` wrote from kept[place] on, those of vector number `part` (a value), as truths."""
    there = builder.add(place, builder.mul(part, ir.Constant(i64, WIDE // 8)))
    flags = builder.bitcast(builder.gep(kept, [there]), ir.IntType(WIDE).as_pointer())
    return builder.bitcast(builder.load(flags, align=1), ir.VectorType(ir.IntType(1), WIDE))


@kernel(error_model="numpy")
def _search(keys, start, n, padded, k, base, state, short):
    """Of KEYS lanes from base on: a key that exactly k units reach, or else the key of the k-th largest, in LOW. The
    bracketing search of `_cpu.row_threshold`, without branches so that the lanes advance together."""
    for i in range(base, base + KEYS):
        state[LOW, i], state[HIGH, i], state[AT_LOW, i], state[AT_HIGH, i] = 0, TOP, n, 0
    step, left = 0, 1
    while left > 0:
        for i in range(base, base + KEYS):
            short[BELOW, i] = state[LEVEL, i] - 1
        _count(keys, start, padded, short[BELOW], base, short[COUNT])  # type: ignore[call-arg]
        step += 1
        hop = i32(1) << i32(min(2 + 2 * step, 14))
        left = 0
        for i in range(base, base + KEYS):
            level, count = state[LEVEL, i], i32(short[COUNT, i])
            low = level if count > k else state[LOW, i]
            at_low = count if count > k else state[AT_LOW, i]
            high = level if count < k else state[HIGH, i]
            at_high = count if count < k else state[AT_HIGH, i]
            gap = i32(high - low)
            middle = gap >> i32(1)
            guess = i32(f32(gap) * (f32(at_low - k) / f32(at_low - at_high)))
            following = low + (middle if step % 3 == 0 else guess)
            following = low + min(hop, middle) if high == TOP else following
            following = high - min(hop, middle) if low == 0 else following
            following = max(low + i32(1), min(high - i32(1), following))
            following = max(i32(1), low) if gap <= 1 else following
            state[LOW, i], state[HIGH, i], state[AT_LOW, i], state[AT_HIGH, i] = low, high, at_low, at_high
            state[LEVEL, i] = level if count == k else following
            left += i32(count != k and gap > 1)


@kernel
def _collect(keys, start, padded, wanted, base, bits, state, candidates):
    """candidates[lane] = the magnitudes, as bits, of the units whose key is the wanted one of their lane."""
    for first in range(0, padded, ROWS):
        if _matches_in_rows(keys, start + first * KEYS, wanted, base):  # type: ignore[call-arg]
            for u in range(first, first + ROWS):
                hits = _matches(keys, start + u * KEYS, wanted, base)  # type: ignore[call-arg]
                while hits:
                    lane = base + _lowest(hits)  # type: ignore[call-arg]
                    candidates[lane, state[FOUND, lane]] = bits[u * WIDTH + lane] & ABS
                    state[FOUND, lane] += 1
                    hits &= hits - 1


@kernel
def _kth(row, n, k):
    """The k-th largest of the first n entries, and whether exactly k reach it; 0 < k < n. As `_cpu.row_threshold`, for
    a few entries or equal ones."""
    least = most = row[0]
    for i in range(n):
        least, most = min(least, row[i]), max(most, row[i])
    if least == most:
        return least, False
    if n > LONGEST:
        return row_threshold(row, n, k, most)
    for i in range(n):
        above = equal = 0
        for j in range(n):
            above += row[j] > row[i]
            equal += row[j] == row[i]
        if above < k <= above + equal:
            return row[i], above + equal == k
    return least, False


@kernel
def _settle(lane, k, state, candidates):
    """Of a lane in which too many units have the k-th one's key: which of them are kept. Returns whether some of them
    are equal and not all are kept."""
    row, n, k = candidates[lane], state[FOUND, lane], k - state[AT_HIGH, lane]
    threshold, exact = _kth(row, n, k)
    state[ABOVE, lane] = threshold - 1 if exact else threshold
    if exact:
        return False
    for j in range(n):
        k -= row[j] > threshold
    state[TIES, lane] = k
    return True


@kernel
def choose(keys, bits, n, padded, k, state, short, candidates):
    """Of each lane's n units, the k of the largest magnitude: leaves in ABOVE and TIES of `state` which, for `keep`.
    Returns whether there are ties. 0 < k < n.

    keys: int16[64 / KEYS, padded, KEYS], flat, ABSENT from unit n on; padded: n rounded up to a multiple of ROWS. bits:
    int32[n, 64], flat. candidates: int32[64, n], room to work in. LEVEL may say what keys are to be expected.
    """
    total = 0
    for lane in range(WIDTH):
        total += state[LEVEL, lane]
    state[LEVEL, :] = max(1, total // WIDTH)
    state[TIES, :] = state[FOUND, :] = 0
    ties = False
    for base in range(0, WIDTH, KEYS):
        start = base * padded
        _search(keys, start, n, padded, k, base, state, short)
        for lane in range(base, base + KEYS):
            exact = short[COUNT, lane] == k
            short[BELOW, lane] = NOWHERE if exact else state[LOW, lane]
            state[ABOVE, lane] = (state[LEVEL, lane] << 16) - 1
        _collect(keys, start, padded, short[BELOW], base, bits, state, candidates)
        for lane in range(base, base + KEYS):
            if short[BELOW, lane] != NOWHERE:
                ties |= _settle(lane, k, state, candidates)
    return ties
