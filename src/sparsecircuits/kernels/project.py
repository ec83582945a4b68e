"""Exact top-k projection of a weight matrix with a floor per neuron (Gao et al. 2025, section 2.1).

Keeps exactly k entries: first the `floor` largest of every unit (row or column), then the largest of
the rest. The protected entries sit inside the budget k.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.kernels import _gpu
from sparsecircuits.kernels.choice import operator


def topk_mask_reference(
    weight: Float[Tensor, "out in"], k: int, floor: int = 0, dim: int = 1
) -> Bool[Tensor, "out in"]:
    """The plain-PyTorch definition and test oracle of `project_topk_`: the mask of what is kept."""
    # One rank per entry: magnitude first, then (stable sort) the lower index.
    score = weight.detach().abs().double()
    score = torch.where(score.isnan(), torch.full_like(score, torch.inf), score)
    order = score.flatten().sort(descending=True, stable=True).indices
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
    rank = rank.view_as(weight)
    if floor:
        protected = score.sort(dim=dim, descending=True, stable=True).indices.narrow(dim, 0, floor)
        rank = rank.scatter(dim, protected, -1)
    kept = rank.flatten().sort(stable=True).indices[:k]
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    return mask.index_fill_(0, kept, True).view_as(weight)


@torch.library.custom_op("sparsecircuits::project_topk_", mutates_args=("weight",))
def _project(weight: Tensor, k: int, floor: int, dim: int) -> None:
    weight.masked_fill_(~topk_mask_reference(weight, k, floor, dim), 0)


@_project.register_kernel("cpu")
def _(weight: Tensor, k: int, floor: int, dim: int) -> None:
    from sparsecircuits.kernels import _cpu, _cpu_project

    if weight.dtype != torch.float32 or not weight.is_contiguous():
        weight.masked_fill_(~topk_mask_reference(weight, k, floor, dim), 0)
        return
    with _cpu.LOCK:
        _cpu_project.project(weight.detach().view(torch.int32).numpy(), k, floor, dim, torch.get_num_threads())


@_project.register_kernel("cuda")
def _(weight: Tensor, k: int, floor: int, dim: int) -> None:
    if not _gpu.takes(weight):
        weight.masked_fill_(~topk_mask_reference(weight, k, floor, dim), 0)
        return
    from sparsecircuits.kernels import _triton_project

    work = weight.detach().contiguous()
    with torch.cuda.device(weight.device):
        _triton_project.project(work, k, floor, dim)
    if not weight.is_contiguous():
        weight.copy_(work)


@_project.register_fake
def _(weight: Tensor, k: int, floor: int, dim: int) -> None:
    return None


def project_topk_(weight: Float[Tensor, "out in"], k: int, floor: int = 0, dim: int = 1) -> Tensor:
    """Zero all but k entries of `weight` in place and return it.

    weight: a matrix [out, in]. k: how many entries survive. floor: how many of them every unit keeps at
    least, where a unit is a row (dim=1: its entries lie along dimension 1) or a column (dim=0). Among
    equal magnitudes the lower flat index wins. Raises ValueError when the floor does not fit in k.
    """
    if weight.dim() != 2:
        raise ValueError(f"expected a matrix, got shape {tuple(weight.shape)}")
    units, per_unit = weight.shape[1 - dim], weight.shape[dim]
    if not 0 <= k <= weight.numel():
        raise ValueError(f"k = {k} is outside 0..{weight.numel()}")
    floor = min(floor, per_unit)
    if floor * units > k:
        raise ValueError(f"a floor of {floor} for each of {units} units needs {floor * units} > k = {k} entries")
    if k == weight.numel():
        return weight
    if k == 0:
        return weight.detach().zero_()
    with torch.no_grad():
        _projected(weight, k, floor, dim)
    return weight


def _projected_reference(weight: Float[Tensor, "out in"], k: int, floor: int, dim: int) -> None:
    weight.masked_fill_(~topk_mask_reference(weight, k, floor, dim), 0)


@operator("project_topk_", _projected_reference)
def _projected(weight: Float[Tensor, "out in"], k: int, floor: int, dim: int) -> None:
    """`project_topk_` of arguments that fit, some of the weight kept."""
    _project(weight, k, floor, dim)
