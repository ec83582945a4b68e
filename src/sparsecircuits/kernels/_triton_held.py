"""Triton kernels for CUDA of a weight held as its nonzeros: products, and gradients at the nonzeros alone.

As on the CPU, activations are turned first (the tokens of a channel lie side by side), so that every nonzero is one
multiply-add over a block of tokens; the copy has the size of the activations, nothing has the size of the weight.
Every sum has one program that adds it up in a fixed order in float32: no atomics, the same bits every time.

These have run in Triton's interpreter alone, and been compiled for compute capability 9.0; block sizes are guesses.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# What a program holds: so many outputs, or nonzeros, by so many tokens.
_UNITS, _TOKENS = 16, 128


@triton.jit
def _product(
    x,
    starts,
    indices,
    values,
    bias,
    y,
    tokens,
    outputs,
    HAS_BIAS: tl.constexpr,
    UNITS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    # Programs that follow one another share their tokens, which then come from the cache.
    tiles = tl.cdiv(outputs, UNITS)
    output = (tl.program_id(0) % tiles) * UNITS + tl.arange(0, UNITS)
    token = (tl.program_id(0) // tiles).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    wanted, there = output < outputs, token < tokens
    place = tl.load(starts + output, mask=wanted, other=0)
    end = tl.load(starts + output + 1, mask=wanted, other=0)
    sums = tl.zeros([UNITS, TOKENS], tl.float32)
    if HAS_BIAS:
        sums += tl.load(bias + output, mask=wanted, other=0.0).to(tl.float32)[:, None]
    longest = tl.max(end - place, axis=0)
    for _ in range(longest):
        inside = place < end
        index = tl.load(indices + place, mask=inside, other=0).to(tl.int64)
        value = tl.load(values + place, mask=inside, other=0.0).to(x.dtype.element_ty).to(tl.float32)
        found = tl.load(
            x + index[:, None] * tokens + token[None, :], mask=inside[:, None] & there[None, :], other=0.0
        ).to(tl.float32)
        sums += value[:, None] * found
        place += 1
    tl.store(
        y + token[None, :] * outputs + output[:, None],
        sums.to(y.dtype.element_ty),
        mask=wanted[:, None] & there[None, :],
    )


@triton.jit
def _sampled(a, b, row_of, indices, out, nonzeros, tokens, UNITS: tl.constexpr, TOKENS: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * UNITS + tl.arange(0, UNITS)
    inside = place < nonzeros
    left = a + tl.load(row_of + place, mask=inside, other=0).to(tl.int64)[:, None] * tokens
    right = b + tl.load(indices + place, mask=inside, other=0).to(tl.int64)[:, None] * tokens
    sums = tl.zeros([UNITS, TOKENS], tl.float32)
    for first in range(0, tokens, TOKENS):
        token = first + tl.arange(0, TOKENS)[None, :].to(tl.int64)
        both = inside[:, None] & (token < tokens)
        sums += tl.load(left + token, mask=both, other=0.0).to(tl.float32) * tl.load(
            right + token, mask=both, other=0.0
        ).to(tl.float32)
    tl.store(out + place, tl.sum(sums, axis=1).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _embed(ids, starts, indices, values, out, rows, width, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    row = tl.load(ids + token).to(tl.int64)
    known = (row >= 0) & (row < rows)
    place = tl.load(starts + row, mask=known, other=0)
    end = tl.load(starts + row + 1, mask=known, other=0)
    while place < end:
        here = place + tl.arange(0, BLOCK)
        column = tl.load(indices + here, mask=here < end, other=0)
        tl.store(out + token * width + column, tl.load(values + here, mask=here < end, other=0.0), mask=here < end)
        place += BLOCK


@triton.jit
def _embed_gradient(
    grad, order, token_starts, row_of, indices, out, nonzeros, width, UNITS: tl.constexpr, TOKENS: tl.constexpr
):
    place = tl.program_id(0).to(tl.int64) * UNITS + tl.arange(0, UNITS)
    inside = place < nonzeros
    row = tl.load(row_of + place, mask=inside, other=0)
    column = tl.load(indices + place, mask=inside, other=0)
    start = tl.load(token_starts + row, mask=inside, other=0)
    end = tl.load(token_starts + row + 1, mask=inside, other=0)
    sums = tl.zeros([UNITS, TOKENS], tl.float32)
    most = tl.max(end - start, axis=0)
    for first in range(0, most, TOKENS):
        visit = start[:, None] + first + tl.arange(0, TOKENS)[None, :]
        token = tl.load(order + visit, mask=visit < end[:, None], other=0)
        sums += tl.load(grad + token * width + column[:, None], mask=visit < end[:, None], other=0.0).to(tl.float32)
    tl.store(out + place, tl.sum(sums, axis=1).to(out.dtype.element_ty), mask=inside)


def _turned(x: Tensor) -> Tensor:
    """[..., n] -> [n, tokens], its tokens side by side."""
    return x.detach().reshape(-1, x.shape[-1]).T.contiguous()


def compressed_product(x: Tensor, starts: Tensor, indices: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] · Wᵀ + bias -> [..., out] in x's type, W given by its nonzeros by output (`held.compressed_product`).

    x and values: of types in `_gpu.TYPES`; values are rounded to x's type first, as the reference does.
    """
    turned, outputs = _turned(x), len(starts) - 1
    tokens = turned.shape[1]
    y = x.new_empty(*x.shape[:-1], outputs)
    if y.numel():
        _product[(triton.cdiv(outputs, _UNITS) * triton.cdiv(tokens, _TOKENS),)](
            turned,
            starts.contiguous(),
            indices.contiguous(),
            values.detach().contiguous(),
            turned if bias is None else bias.detach().contiguous(),
            y,
            tokens,
            outputs,
            HAS_BIAS=bias is not None,
            UNITS=_UNITS,
            TOKENS=_TOKENS,
        )
    return y


def sampled_product(a: Tensor, b: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(aᵀ · b)[rows, columns]: a [n, rows] and b [n, columns] of one type in `_gpu.TYPES` -> [nonzeros] of that type.

    rows, columns: integers [nonzeros], the nonzeros of a row side by side (they share its tokens in the cache).
    """
    out = a.new_empty(len(columns))
    if out.numel():
        _sampled[(triton.cdiv(out.numel(), _UNITS),)](
            _turned(a),
            _turned(b),
            rows.contiguous(),
            columns.contiguous(),
            out,
            out.numel(),
            a.shape[0],
            UNITS=_UNITS,
            TOKENS=_TOKENS,
        )
    return out


def embed(ids: Tensor, values: Tensor, starts: Tensor, columns: Tensor, width: int) -> Tensor:
    """Rows ids [...] of a sparse matrix given by row -> [..., width] in the values' type (one in `_gpu.TYPES`).

    An id that is no row fails on the device, as it does in nn.Embedding: the host does not wait to hear of it.
    """
    flat, rows = ids.reshape(-1).contiguous(), len(starts) - 1
    torch._assert_async(((flat >= 0) & (flat < rows)).all(), f"an id is outside 0..{rows - 1}")
    out = values.new_zeros(*ids.shape, width)
    if out.numel():
        lists = (starts.contiguous(), columns.contiguous(), values.detach().contiguous())
        _embed[(flat.numel(),)](flat, *lists, out, rows, width, BLOCK=_TOKENS)
    return out


def embed_gradient(grad: Tensor, ids: Tensor, n_rows: int, rows: Tensor, columns: Tensor) -> Tensor:
    """The gradient of `embed` in the values: Σ grad[t, column] over the tokens t whose id is the nonzero's row.

    grad: [n, width] of a type in `_gpu.TYPES`, ids: [n], rows and columns: integers [nonzeros] -> [nonzeros].
    """
    out = grad.new_empty(len(columns))
    if out.numel():
        # Each row's tokens side by side: a nonzero collects from them, instead of tokens adding to nonzeros.
        by_row, order = ids.sort(stable=True)
        token_starts = torch.searchsorted(by_row, torch.arange(n_rows + 1, dtype=ids.dtype, device=ids.device))
        _embed_gradient[(triton.cdiv(out.numel(), _UNITS),)](
            grad.detach().contiguous(),
            order,
            token_starts,
            rows.contiguous(),
            columns.contiguous(),
            out,
            out.numel(),
            grad.shape[1],
            UNITS=_UNITS,
            TOKENS=_TOKENS,
        )
    return out
