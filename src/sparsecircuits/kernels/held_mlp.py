"""An MLP whose two weights are held as their nonzeros, as one operator: linear, GELU, AbsTopK, linear.

On a CPU in float32 nothing that is as wide as the MLP's units goes to memory, neither going forward nor going back,
but for one bit of each: whether AbsTopK kept it. Backward computes the units' values again. Elsewhere the operator is
its plain-PyTorch reference.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from sparsecircuits.kernels._views import parameter_array
from sparsecircuits.kernels.abstopk import abstopk_reference
from sparsecircuits.kernels.choice import operator
from sparsecircuits.kernels.held import Held, _at_nonzeros, _dense

BLOCK = 64  # tokens of a block
GROUPS = 16  # of blocks, whose gradients are summed apart: what threads can share
FEWEST_BLOCKS = 4  # of a group
MOST_UNITS = 32767  # counted in 16 bits


def takes(x: Tensor, units: int, k: int | None) -> bool:
    """Whether the fused kernels do this: float32 on a CPU, and something is kept."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and 0 < units <= MOST_UNITS and k != 0


def held_mlp(
    x: Float[Tensor, "... inputs"],
    fc: Held,
    fc_bias: Float[Tensor, " units"] | None,
    proj: Held,
    proj_bias: Float[Tensor, " outputs"] | None,
    k: int | None,
) -> Float[Tensor, "... outputs"]:
    """proj · AbsTopK(GELU(fc · x + fc_bias)) + proj_bias, of weights fc [units, inputs] and proj [outputs, units].

    Differentiable once, in x, both weights' values and both biases. k: entries that AbsTopK keeps; None: all.
    Raises ValueError where k is not positive.
    """
    units = fc.pattern.shape[0]
    kept = units if k is None else min(k, units)
    if kept < 1:
        raise ValueError(f"k must be positive, got {k}")
    return _fused(x, fc, fc_bias, proj, proj_bias, kept)


def _unfused(
    x: Float[Tensor, "... inputs"], fc: Held, fc_bias: Tensor | None, proj: Held, proj_bias: Tensor | None, k: int
) -> Float[Tensor, "... outputs"]:
    value, _ = abstopk_reference(F.gelu(F.linear(x, fc.dense(), fc_bias)), k)
    return F.linear(value, proj.dense(), proj_bias)


@operator("held_mlp", _unfused)
def _fused(
    x: Float[Tensor, "... inputs"], fc: Held, fc_bias: Tensor | None, proj: Held, proj_bias: Tensor | None, k: int
) -> Float[Tensor, "... outputs"]:
    """`held_mlp` of a k that fits."""
    p, q = fc.pattern, proj.pattern
    lists = (p.row_starts, p.columns, q.column_starts, q.rows, q.order)
    return _held_mlp(x, fc.values, fc_bias, proj.values, proj_bias, *lists, q.shape[0], k)[0]


def packed_bits(mask: Bool[Tensor, "*rows n"]) -> UInt8[Tensor, "*rows n/8"]:
    """A bit for each entry of rows, the lowest first; n is a multiple of 8."""
    places = torch.arange(8, dtype=torch.uint8, device=mask.device)
    return (mask.to(torch.uint8).unflatten(-1, (-1, 8)) << places).sum(dim=-1, dtype=torch.uint8)


def unpacked_bits(kept: UInt8[Tensor, "*rows n/8"]) -> Bool[Tensor, "*rows n"]:
    """The inverse of `packed_bits`."""
    places = torch.arange(8, dtype=torch.uint8, device=kept.device)
    return ((kept.unsqueeze(-1) >> places) & 1).flatten(-2).bool()


def _packed(mask: Bool[Tensor, "tokens units"]) -> UInt8[Tensor, "blocks units 8"]:
    """A bit for each token of a block."""
    tokens, units = mask.shape
    blocks = -(-tokens // BLOCK)
    whole = F.pad(mask, (0, 0, 0, blocks * BLOCK - tokens)).view(blocks, BLOCK, units)
    return packed_bits(whole.transpose(1, 2)).contiguous()


def _unpacked(kept: UInt8[Tensor, "blocks units 8"], tokens: int) -> Bool[Tensor, "tokens units"]:
    return unpacked_bits(kept).transpose(1, 2).flatten(0, 1)[:tokens]


@torch.library.custom_op("sparsecircuits::held_mlp", mutates_args=())
def _held_mlp(
    x: Tensor,
    fc_values: Tensor,
    fc_bias: Tensor | None,
    proj_values: Tensor,
    proj_bias: Tensor | None,
    fc_starts: Tensor,
    fc_columns: Tensor,
    proj_starts: Tensor,
    proj_rows: Tensor,
    proj_order: Tensor,
    outputs: int,
    k: int,
) -> tuple[Tensor, Tensor]:
    """(y [..., outputs], what AbsTopK kept: uint8 [blocks, units, 8]). The first weight's lists are by row, those of
    the second by column (`Pattern`); values by row."""
    lists = (fc_starts, fc_columns, proj_starts, proj_rows, proj_order)
    return _reference(x, fc_values, fc_bias, proj_values, proj_bias, lists, outputs, k)


def _reference(
    x: Tensor,
    fc_values: Tensor,
    fc_bias: Tensor | None,
    proj_values: Tensor,
    proj_bias: Tensor | None,
    lists: Sequence[Tensor],
    outputs: int,
    k: int,
) -> tuple[Tensor, Tensor]:
    fc, proj = _matrices(fc_values, proj_values, lists, x.shape[-1], outputs)
    value, mask = abstopk_reference(F.gelu(F.linear(x.flatten(0, -2), fc, fc_bias)), k)
    return F.linear(value, proj.T, proj_bias).view(*x.shape[:-1], outputs), _packed(mask)


def _matrices(
    fc_values: Tensor, proj_values: Tensor, lists: Sequence[Tensor], inputs: int, outputs: int
) -> tuple[Float[Tensor, "units inputs"], Float[Tensor, "units outputs"]]:
    """Both weights, the second one transposed."""
    fc_starts, fc_columns, proj_starts, proj_rows, proj_order = lists
    proj = _dense(proj_starts, proj_rows, proj_values[proj_order], outputs)
    return _dense(fc_starts, fc_columns, fc_values, inputs), proj


def _shift(bias: Tensor | None, width: int) -> Tensor:
    return torch.zeros(width) if bias is None else bias.detach().contiguous()


@_held_mlp.register_kernel("cpu")
def _(
    x: Tensor,
    fc_values: Tensor,
    fc_bias: Tensor | None,
    proj_values: Tensor,
    proj_bias: Tensor | None,
    fc_starts: Tensor,
    fc_columns: Tensor,
    proj_starts: Tensor,
    proj_rows: Tensor,
    proj_order: Tensor,
    outputs: int,
    k: int,
) -> tuple[Tensor, Tensor]:
    units = len(fc_starts) - 1
    if not takes(x, units, k):
        lists = (fc_starts, fc_columns, proj_starts, proj_rows, proj_order)
        return _reference(x, fc_values, fc_bias, proj_values, proj_bias, lists, outputs, k)
    from sparsecircuits.kernels import _cpu, _cpu_held_mlp

    source = x.detach().reshape(-1, x.shape[-1]).contiguous()
    y = torch.empty(source.shape[0], outputs)
    kept = torch.empty(-(-source.shape[0] // BLOCK), units, BLOCK // 8, dtype=torch.uint8)
    with _cpu.LOCK:
        _cpu_held_mlp.held_mlp(
            parameter_array(source),
            k,
            (fc_starts.numpy(), fc_columns.numpy()),
            parameter_array(fc_values),
            parameter_array(_shift(fc_bias, units)),
            (proj_starts.numpy(), proj_rows.numpy()),
            parameter_array(proj_values.detach()[proj_order]),
            parameter_array(_shift(proj_bias, outputs)),
            y.numpy(),
            kept.numpy(),
            torch.get_num_threads(),
        )
    return y.view(*x.shape[:-1], outputs), kept


@_held_mlp.register_fake
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *_, fc_starts, _, _, _, _, outputs, _ = rest
    blocks = (x.shape[:-1].numel() + BLOCK - 1) // BLOCK
    kept = x.new_empty(blocks, len(fc_starts) - 1, BLOCK // 8, dtype=torch.uint8)
    return x.new_empty(*x.shape[:-1], outputs), kept


@torch.library.custom_op("sparsecircuits::held_mlp_backward", mutates_args=())
def _held_mlp_backward(
    grad: Tensor,
    kept: Tensor,
    x: Tensor,
    fc_values: Tensor,
    fc_bias: Tensor | None,
    proj_values: Tensor,
    fc_starts: Tensor,
    fc_columns: Tensor,
    proj_starts: Tensor,
    proj_rows: Tensor,
    proj_order: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, fc_values, fc_bias (also where there is none) and proj_values."""
    lists = (fc_starts, fc_columns, proj_starts, proj_rows, proj_order)
    return _backward_reference(grad, kept, x, fc_values, fc_bias, proj_values, lists)


def _backward_reference(
    grad: Tensor,
    kept: Tensor,
    x: Tensor,
    fc_values: Tensor,
    fc_bias: Tensor | None,
    proj_values: Tensor,
    lists: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    fc_starts, fc_columns, proj_starts, proj_rows, proj_order = lists
    flat, upstream = x.flatten(0, -2), grad.flatten(0, -2)
    fc, proj = _matrices(fc_values, proj_values, lists, x.shape[-1], grad.shape[-1])
    before, mask = F.linear(flat, fc, fc_bias), _unpacked(kept, len(flat))
    slope = 0.5 * (1 + torch.erf(before * 0.5**0.5)) + before * torch.exp(-0.5 * before * before) * 0.3989422804014327
    back = (upstream @ proj.T) * slope * mask
    d_proj = _at_nonzeros((F.gelu(before) * mask).T @ upstream, proj_starts, proj_rows)
    d_proj = torch.empty_like(d_proj).index_copy_(0, proj_order, d_proj)
    return (back @ fc).view(x.shape), _at_nonzeros(back.T @ flat, fc_starts, fc_columns), back.sum(dim=0), d_proj


@_held_mlp_backward.register_kernel("cpu")
def _(
    grad: Tensor,
    kept: Tensor,
    x: Tensor,
    fc_values: Tensor,
    fc_bias: Tensor | None,
    proj_values: Tensor,
    fc_starts: Tensor,
    fc_columns: Tensor,
    proj_starts: Tensor,
    proj_rows: Tensor,
    proj_order: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    units = len(fc_starts) - 1
    if not takes(x, units, None):
        lists = (fc_starts, fc_columns, proj_starts, proj_rows, proj_order)
        return _backward_reference(grad, kept, x, fc_values, fc_bias, proj_values, lists)
    from sparsecircuits.kernels import _cpu, _cpu_held_mlp

    source, upstream = (t.detach().reshape(-1, t.shape[-1]).contiguous() for t in (x, grad))
    dx, d_fc, d_bias = torch.empty_like(source), torch.empty(len(fc_values)), torch.empty(units)
    d_proj = torch.empty(len(proj_values))
    groups = max(1, min(GROUPS, len(kept) // FEWEST_BLOCKS))
    with _cpu.LOCK:
        _cpu_held_mlp.held_mlp_backward(
            parameter_array(upstream),
            parameter_array(source),
            kept.numpy(),
            (fc_starts.numpy(), fc_columns.numpy()),
            parameter_array(fc_values),
            parameter_array(_shift(fc_bias, units)),
            (proj_starts.numpy(), proj_rows.numpy()),
            parameter_array(proj_values.detach()[proj_order]),
            *(t.numpy() for t in (dx, d_fc, d_bias, d_proj)),
            groups,
            torch.get_num_threads(),
        )
    return dx.view(x.shape), d_fc, d_bias, torch.empty_like(d_proj).index_copy_(0, proj_order, d_proj)


@_held_mlp_backward.register_fake
def _(
    grad: Tensor, kept: Tensor, x: Tensor, fc_values: Tensor, fc_bias: Tensor | None, proj_values: Tensor, *lists: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    units = len(lists[0]) - 1
    return x.new_empty(x.shape), torch.empty_like(fc_values), x.new_empty(units), torch.empty_like(proj_values)


def _setup(ctx, inputs, output):
    x, fc_values, fc_bias, proj_values, proj_bias, *lists, _outputs, _k = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], x, fc_values, fc_bias, proj_values, *lists)
    ctx.has_biases = fc_bias is not None, proj_bias is not None


def _backward(ctx, grad, _grad_kept):
    if grad is None:
        return (None,) * 12
    dx, d_fc, d_fc_bias, d_proj = _held_mlp_backward(grad, *ctx.saved_tensors)
    has_fc_bias, has_proj_bias = ctx.has_biases
    d_proj_bias = grad.reshape(-1, grad.shape[-1]).sum(dim=0) if has_proj_bias else None
    return dx, d_fc, d_fc_bias if has_fc_bias else None, d_proj, d_proj_bias, *(None,) * 7


_held_mlp.register_autograd(_backward, setup_context=_setup)
