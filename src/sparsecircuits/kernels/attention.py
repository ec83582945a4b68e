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
    q: Float[Tensor, "B H Tq K"], k: Float[Tensor, "B H Tk K"], sink: Float[Tensor, " H"] | None = None
) -> Float[Tensor, "B H Tq Tk"]:
    """Causal softmax of q kᵀ / √K; the last query sees all keys. A sink is one more logit in the
    denominator (a key of zeros whose value is zero), so that rows may sum to less than one."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    queries, keys = scores.shape[-2:]
    if queries > 1:
        future = torch.ones(queries, keys, dtype=torch.bool, device=q.device).triu_(keys - queries + 1)
        scores = scores.masked_fill(future, -torch.inf)
    return _softmax(scores, sink)


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
) -> Float[Tensor, "B T A"]:
    """The plain-PyTorch definition and test oracle of `causal_attention`."""
    q, k, v = (split_heads(x, n_head) for x in (q, k, v))
    return (attention_pattern(q, k, sink) @ v).transpose(1, 2).flatten(-2)


def attention_at(
    q: Float[Tensor, "B 1 A"],
    k: Float[Tensor, "B T A"],
    v: Float[Tensor, "B T A"],
    n_head: int,
    sink: Float[Tensor, " H"] | None,
    last: Int[Tensor, " B"],
) -> Float[Tensor, "B 1 A"]:
    """One query a sequence, which stands at position `last` and sees the keys up to there."""
    q, k, v = (split_heads(x, n_head) for x in (q, k, v))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    later = torch.arange(scores.shape[-1], device=q.device) > last[:, None]
    scores = scores.masked_fill(later[:, None, None, :], -torch.inf)
    return (_softmax(scores, sink) @ v).transpose(1, 2).flatten(-2)


@torch.library.custom_op("sparsecircuits::causal_attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, n_head: int) -> tuple[Tensor, Tensor]:
    from sparsecircuits.kernels import _cpu, _cpu_attention

    q, k, v = (x.detach().contiguous() for x in (q, k, v))
    y, lse = torch.empty_like(q), q.new_empty(q.shape[0], n_head, q.shape[1])
    with _cpu.LOCK:
        _cpu_attention.attention_forward(
            q.numpy(), k.numpy(), v.numpy(), _sinks(sink, n_head), y.numpy(), lse.numpy(), torch.get_num_threads()
        )
    return y, lse


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, n_head: int) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[0], n_head, q.shape[1])


@torch.library.custom_op("sparsecircuits::causal_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sparsecircuits.kernels import _cpu, _cpu_attention

    n_head = lse.shape[1]
    grad, q, k, v = (x.detach().contiguous() for x in (grad, q, k, v))
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    dsink = q.new_empty(q.shape[0], n_head)
    inputs = [x.numpy() for x in (q, k, v)]
    outputs = [x.numpy() for x in (dq, dk, dv, dsink)]
    with _cpu.LOCK:
        _cpu_attention.attention_backward(  # type: ignore[call-arg]
            *inputs, _sinks(sink, n_head), lse.numpy(), grad.numpy(), *outputs, torch.get_num_threads()
        )
    return dq, dk, dv, dsink.sum(dim=0)


@_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), q.new_empty(lse.shape[1])


def _sinks(sink: Tensor | None, n_head: int):  # type: ignore[no-untyped-def]
    return parameter_array(torch.full((n_head,), -torch.inf) if sink is None else sink.detach().contiguous())


def _setup(ctx, inputs, output):
    q, k, v, sink, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(q, k, v, sink, output[1])


def _backward(ctx, grad, _grad_lse):
    q, k, v, sink, lse = ctx.saved_tensors
    dq, dk, dv, dsink = _attention_backward(grad, q, k, v, sink, lse)
    return dq, dk, dv, None if sink is None else dsink, None


_attention.register_autograd(_backward, setup_context=_setup)


def fused_attention(
    q: Float[Tensor, "B T A"], k: Float[Tensor, "B T A"], v: Float[Tensor, "B T A"], n_head: int, sink: Tensor | None
) -> Float[Tensor, "B T A"]:
    """`causal_attention` by PyTorch's fused kernels, which know no sinks.

    A sink becomes a key before all others whose value is zero. Every query has two channels of ones for it; the
    key holds the logit there, its rounding error beside it, so that low precision does not blur it. A query
    before all others keeps the mask an ordinary causal one. Head sizes stay multiples of eight.
    """
    q, k, v = (split_heads(x, n_head) for x in (q, k, v))
    if sink is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
    width = q.shape[-1]
    logit = sink.to(torch.promote_types(q.dtype, torch.float32)) * width**0.5
    rounded = logit.to(k.dtype)
    error = (logit - rounded).detach().to(k.dtype)
    key = F.pad(torch.stack((rounded, error), dim=-1), (width, 6)).view(1, n_head, 1, width + 8)
    q = F.pad(F.pad(q, (0, 2), value=1.0), (0, 6, 1, 0))
    k = torch.cat((key.expand(k.shape[0], -1, -1, -1), F.pad(k, (0, 8))), dim=2)
    y = F.scaled_dot_product_attention(q, k, F.pad(v, (0, 8, 1, 0)), is_causal=True, scale=width**-0.5)
    return y[:, :, 1:, :width].transpose(1, 2).flatten(-2)


@operator("causal_attention", attention_reference)
def causal_attention(
    q: Float[Tensor, "B T A"],
    k: Float[Tensor, "B T A"],
    v: Float[Tensor, "B T A"],
    n_head: int,
    sink: Float[Tensor, " H"] | None = None,
) -> Float[Tensor, "B T A"]:
    """Causal multi-head attention of channels heads side by side, scale 1/√d_head, with an optional learned
    sink logit per head in the softmax denominator. Differentiable."""
    if q.is_cuda:
        return fused_attention(q, k, v, n_head, sink)
    if q.device.type == "cpu" and q.dtype != torch.float64 and q.numel():
        single = (x.float() for x in (q, k, v))
        return _attention(*single, None if sink is None else sink.float(), n_head)[0].to(q.dtype)
    return attention_reference(q, k, v, n_head, sink)
