"""Freeze channels: x where a channel's gate is on, a constant where it is off; gates may be learned."""

import torch
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.kernels.choice import operator


@torch.library.custom_op("sparsecircuits::gate", mutates_args=())
def _gate(x: Tensor, gate: Tensor, frozen: Tensor) -> Tensor:
    return torch.addcmul(frozen * (1 - gate), x, gate)


@_gate.register_fake
def _(x: Tensor, gate: Tensor, frozen: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("sparsecircuits::gate_backward", mutates_args=())
def _gate_backward(grad: Tensor, x: Tensor, gate: Tensor, frozen: Tensor) -> tuple[Tensor, Tensor]:
    flat = (grad * (x - frozen)).reshape(-1, x.shape[-1])
    return grad * gate, flat.sum(dim=0)


@_gate_backward.register_kernel("cpu")
def _(grad: Tensor, x: Tensor, gate: Tensor, frozen: Tensor) -> tuple[Tensor, Tensor]:
    from sparsecircuits.kernels import _cpu

    n, threads = x.shape[-1], torch.get_num_threads()
    if any(t.dtype != torch.float32 for t in (grad, x, gate, frozen)):
        return grad * gate, (grad * (x - frozen)).reshape(-1, n).sum(dim=0)
    rows = [t.detach().reshape(-1, n).contiguous() for t in (grad, x)]
    dx, partial = torch.empty_like(rows[0]), torch.zeros(threads, n)
    constants = [t.detach().contiguous() for t in (gate, frozen)]
    with _cpu.LOCK:
        _cpu.gate_backward(  # type: ignore[call-arg]
            *(t.numpy() for t in (*rows, *constants, dx, partial)), threads
        )
    return dx.view(x.shape), partial.sum(dim=0)


@_gate_backward.register_fake
def _(grad: Tensor, x: Tensor, gate: Tensor, frozen: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(gate)


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    dx, dgate = _gate_backward(grad, *ctx.saved_tensors)
    return dx, dgate, None


_gate.register_autograd(_backward, setup_context=_setup)


def gate_reference(
    x: Float[Tensor, "... n"], gate: Float[Tensor, " n"], frozen: Float[Tensor, " n"]
) -> Float[Tensor, "... n"]:
    """The plain-PyTorch definition of `gate_channels`."""
    gate = gate.to(x.dtype)
    return torch.addcmul(frozen.detach().to(x.dtype) * (1 - gate), x, gate)


@operator("gate_channels", gate_reference)
def gate_channels(
    x: Float[Tensor, "... n"], gate: Float[Tensor, " n"], frozen: Float[Tensor, " n"]
) -> Float[Tensor, "... n"]:
    """x * gate + frozen * (1 - gate), channel by channel. Differentiable in x and gate, not in frozen."""
    return _gate(x, gate.to(x.dtype), frozen.to(x.dtype))
