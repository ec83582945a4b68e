"""Causal attention over small heads, fast on a CPU, with an optional sink (method: Gao et al. 2025).

PyTorch's own paths are bound by memory there: scores of 16 heads of 16 channels are far larger than q, k
and v. The CPU kernel keeps each head's scores in the cache and computes only the causal half.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.kernels._views import parameter_array
from sparsecircuits.kernels.choice import operator


def attention_pattern(
    q: Float[Tensor, "B H Tq K"],
    k: Float[Tensor, "B H Tk K"],
    sink: Float[Tensor, " H"] | None = None,
    offsets: Float[Tensor, "H N"] | None = None,
) -> Float[Tensor, "B H Tq Tk"]:
    """Causal softmax of q kᵀ / √K; the last query sees all keys. A sink is one more logit in the
    denominator (a key of zeros whose value is zero), so that rows may sum to less than one. offsets: added to the
    scores of the N latest keys that a query sees, its own first."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    queries, keys = scores.shape[-2:]
    if offsets is not None:
        scores = scores + offset_scores(offsets, queries, keys)
    if queries > 1:
        future = torch.ones(queries, keys, dtype=torch.bool, device=q.device).triu_(keys - queries + 1)
        scores = scores.masked_fill(future, -torch.inf)
    return _softmax(scores, sink)


def offset_scores(offsets: Float[Tensor, "H N"], queries: int, keys: int) -> Float[Tensor, "H Tq Tk"]:
    """What is added to each score: offsets[h, d] where the key is d tokens before the query (the last query stands at
    the last key), 0 beyond N and where the key is later."""
    back = torch.arange(keys - queries, keys, device=offsets.device)[:, None] - torch.arange(
        keys, device=offsets.device
    )
    known = F.pad(offsets, (0, 1))
    return known[:, back.where(back >= 0, offsets.shape[1]).clamp(max=offsets.shape[1])]


def _softmax(scores: Float[Tensor, "B H Tq Tk"], sink: Float[Tensor, " H"] | None) -> Float[Tensor, "B H Tq Tk"]:
    if sink is None:
        return scores.softmax(dim=-1)
    column = sink.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    return torch.cat((scores, column), dim=-1).softmax(dim=-1)[..., :-1]


def split_heads(x: Float[Tensor, "B T A"], n_head: int) -> Float[Tensor, "B H T K"]:
    """Channels heads side by side -> one dimension per head."""
    return x.unflatten(-1, (n_head, x.shape[-1] // n_head)).transpose(1, 2)


def attention_reference(
    q: Float[Tensor, "B T A"],
    k: Float[Tensor, "B S A"],
    v: Float[Tensor, "B S A"],
    n_head: int,
    sink: Tensor | None = None,
    offsets: Tensor | None = None,
) -> Float[Tensor, "B T A"]:
    """The plain-PyTorch definition and test oracle of `causal_attention`."""
    q, k, v = (split_heads(x, n_head) for x in (q, k, v))
    return (attention_pattern(q, k, sink, offsets) @ v).transpose(1, 2).flatten(-2)


def attention_at(
    q: Float[Tensor, "B 1 A"],
    k: Float[Tensor, "B T A"],
    v: Float[Tensor, "B T A"],
    n_head: int,
    sink: Float[Tensor, " H"] | None,
    last: Int[Tensor, " B"],
    offsets: Float[Tensor, "H N"] | None = None,
) -> Float[Tensor, "B 1 A"]:
    """One query a sequence, which stands at position `last` and sees the keys up to there."""
    q, k, v = (split_heads(x, n_head) for x in (q, k, v))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if offsets is not None:
        of_all = offset_scores(offsets, scores.shape[-1], scores.shape[-1])
        scores = scores + of_all[:, last].transpose(0, 1).unsqueeze(2)
    later = torch.arange(scores.shape[-1], device=q.device) > last[:, None]
    scores = scores.masked_fill(later[:, None, None, :], -torch.inf)
    return (_softmax(scores, sink) @ v).transpose(1, 2).flatten(-2)


@torch.library.custom_op("sparsecircuits::causal_attention", mutates_args=())
def _attention(
    q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, offsets: Tensor | None, n_head: int
) -> tuple[Tensor, Tensor]:
    from sparsecircuits.kernels import _cpu, _cpu_attention

    q, k, v = (x.detach().contiguous() for x in (q, k, v))
    y, lse = torch.empty_like(q), q.new_empty(q.shape[0], n_head, q.shape[1])
    with _cpu.LOCK:
        _cpu_attention.attention_forward(
            *(x.numpy() for x in (q, k, v)),
            _sinks(sink, n_head),
            _offsets(offsets, n_head),
            y.numpy(),
            lse.numpy(),
            torch.get_num_threads(),
        )
    return y, lse


@_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, offsets: Tensor | None, n_head: int
) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[0], n_head, q.shape[1])


@torch.library.custom_op("sparsecircuits::causal_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, offsets: Tensor | None, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from sparsecircuits.kernels import _cpu, _cpu_attention

    n_head = lse.shape[1]
    grad, q, k, v = (x.detach().contiguous() for x in (grad, q, k, v))
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    dsink = q.new_empty(q.shape[0], n_head)
    doffsets = q.new_empty(q.shape[0], n_head, 0 if offsets is None else offsets.shape[1])
    inputs = [x.numpy() for x in (q, k, v)]
    outputs = [x.numpy() for x in (dq, dk, dv, dsink, doffsets)]
    with _cpu.LOCK:
        _cpu_attention.attention_backward(  # type: ignore[call-arg]
            *inputs,
            _sinks(sink, n_head),
            _offsets(offsets, n_head),
            lse.numpy(),
            grad.numpy(),
            *outputs,
            torch.get_num_threads(),
        )
    return dq, dk, dv, dsink.sum(dim=0), doffsets.sum(dim=0)


@_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, offsets: Tensor | None, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    n_head = lse.shape[1]
    doffsets = q.new_empty(n_head, 0 if offsets is None else offsets.shape[1])
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), q.new_empty(n_head), doffsets


def _sinks(sink: Tensor | None, n_head: int):  # type: ignore[no-untyped-def]
    return parameter_array(torch.full((n_head,), -torch.inf) if sink is None else sink.detach().contiguous())


def _offsets(offsets: Tensor | None, n_head: int):  # type: ignore[no-untyped-def]
    return parameter_array(torch.empty(n_head, 0) if offsets is None else offsets.detach().contiguous())


def _setup(ctx, inputs, output):
    q, k, v, sink, offsets, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(q, k, v, sink, offsets, output[1])


def _backward(ctx, grad, _grad_lse):
    q, k, v, sink, offsets, lse = ctx.saved_tensors
    dq, dk, dv, dsink, doffsets = _attention_backward(grad, q, k, v, sink, offsets, lse)
    return dq, dk, dv, None if sink is None else dsink, None if offsets is None else doffsets, None


_attention.register_autograd(_backward, setup_context=_setup)


def fused_attention(
    q: Float[Tensor, "B T A"],
    k: Float[Tensor, "B T A"],
    v: Float[Tensor, "B T A"],
    n_head: int,
    sink: Tensor | None,
    offsets: Tensor | None = None,
) -> Float[Tensor, "B T A"]:
    """`causal_attention` by PyTorch's fused kernels, which know no sinks.

    A sink becomes a key before all others whose value is zero. Every query has two channels of ones for it; the
    key holds the logit there, its rounding error beside it, so that low precision does not blur it. A query
    before all others keeps the mask an ordinary causal one. Head sizes stay multiples of eight. With offsets the mask
    is written out: [H, T, T].
    """
    q, k, v = (split_heads(x, n_head) for x in (q, k, v))
    extra = int(sink is not None)
    mask = None if offsets is None else _written_mask(offsets, q.shape[2], extra).to(q.dtype)
    if sink is None:
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
        return y.transpose(1, 2).flatten(-2)
    width = q.shape[-1]
    logit = sink.to(torch.promote_types(q.dtype, torch.float32)) * width**0.5
    rounded = logit.to(k.dtype)
    error = (logit - rounded).detach().to(k.dtype)
    key = F.pad(torch.stack((rounded, error), dim=-1), (width, 6)).view(1, n_head, 1, width + 8)
    q = F.pad(F.pad(q, (0, 2), value=1.0), (0, 6, 1, 0))
    k = torch.cat((key.expand(k.shape[0], -1, -1, -1), F.pad(k, (0, 8))), dim=2)
    v = F.pad(v, (0, 8, 1, 0))
    y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=width**-0.5)
    return y[:, :, 1:, :width].transpose(1, 2).flatten(-2)


def _written_mask(offsets: Float[Tensor, "H N"], length: int, extra: int) -> Float[Tensor, "H E+T E+T"]:
    """The causal mask with offsets as a tensor to add, after `extra` keys and queries that have none."""
    added = F.pad(offset_scores(offsets, length, length), (extra, 0, extra, 0))
    future = torch.ones(added.shape[-2:], dtype=torch.bool, device=offsets.device).triu_(1)
    return added.masked_fill(future, -torch.inf)


@operator("causal_attention", attention_reference)
def causal_attention(
    q: Float[Tensor, "B T A"],
    k: Float[Tensor, "B T A"],
    v: Float[Tensor, "B T A"],
    n_head: int,
    sink: Float[Tensor, " H"] | None = None,
    offsets: Float[Tensor, "H N"] | None = None,
) -> Float[Tensor, "B T A"]:
    """Causal multi-head attention of channels heads side by side, scale 1/√d_head, with an optional learned
    sink logit per head in the softmax denominator, and numbers that are added to the scores of the N latest keys, a
    query's own first. Differentiable."""
    if q.is_cuda:
        return fused_attention(q, k, v, n_head, sink, offsets)
    if q.device.type == "cpu" and q.dtype != torch.float64 and q.numel():
        single = (x.float() for x in (q, k, v))
        bare = (None if x is None else x.float() for x in (sink, offsets))
        return _attention(*single, *bare, n_head)[0].to(q.dtype)
    return attention_reference(q, k, v, n_head, sink, offsets)
