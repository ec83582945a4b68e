"""AbsTopK: keep the k largest |x| along the last dimension, zero the rest (Gao et al. 2025, section 2.1).

Exactly k entries survive; among equal magnitudes the lower index wins. The gradient passes through the
survivors only. The operator's second output is the mask: bool, or on CUDA 16 channels in an int16, lowest
bit first, an eighth of the memory.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.kernels import _gpu
from sparsecircuits.kernels.choice import operator


def abstopk_reference(x: Float[Tensor, "... n"], k: int) -> tuple[Float[Tensor, "... n"], Bool[Tensor, "... n"]]:
    """The plain-PyTorch definition and test oracle: (kept values, mask)."""
    order = x.abs().sort(dim=-1, descending=True, stable=True).indices
    mask = torch.zeros_like(x, dtype=torch.bool).scatter_(-1, order[..., :k], True)
    return x * 0 if k == 0 else torch.where(mask, x, torch.zeros_like(x)), mask


@torch.library.custom_op("sparsecircuits::abstopk", mutates_args=())
def _abstopk(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return abstopk_reference(x, k)


@_abstopk.register_kernel("cpu")
def _(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    from sparsecircuits.kernels import _cpu

    if x.dtype == torch.float64 or x.numel() == 0:
        return abstopk_reference(x, k)
    source = x.detach().to(torch.float32).contiguous()
    out = torch.empty_like(source)
    mask = torch.empty(source.shape, dtype=torch.bool)
    n = source.shape[-1]
    with _cpu.LOCK:
        _cpu.abstopk(
            source.view(torch.int32).reshape(-1, n).numpy(),
            out.view(torch.int32).reshape(-1, n).numpy(),
            mask.reshape(-1, n).numpy(),
            k,
            torch.get_num_threads(),
        )
    return out.to(x.dtype), mask


WIDEST = 65536  # channels: a row must fit the registers of one Triton program


def _packs(x: Tensor) -> bool:
    return _gpu.takes(x) and x.shape[-1] <= WIDEST


@_abstopk.register_kernel("cuda")
def _(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if not _packs(x):
        return abstopk_reference(x, k)
    from sparsecircuits.kernels import _triton_abstopk

    with torch.cuda.device(x.device):
        return _triton_abstopk.abstopk(x, k)


@_abstopk.register_fake
def _(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if _packs(x):
        return out, x.new_empty(*x.shape[:-1], -(-x.shape[-1] // 16), dtype=torch.int16)
    return out, torch.empty_like(out, dtype=torch.bool)


@torch.library.custom_op("sparsecircuits::masked", mutates_args=())
def _masked(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, x, torch.zeros_like(x))


@_masked.register_kernel("cpu")
def _(x: Tensor, mask: Tensor) -> Tensor:
    from sparsecircuits.kernels import _cpu

    if x.dtype != torch.float32:
        return torch.where(mask, x, torch.zeros_like(x))
    source = x.detach().contiguous()
    out = torch.empty_like(source)
    with _cpu.LOCK:
        _cpu.masked_copy(
            source.view(torch.int32).reshape(-1).numpy(),
            mask.contiguous().view(torch.uint8).reshape(-1).numpy(),
            out.view(torch.int32).reshape(-1).numpy(),
            torch.get_num_threads(),
        )
    return out


@_masked.register_kernel("cuda")
def _(x: Tensor, mask: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.where(mask, x, torch.zeros_like(x))
    from sparsecircuits.kernels import _triton_abstopk

    with torch.cuda.device(x.device):
        return _triton_abstopk.masked(x, mask)


@_masked.register_fake
def _(x: Tensor, mask: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _save_masked(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])


def _masked_backward(ctx, grad):
    return _masked(grad, ctx.saved_tensors[0]), None


def _save_abstopk(ctx, inputs, output):
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _abstopk_backward(ctx, grad, _grad_mask):
    return _masked(grad, ctx.saved_tensors[0]), None


_masked.register_autograd(_masked_backward, setup_context=_save_masked)
_abstopk.register_autograd(_abstopk_backward, setup_context=_save_abstopk)


def abstopk(x: Float[Tensor, "... n"], k: int) -> Float[Tensor, "... n"]:
    """Keep the k largest magnitudes along the last dimension and zero the rest.

    Differentiable: the gradient is passed to the k survivors. k >= n returns x itself. Raises ValueError
    for a negative k.
    """
    if k < 0:
        raise ValueError(f"k must not be negative, got {k}")
    if k >= x.shape[-1]:
        return x
    if k == 0:
        return x * 0
    return _some_kept(x, k)


def _some_kept_reference(x: Float[Tensor, "... n"], k: int) -> Float[Tensor, "... n"]:
    return abstopk_reference(x, k)[0]


@operator("abstopk", _some_kept_reference)
def _some_kept(x: Float[Tensor, "... n"], k: int) -> Float[Tensor, "... n"]:
    """`abstopk` of a k between 0 and n."""
    return _abstopk(x, k)[0]
