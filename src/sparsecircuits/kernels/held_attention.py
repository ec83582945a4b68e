"""An attention layer whose two weights are held as their nonzeros, as one operator: linear, AbsTopK of queries, keys
and values, causal attention, linear.

On a CPU in float32 a sequence goes through all of it in the cache; what backward needs of it is written once. Elsewhere
the operator is its plain-PyTorch reference.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.kernels._views import parameter_array
from sparsecircuits.kernels.abstopk import abstopk_reference
from sparsecircuits.kernels.attention import _offsets, _sinks, attention_reference, offset_scores, split_heads
from sparsecircuits.kernels.choice import operator
from sparsecircuits.kernels.held import Held, _at_nonzeros
from sparsecircuits.kernels.held_mlp import BLOCK, GROUPS, MOST_UNITS, _matrices, _shift, packed_bits, unpacked_bits

Lists = Sequence[Tensor]
Kept = tuple[int | None, int | None, int | None]
"""Entries that AbsTopK keeps of a token's queries, keys and values, over all heads; None: all."""


def takes(x: Tensor, width: int, kept: Kept) -> bool:
    """Whether the fused kernels do this: float32 on a CPU, and something is kept."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and 0 < width <= MOST_UNITS and 0 not in kept


def held_attention(
    x: Float[Tensor, "B T inputs"],
    attn: Held,
    attn_bias: Float[Tensor, " 3*A"] | None,
    proj: Held,
    proj_bias: Float[Tensor, " outputs"] | None,
    sink: Float[Tensor, " H"] | None,
    n_head: int,
    kept: Kept,
    offsets: Float[Tensor, "H N"] | None = None,
) -> Float[Tensor, "B T outputs"]:
    """proj · attention(AbsTopK(q), AbsTopK(k), AbsTopK(v)) + proj_bias with q, k, v = attn · x + attn_bias, of weights
    attn [3 A, inputs] and proj [outputs, A]. sink, offsets: as `causal_attention` takes them.

    Differentiable once, in x, both weights' values, both biases, the sinks and the offsets. Raises ValueError where
    something kept is not positive.
    """
    width = proj.pattern.shape[1]
    counts = tuple(width if k is None else min(k, width) for k in kept)
    if min(counts) < 1:
        raise ValueError(f"what is kept must be positive, got {kept}")
    return _fused(x, attn, attn_bias, proj, proj_bias, sink, offsets, n_head, counts)


def _unfused(
    x: Float[Tensor, "B T inputs"],
    attn: Held,
    attn_bias: Tensor | None,
    proj: Held,
    proj_bias: Tensor | None,
    sink: Tensor | None,
    offsets: Tensor | None,
    n_head: int,
    counts: tuple[int, ...],
) -> Float[Tensor, "B T outputs"]:
    parts = F.linear(x, attn.dense(), attn_bias).chunk(3, dim=-1)
    q, k, v = (abstopk_reference(part, count)[0] for part, count in zip(parts, counts, strict=True))
    return F.linear(attention_reference(q, k, v, n_head, sink, offsets), proj.dense(), proj_bias)


@operator("held_attention", _unfused)
def _fused(
    x: Float[Tensor, "B T inputs"],
    attn: Held,
    attn_bias: Tensor | None,
    proj: Held,
    proj_bias: Tensor | None,
    sink: Tensor | None,
    offsets: Tensor | None,
    n_head: int,
    counts: tuple[int, ...],
) -> Float[Tensor, "B T outputs"]:
    """`held_attention` of counts that fit."""
    p, q = attn.pattern, proj.pattern
    lists = (p.row_starts, p.columns, q.column_starts, q.rows, q.order)
    weights = (attn.values, attn_bias, proj.values, proj_bias, sink, offsets)
    return _held_attention(x, *weights, *lists, q.shape[0], n_head, *counts)[0]


def _padded(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def _turned(x: Float[Tensor, "B T n"]) -> Float[Tensor, "B n P"]:
    """A channel's positions beside one another, filled up to whole blocks."""
    return F.pad(x.transpose(1, 2), (0, _padded(x.shape[1]) - x.shape[1])).contiguous()


@torch.library.custom_op("sparsecircuits::held_attention", mutates_args=())
def _held_attention(
    x: Tensor,
    attn_values: Tensor,
    attn_bias: Tensor | None,
    proj_values: Tensor,
    proj_bias: Tensor | None,
    sink: Tensor | None,
    offsets: Tensor | None,
    attn_starts: Tensor,
    attn_columns: Tensor,
    proj_starts: Tensor,
    proj_rows: Tensor,
    proj_order: Tensor,
    outputs: int,
    n_head: int,
    k_q: int,
    k_k: int,
    k_v: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(y [B, T, outputs], and for backward: q, k, v [B, 3 A, P], a bit for each that AbsTopK kept [B, 3 A, P / 8], the
    mixed values [B, A, P], the log of the softmax's denominator [B, H, P]), P: T in whole blocks.

    The first weight's lists are by row, those of the second by column (`Pattern`); values by row.
    """
    lists = (attn_starts, attn_columns, proj_starts, proj_rows, proj_order)
    weights = (attn_values, attn_bias, proj_values, proj_bias, sink, offsets)
    return _reference(x, weights, lists, outputs, n_head, (k_q, k_k, k_v))


def _reference(
    x: Tensor, weights: Sequence[Tensor | None], lists: Lists, outputs: int, n_head: int, counts: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    attn_values, attn_bias, proj_values, proj_bias, sink, offsets = weights
    assert attn_values is not None
    assert proj_values is not None
    attn, proj = _matrices(attn_values, proj_values, lists, x.shape[-1], outputs)
    parts = F.linear(x, attn, attn_bias).chunk(3, dim=-1)
    values, masks = zip(
        *(abstopk_reference(part, count) for part, count in zip(parts, counts, strict=True)), strict=True
    )
    q, k, v = values
    mixed = attention_reference(q, k, v, n_head, sink, offsets)
    lse = _scores(q, k, sink, offsets, n_head).logsumexp(dim=-1)
    y = F.linear(mixed, proj.T, proj_bias)
    kept = packed_bits(_turned(torch.cat(masks, dim=-1)))
    return y, _turned(torch.cat((q, k, v), dim=-1)), kept, _turned(mixed), _turned(lse.transpose(1, 2))


def _scores(
    q: Tensor, k: Tensor, sink: Tensor | None, offsets: Tensor | None, n_head: int
) -> Float[Tensor, "B H T T+1"]:
    """Scaled scores with what is added by offset, -inf for keys that a query does not see, and the sinks (-inf: none)
    beside them."""
    queries, keys = split_heads(q, n_head), split_heads(k, n_head)
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    if offsets is not None:
        scores = scores + offset_scores(offsets, *scores.shape[-2:])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu_(1)
    column = scores.new_full((1, n_head, 1, 1), -torch.inf) if sink is None else sink.to(q.dtype).view(1, -1, 1, 1)
    return torch.cat((scores.masked_fill(future, -torch.inf), column.expand(*scores.shape[:-1], 1)), dim=-1)


@_held_attention.register_kernel("cpu")
def _(
    x: Tensor,
    attn_values: Tensor,
    attn_bias: Tensor | None,
    proj_values: Tensor,
    proj_bias: Tensor | None,
    sink: Tensor | None,
    offsets: Tensor | None,
    attn_starts: Tensor,
    attn_columns: Tensor,
    proj_starts: Tensor,
    proj_rows: Tensor,
    proj_order: Tensor,
    outputs: int,
    n_head: int,
    k_q: int,
    k_k: int,
    k_v: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    (batch, length, _), width = x.shape, len(proj_starts) - 1
    counts = (k_q, k_k, k_v)
    if not takes(x, width, counts):
        lists = (attn_starts, attn_columns, proj_starts, proj_rows, proj_order)
        weights = (attn_values, attn_bias, proj_values, proj_bias, sink, offsets)
        return _reference(x, weights, lists, outputs, n_head, counts)
    from sparsecircuits.kernels import _cpu, _cpu_held_attention

    padded = _padded(length)
    y = torch.empty(batch, length, outputs)
    qkv, mixed, lse = (torch.empty(batch, rows, padded) for rows in (3 * width, width, n_head))
    kept = torch.empty(batch, 3 * width, padded // 8, dtype=torch.uint8)
    with _cpu.LOCK:
        _cpu_held_attention.held_attention(
            parameter_array(x.detach().contiguous()),
            torch.tensor(counts).numpy(),
            (attn_starts.numpy(), attn_columns.numpy()),
            parameter_array(attn_values),
            parameter_array(_shift(attn_bias, 3 * width)),
            (proj_starts.numpy(), proj_rows.numpy()),
            parameter_array(proj_values.detach()[proj_order]),
            parameter_array(_shift(proj_bias, outputs)),
            _sinks(sink, n_head),
            _offsets(offsets, n_head),
            *(t.numpy() for t in (y, qkv, mixed, lse, kept)),
            torch.get_num_threads(),
        )
    return y, qkv, kept, mixed, lse


@_held_attention.register_fake
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    *_, proj_starts, _, _, outputs, n_head, _, _, _ = rest
    batch, length, _ = x.shape
    width, padded = len(proj_starts) - 1, _padded(length)
    qkv, mixed, lse = (x.new_empty(batch, rows, padded) for rows in (3 * width, width, n_head))
    kept = x.new_empty(batch, 3 * width, padded // 8, dtype=torch.uint8)
    return x.new_empty(batch, length, outputs), qkv, kept, mixed, lse


@torch.library.custom_op("sparsecircuits::held_attention_backward", mutates_args=())
def _held_attention_backward(
    grad: Tensor,
    qkv: Tensor,
    kept: Tensor,
    mixed: Tensor,
    lse: Tensor,
    x: Tensor,
    attn_values: Tensor,
    proj_values: Tensor,
    sink: Tensor | None,
    offsets: Tensor | None,
    attn_starts: Tensor,
    attn_columns: Tensor,
    proj_starts: Tensor,
    proj_rows: Tensor,
    proj_order: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, attn_values, attn_bias (also where there is none), proj_values, the sinks and the offsets
    (likewise)."""
    lists = (attn_starts, attn_columns, proj_starts, proj_rows, proj_order)
    return _backward_reference(grad, (qkv, kept, mixed, lse), x, attn_values, proj_values, sink, offsets, lists)


def _backward_reference(
    grad: Tensor,
    saved: Sequence[Tensor],
    x: Tensor,
    attn_values: Tensor,
    proj_values: Tensor,
    sink: Tensor | None,
    offsets: Tensor | None,
    lists: Lists,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    attn_starts, attn_columns, proj_starts, proj_rows, proj_order = lists
    length, n_head = x.shape[1], saved[-1].shape[1]
    attn, proj = _matrices(attn_values, proj_values, lists, x.shape[-1], grad.shape[-1])
    qkv, kept, mixed, lse = saved
    qkv, kept, mixed, lse = (t[:, :, :length].transpose(1, 2) for t in (qkv, unpacked_bits(kept), mixed, lse))
    d_proj = _at_nonzeros((mixed.flatten(0, 1).T @ grad.flatten(0, 1)), proj_starts, proj_rows)
    d_proj = torch.empty_like(d_proj).index_copy_(0, proj_order, d_proj)
    back, own = split_heads(grad @ proj.T, n_head), split_heads(mixed, n_head)
    q, k, v = qkv.chunk(3, dim=-1)
    p = (_scores(q, k, sink, offsets, n_head) - lse.transpose(1, 2).unsqueeze(-1)).exp()
    mean = (back * own).sum(dim=-1, keepdim=True)
    queries, keys, values = (split_heads(part, n_head) for part in (q, k, v))
    p, share = p[..., :-1], p[..., -1:]
    change = p * (back @ values.transpose(-1, -2) - mean)
    reach = 0 if offsets is None else offsets.shape[1]
    d_offsets = [change.diagonal(-d, 2, 3).sum(dim=(0, 2)) for d in range(reach)]
    change = change * queries.shape[-1] ** -0.5
    parts = (change @ keys, change.transpose(-1, -2) @ queries, p.transpose(-1, -2) @ back)
    d_qkv = torch.cat([part.transpose(1, 2).flatten(-2) for part in parts], dim=-1) * kept
    flat = d_qkv.flatten(0, 1)
    d_attn = _at_nonzeros(flat.T @ x.flatten(0, 1), attn_starts, attn_columns)
    d_sink = -(share * mean).sum(dim=(0, 2, 3))
    by_offset = torch.stack(d_offsets, dim=1) if reach else x.new_zeros(n_head, 0)
    return d_qkv @ attn, d_attn, flat.sum(dim=0), d_proj, d_sink, by_offset


@_held_attention_backward.register_kernel("cpu")
def _(
    grad: Tensor,
    qkv: Tensor,
    kept: Tensor,
    mixed: Tensor,
    lse: Tensor,
    x: Tensor,
    attn_values: Tensor,
    proj_values: Tensor,
    sink: Tensor | None,
    offsets: Tensor | None,
    attn_starts: Tensor,
    attn_columns: Tensor,
    proj_starts: Tensor,
    proj_rows: Tensor,
    proj_order: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    n_head, width = lse.shape[1], mixed.shape[1]
    if not takes(x, width, (None, None, None)):
        lists = (attn_starts, attn_columns, proj_starts, proj_rows, proj_order)
        return _backward_reference(grad, (qkv, kept, mixed, lse), x, attn_values, proj_values, sink, offsets, lists)
    from sparsecircuits.kernels import _cpu, _cpu_held_attention

    source, upstream = (t.detach().contiguous() for t in (x, grad))
    sizes = (len(attn_values), 3 * width, len(proj_values), n_head)
    dx, (d_attn, d_bias, d_proj, d_sink) = torch.empty_like(source), (torch.empty(size) for size in sizes)
    d_offsets = torch.empty(n_head, 0 if offsets is None else offsets.shape[1])
    with _cpu.LOCK:
        _cpu_held_attention.held_attention_backward(
            parameter_array(upstream),
            parameter_array(source),
            *(parameter_array(t) for t in (qkv, kept, mixed, lse)),
            (attn_starts.numpy(), attn_columns.numpy()),
            parameter_array(attn_values),
            (proj_starts.numpy(), proj_rows.numpy()),
            parameter_array(proj_values.detach()[proj_order]),
            _sinks(sink, n_head),
            _offsets(offsets, n_head),
            *(t.numpy() for t in (dx, d_attn, d_bias, d_proj, d_sink, d_offsets)),
            max(1, min(GROUPS, len(source))),
            torch.get_num_threads(),
        )
    return dx, d_attn, d_bias, torch.empty_like(d_proj).index_copy_(0, proj_order, d_proj), d_sink, d_offsets


@_held_attention_backward.register_fake
def _(
    grad: Tensor,
    qkv: Tensor,
    kept: Tensor,
    mixed: Tensor,
    lse: Tensor,
    x: Tensor,
    attn_values: Tensor,
    proj_values: Tensor,
    sink: Tensor | None,
    offsets: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    bias, sinks = x.new_empty(qkv.shape[1]), x.new_empty(lse.shape[1])
    by_offset = x.new_empty(lse.shape[1], 0 if offsets is None else offsets.shape[1])
    return x.new_empty(x.shape), torch.empty_like(attn_values), bias, torch.empty_like(proj_values), sinks, by_offset


def _setup(ctx, inputs, output):
    x, attn_values, attn_bias, proj_values, proj_bias, sink, offsets, *lists = inputs[:12]
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:], x, attn_values, proj_values, sink, offsets, *lists)
    ctx.has = tuple(given is not None for given in (attn_bias, proj_bias, sink, offsets))


def _backward(ctx, grad, *_):
    if grad is None:
        return (None,) * 17
    dx, d_attn, d_attn_bias, d_proj, d_sink, d_offsets = _held_attention_backward(grad, *ctx.saved_tensors)
    has_attn_bias, has_proj_bias, has_sink, has_offsets = ctx.has
    d_proj_bias = grad.reshape(-1, grad.shape[-1]).sum(dim=0) if has_proj_bias else None
    logits = (d_sink if has_sink else None, d_offsets if has_offsets else None)
    return dx, d_attn, d_attn_bias if has_attn_bias else None, d_proj, d_proj_bias, *logits, *(None,) * 10


_held_attention.register_autograd(_backward, setup_context=_setup)
