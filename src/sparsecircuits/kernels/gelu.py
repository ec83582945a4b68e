"""Exact GELU followed by AbsTopK, in one pass on a CPU, with the derivative kept for backward."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.kernels.abstopk import abstopk, abstopk_reference
from sparsecircuits.kernels.choice import operator


def gelu_abstopk_reference(x: Float[Tensor, "... n"], k: int) -> tuple[Float[Tensor, "... n"], Float[Tensor, "... n"]]:
    """The plain-PyTorch definition and test oracle: (kept values, their derivative by x)."""
    kept, mask = abstopk_reference(F.gelu(x), k)
    normal = torch.exp(-0.5 * x * x) * 0.3989422804014327
    slope = 0.5 * (1 + torch.erf(x * 0.7071067811865476)) + x * normal
    return kept, slope * mask


@torch.library.custom_op("sparsecircuits::gelu_abstopk", mutates_args=(), device_types="cpu")
def _gelu_abstopk(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    from sparsecircuits.kernels import _cpu, _cpu_gelu

    source = x.detach().contiguous()
    out, slope = torch.empty_like(source), torch.empty_like(source)
    rows = [t.view(-1, source.shape[-1]).numpy() for t in (source, out, slope)]
    with _cpu.LOCK:
        _cpu_gelu.gelu_abstopk(*rows, k, torch.get_num_threads())  # type: ignore[call-arg]
    return out, slope


@_gelu_abstopk.register_fake
def _(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    like = torch.empty_like(x, memory_format=torch.contiguous_format)
    return like, torch.empty_like(like)


def _setup(ctx, inputs, output):
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # or the slope's gradient is made: a tensor of zeros that nobody reads
    ctx.save_for_backward(output[1])


def _backward(ctx, grad, _grad_slope):
    return None if grad is None else grad * ctx.saved_tensors[0], None


_gelu_abstopk.register_autograd(_backward, setup_context=_setup)


def _kept_reference(x: Float[Tensor, "... n"], k: int) -> Float[Tensor, "... n"]:
    return abstopk(F.gelu(x), k)


@operator("gelu_abstopk", _kept_reference)
def gelu_abstopk(x: Float[Tensor, "... n"], k: int) -> Float[Tensor, "... n"]:
    """The k largest |GELU(x)| along the last dimension, zero elsewhere. Differentiable once.

    float32 on a CPU takes one fused pass; else it is GELU, then AbsTopK. Raises ValueError for a negative k.
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and 0 < k < x.shape[-1] and x.numel():
        return _gelu_abstopk(x, k)[0]
    return abstopk(F.gelu(x), k)
