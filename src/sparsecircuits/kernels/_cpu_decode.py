"""Numba kernel: one token through a whole model that is given by its nonzeros, without leaving compiled code.

A matrix is a list of columns (by input): what AbsTopK set to zero is never read. Where inputs have no zeros, it is a
stream of (row, column, value) without a branch. Keys and values are kept by channel
with time contiguous, so that only the channels where a query is not zero are read. Everything of one kind lies in one
flat array: `bases` says where each matrix's columns begin in `starts`, `vectors` where biases and norms are in `flat`.
"""

import math

import numpy as np
from numba import prange

from sparsecircuits.kernels._cpu import ABS, row_threshold
from sparsecircuits.kernels._cpu_columns import (
    GROUP,
    LISTED,
    add_by_head,
    add_columns,
    add_scaled,
    add_stream,
    dot,
    gelu,
    nonzeros,
)
from sparsecircuits.kernels._cpu_exp import exponentials, largest
from sparsecircuits.kernels._cpu_simd import WIDE
from sparsecircuits.kernels._jit import kernel

i32, f32 = np.int32, np.float32
LAYERS, WIDTH, POSITION_CHANNELS, HEADS, HEAD, NEURONS, VOCABULARY, REACH = range(8)
LAYER_NORM, ACTIVATION, RESIDUAL_RELU = range(8, 11)
"""Places in `sizes`."""
ACTIVATIONS = ("gelu", "relu", "gelu_tanh")
"""What `sizes[ACTIVATION]` counts through."""
ATTN_IN, Q, K, V, ATTN_OUT, MLP_IN, NEURON, MLP_OUT, RESID_MID, RESID_OUT, SITES = range(11)
"""Places in `kept`: how many entries AbsTopK keeps, -1 where it does not act; and their number."""
C_ATTN, C_FC, MLP_PROJ, MATRICES = range(4)
"""A layer's matrices in `bases`; after all layers come, by token, the embedding and the bigram table (-1 where there is
none, or a dense one). What reads an input without zeros, attention's writes and the unembedding, is a stream."""
LN_1, LN_1_BIAS, B_ATTN, B_ATTN_PROJ, LN_2, LN_2_BIAS, B_FC, B_MLP_PROJ, SINK, OFFSETS, VECTORS = range(11)
"""A layer's vectors in `vectors`; after all layers come the last norm, its bias and the logits' bias."""
RMS_EPSILON, LAYER_EPSILON = np.finfo(np.float32).eps, 1e-5


@kernel(fastmath={"contract", "reassoc", "nsz"})
def _sums(x, n):
    total, squares = f32(0), f32(0)
    for j in range(n):
        total += x[j]
        squares += x[j] * x[j]
    return total, squares


@kernel(fastmath={"contract", "reassoc", "nsz"})
def _squares_about(x, n, mean):
    squares = f32(0)
    for j in range(n):
        squares += (x[j] - mean) * (x[j] - mean)
    return squares


@kernel
def _norm(x, n, weight, bias, layer_norm, out):
    """RMSNorm or LayerNorm of x[:n] into out[:n]."""
    total, squares = _sums(x, n)
    if layer_norm:
        mean = f32(total / n)
        scale = f32(1 / np.sqrt(_squares_about(x, n, mean) / n + LAYER_EPSILON))
        for j in range(n):
            out[j] = (x[j] - mean) * scale * weight[j] + bias[j]
    else:
        scale = f32(1 / np.sqrt(squares / n + RMS_EPSILON))
        for j in range(n):
            out[j] = x[j] * scale * weight[j]


@kernel
def _first_ties(bits, start, places, amounts, found, least, ties):
    """Of listed entries, drop those equal to `least` in magnitude but the first `ties`."""
    left = 0
    for p in range(found):
        equal = (bits[places[p] - start] & ABS) == least
        places[left], amounts[left] = places[p], amounts[p]
        left += (not equal) or ties > 0
        ties -= equal
    return left


@kernel
def _select(x, n, k, guesses, place, start, places, amounts):
    """AbsTopK of x[:n] as a list of what is kept and not zero: returns how many, places (from `start` on) and amounts.

    guesses[place]: the threshold of the token before, a good first guess.
    """
    bits = x.view(np.int32)
    if k == 0:
        return 0
    if k < 0 or k >= n:
        return nonzeros(x, n, i32(1), start, places, amounts)
    threshold, exact = row_threshold(bits, n, k, max(i32(1), guesses[place]))
    guesses[place] = threshold
    if exact or threshold == 0:
        return nonzeros(x, n, max(i32(1), threshold), start, places, amounts)
    above = 0
    for j in range(n):
        above += (bits[j] & ABS) > threshold
    found = nonzeros(x, n, threshold, start, places, amounts)
    return _first_ties(bits, start, places, amounts, found, threshold, k - above)


@kernel
def _activate(x, n, activation):
    """The activation function of x[:n], in place; x has room for a multiple of eight entries."""
    if activation == 0:
        gelu(x, n)
    elif activation == 1:
        for j in range(n):
            x[j] = max(x[j], f32(0))
    else:
        for j in range(n):
            inner = f32(math.sqrt(2 / math.pi)) * (x[j] + f32(0.044715) * x[j] * x[j] * x[j])
            x[j] = f32(0.5) * x[j] * (f32(1) + math.tanh(inner))


@kernel
def _add_write(x, write, n, k, guesses, place, places, amounts, relu, k_after, place_after):
    """x += AbsTopK(write), then the residual stream's own activation and AbsTopK."""
    count = _select(write, n, k, guesses, place, 0, places, amounts)
    for j in range(count):
        x[places[j]] += amounts[j]
    if relu:
        for j in range(n):
            x[j] = max(x[j], f32(0))
    if 0 <= k_after < n:
        count = _select(x, n, k_after, guesses, place_after, 0, places, amounts)
        x[:n] = 0
        for j in range(count):
            x[places[j]] = amounts[j]


@kernel
def _keep_values(made, n, k, guesses, guess, dense, places_in, values_in, cache, room, time, places, amounts):
    """Put this token's v into the cache: by channel, or as a list of what is not zero, filled up with zeros at n."""
    count = _select(made, n, k, guesses, guess, 0, places, amounts)
    if dense:
        for j in range(count):
            values_in[cache + places[j] * room + time] = amounts[j]
        return
    width = (k + GROUP - 1) // GROUP * GROUP
    begin = cache + time * width
    for j in range(width):
        places_in[begin + j] = places[j] if j < count else n
        values_in[begin + j] = amounts[j] if j < count else f32(0)


@kernel
def _softmax(scores, heads, row, room, seen, sinks):
    """Shares of each head's keys, in place; what follows those seen, up to `room`, is next to nothing."""
    for head in range(heads):
        here = scores[head * row : head * row + room]
        for t in range(seen, room):
            here[t] = -np.inf
        top = max(largest(here), sinks[head])
        share = f32(1) / (exponentials(here, top) + f32(np.exp(sinks[head] - top)))
        for t in range(room):
            here[t] *= share
        for t in range(seen, room):
            here[t] = 0


@kernel
def _attention(
    made, sizes, kept, guesses, guess, sinks, offsets, keys, values, places_in, cache, value_cache, room, dense, time,
    scores, head_starts, y, places, amounts,
):  # fmt: skip
    """q, k and v side by side in `made`: keep k and v of this token, and write what the heads read into y.

    cache, value_cache: where this layer's and sequence's part of keys and of values begins.
    """
    heads, size = sizes[HEADS], sizes[HEAD]
    width = heads * size
    count = _select(made[width : 2 * width], width, kept[K], guesses, guess + K, 0, places, amounts)
    for j in range(count):
        keys[cache + places[j] * room + time] = amounts[j]
    _keep_values(
        made[2 * width : 3 * width], width, kept[V], guesses, guess + V, dense, places_in, values, value_cache, room,
        time, places, amounts,
    )  # fmt: skip
    seen = time + 1
    groups = (seen + WIDE - 1) // WIDE
    row = (groups | 1) * WIDE  # an odd number of lines, so that heads do not share cache sets
    scores[: heads * row] = 0
    count = _select(made[:width], width, kept[Q], guesses, guess + Q, 0, places, amounts)
    scale = f32(1 / np.sqrt(size))
    for j in range(count):
        c = np.int64(places[j])
        add_scaled(scores, c // size * row, amounts[j] * scale, keys, cache + c * room, groups)  # type: ignore[call-arg]
    for head in range(heads):
        for d in range(min(sizes[REACH], seen)):
            scores[head * row + time - d] += offsets[head * sizes[REACH] + d]
    _softmax(scores, heads, row, groups * WIDE, seen, sinks)
    if dense:
        for channel in range(width):
            begin = value_cache + channel * room
            y[channel] = dot(scores, channel // size * row, values, begin, groups)  # type: ignore[call-arg]
        return
    for channel in range(width):
        head_starts[channel] = channel // size * row
    y[: width + 1] = 0
    listed = (kept[V] + GROUP - 1) // GROUP
    for t in range(seen):
        add_by_head(y, scores, t, head_starts, places_in, values, value_cache + t * listed * GROUP, listed)  # type: ignore[call-arg]


@kernel
def _step(
    token, time, sizes, kept, starts, bases, entries, stream, rows, columns, streamed, flat, vectors, added,
    beside, table, keys, values, places_in, sequence, capacity, dense, guesses, room, places, head_starts, logits,
):  # fmt: skip
    layers, width, extra = sizes[LAYERS], sizes[WIDTH], sizes[POSITION_CHANNELS]
    heads = sizes[HEADS] * sizes[HEAD]
    neurons, vocabulary, layer_norm = sizes[NEURONS], sizes[VOCABULARY], sizes[LAYER_NORM]
    widest = max(3 * heads, neurons, width + extra, vocabulary) + WIDE
    x, read, made = room[:widest], room[widest : 2 * widest], room[2 * widest : 3 * widest]
    amounts, scores = room[3 * widest : 4 * widest], room[4 * widest :]
    listed, groups = room[len(room) - LISTED :], places[len(places) - LISTED :]
    key_step = heads * capacity
    value_step = key_step if dense else (kept[V] + GROUP - 1) // GROUP * GROUP * capacity

    x[:width] = 0
    if added.shape[0]:
        x[:width] = added[time]
    places[0], amounts[0] = token, f32(1)
    add_columns(places, amounts, 1, starts, bases[layers * MATRICES], entries, rows, streamed, x, listed, groups)
    for layer in range(layers):
        matrix, vector, guess = layer * MATRICES, layer * VECTORS, layer * SITES
        _norm(x, width, flat[vectors[vector + LN_1] :], flat[vectors[vector + LN_1_BIAS] :], layer_norm, read)
        for j in range(extra):
            read[width + j] = beside[2 * layer, time, j]
        count = _select(read, width + extra, kept[ATTN_IN], guesses, guess + ATTN_IN, 0, places, amounts)
        made[: 3 * heads] = flat[vectors[vector + B_ATTN] : vectors[vector + B_ATTN] + 3 * heads]
        add_columns(
            places, amounts, count, starts, bases[matrix + C_ATTN], entries, rows, streamed, made, listed, groups
        )
        sinks = flat[vectors[vector + SINK] : vectors[vector + SINK] + sizes[HEADS]]
        offsets = flat[vectors[vector + OFFSETS] : vectors[vector + OFFSETS] + sizes[HEADS] * sizes[REACH]]
        _attention(
            made, sizes, kept, guesses, guess, sinks, offsets, keys, values, places_in,
            (sequence * layers + layer) * key_step, (sequence * layers + layer) * value_step, capacity, dense, time,
            scores, head_starts, read, places, amounts,
        )  # fmt: skip
        made[:width] = flat[vectors[vector + B_ATTN_PROJ] : vectors[vector + B_ATTN_PROJ] + width]
        add_stream(made, read, rows, columns, streamed, stream[layer], stream[layer + 1])  # type: ignore[call-arg]
        _add_write(
            x, made, width, kept[ATTN_OUT], guesses, guess + ATTN_OUT, places, amounts, sizes[RESIDUAL_RELU],
            kept[RESID_MID], guess + RESID_MID,
        )  # fmt: skip

        _norm(x, width, flat[vectors[vector + LN_2] :], flat[vectors[vector + LN_2_BIAS] :], layer_norm, read)
        for j in range(extra):
            read[width + j] = beside[2 * layer + 1, time, j]
        count = _select(read, width + extra, kept[MLP_IN], guesses, guess + MLP_IN, 0, places, amounts)
        made[:neurons] = flat[vectors[vector + B_FC] : vectors[vector + B_FC] + neurons]
        add_columns(places, amounts, count, starts, bases[matrix + C_FC], entries, rows, streamed, made, listed, groups)
        _activate(made, neurons, sizes[ACTIVATION])
        count = _select(made, neurons, kept[NEURON], guesses, guess + NEURON, 0, places, amounts)
        read[:width] = flat[vectors[vector + B_MLP_PROJ] : vectors[vector + B_MLP_PROJ] + width]
        add_columns(
            places, amounts, count, starts, bases[matrix + MLP_PROJ], entries, rows, streamed, read, listed, groups
        )
        _add_write(
            x, read, width, kept[MLP_OUT], guesses, guess + MLP_OUT, places, amounts, sizes[RESIDUAL_RELU],
            kept[RESID_OUT], guess + RESID_OUT,
        )  # fmt: skip
    last = layers * VECTORS
    _norm(x, width, flat[vectors[last] :], flat[vectors[last + 1] :], layer_norm, read)
    made[:vocabulary] = flat[vectors[last + 2] : vectors[last + 2] + vocabulary]
    if table.shape[0]:
        for j in range(vocabulary):
            made[j] += table[token, j]
    add_stream(made, read, rows, columns, streamed, stream[layers], stream[layers + 1])  # type: ignore[call-arg]
    if bases[layers * MATRICES + 1] >= 0:
        places[0], amounts[0] = token, f32(1)
        add_columns(
            places, amounts, 1, starts, bases[layers * MATRICES + 1], entries, rows, streamed, made, listed, groups
        )
    logits[:vocabulary] = made[:vocabulary]


@kernel
def room_for(sizes, capacity):
    """Working memory that a step takes: (float32s, int32s)."""
    heads = sizes[HEADS] * sizes[HEAD]
    widest = max(3 * heads, sizes[NEURONS], sizes[WIDTH] + sizes[POSITION_CHANNELS], sizes[VOCABULARY]) + WIDE
    return 4 * widest + sizes[HEADS] * (capacity + 2 * WIDE) + LISTED, widest + LISTED + heads + 1


@kernel(parallel=True)
def decode(
    tokens, times, sizes, kept, starts, bases, entries, stream, rows, columns, streamed, flat, vectors, added,
    beside, table, keys, values, places_in, capacity, dense, guesses, rooms, lists, logits, chunks,
):  # fmt: skip
    """One token of each of some sequences through the model: logits float32[B, V].

    tokens, times: int64[B], the token and its position. keys: float32[B, L, A, capacity] flat, zero where nothing was
    written; capacity is a multiple of 16 above every time. values: likewise if `dense`, else float32[B, L, capacity, n]
    with channels in `places_in`, n being AbsTopK's k in whole groups. guesses: int32[chunks, L * SITES]. rooms, lists:
    float32 and int32[chunks, ...] of at least the sizes that `room_for` says.
    """
    sequences = tokens.shape[0]
    listed = lists.shape[1] - sizes[HEADS] * sizes[HEAD] - 1
    for chunk in prange(chunks):
        for b in range(chunk * sequences // chunks, (chunk + 1) * sequences // chunks):
            _step(
                tokens[b], times[b], sizes, kept, starts, bases, entries, stream, rows, columns, streamed, flat,
                vectors, added, beside, table, keys, values, places_in, b, capacity, dense, guesses[chunk],
                rooms[chunk], lists[chunk, :listed], lists[chunk, listed:], logits[b],
            )  # fmt: skip
