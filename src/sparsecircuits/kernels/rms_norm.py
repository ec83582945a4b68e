"""RMSNorm in one pass forward and one back: PyTorch's own is seven passes each on a CPU."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sparsecircuits.kernels._views import parameter_array
from sparsecircuits.kernels.choice import operator

EPSILON = torch.finfo(torch.float32).eps
"""One number for all types, so that a model in float64 computes what it does in float32."""


@torch.library.custom_op("sparsecircuits::rms_norm", mutates_args=())
def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    from sparsecircuits.kernels import _cpu, _cpu_norm

    source = x.detach().contiguous()
    y, scales = torch.empty_like(source), source.new_empty(source.shape[:-1])
    n = source.shape[-1]
    with _cpu.LOCK:
        _cpu_norm.rms_norm(  # type: ignore[call-arg]
            parameter_array(source.view(-1, n)),  # position channels are a parameter
            parameter_array(weight.detach().contiguous()),
            eps,
            y.view(-1, n).numpy(),
            scales.view(-1).numpy(),
            torch.get_num_threads(),
        )
    return y, scales


@_rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(x.shape[:-1])


@torch.library.custom_op("sparsecircuits::rms_norm_backward", mutates_args=())
def _rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    from sparsecircuits.kernels import _cpu, _cpu_norm

    n, threads = x.shape[-1], torch.get_num_threads()
    grad, x = (t.detach().contiguous() for t in (grad, x))
    dx, partial = torch.empty_like(x), x.new_zeros(threads, n)
    with _cpu.LOCK:
        _cpu_norm.rms_norm_backward(  # type: ignore[call-arg]
            grad.view(-1, n).numpy(),
            parameter_array(x.view(-1, n)),
            parameter_array(weight.detach().contiguous()),
            scales.view(-1).numpy(),
            dx.view(-1, n).numpy(),
            partial.numpy(),
            threads,
        )
    return dx, partial.sum(dim=0)


@_rms_norm_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(weight)


def _setup(ctx, inputs, output):
    x, weight, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, output[1])


def _backward(ctx, grad, _grad_scales):
    if grad is None:
        return None, None, None
    return (*_rms_norm_backward(grad, *ctx.saved_tensors), None)


_rms_norm.register_autograd(_backward, setup_context=_setup)


def rms_norm_reference(
    x: Float[Tensor, "... n"], weight: Float[Tensor, " n"], eps: float = EPSILON
) -> Float[Tensor, "... n"]:
    """PyTorch's own."""
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


@operator("rms_norm", rms_norm_reference)
def rms_norm(x: Float[Tensor, "... n"], weight: Float[Tensor, " n"], eps: float = EPSILON) -> Float[Tensor, "... n"]:
    """x / √(mean x² + eps) · weight along the last dimension. Differentiable once in x and weight; on other devices
    and types PyTorch's own function."""
    if x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and x.numel():
        return _rms_norm(x, weight, eps)[0]
    return rms_norm_reference(x, weight, eps)


class RMSNorm(nn.RMSNorm):
    """nn.RMSNorm over the last dimension by `rms_norm`. Same parameters, same result to float32 rounding."""

    eps: float

    def __init__(self, width: int, eps: float = EPSILON) -> None:
        super().__init__(width, eps=eps)

    def forward(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
        """x: [..., n], same shape out."""
        return rms_norm(x, self.weight, self.eps)
