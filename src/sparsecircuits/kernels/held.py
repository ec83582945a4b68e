"""Layers whose weight is held as its nonzeros: the pattern stays, the values learn.

Output, input gradient and the values' gradient all cost what the nonzeros cost: the last is one dot product over the
tokens for each of them, and no dense matrix is ever written. So on a CPU in float32, and on a CUDA device in the types
that its kernels take; elsewhere the operators use their plain-PyTorch references, which go by the dense matrix.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparsecircuits.kernels import _gpu
from sparsecircuits.kernels._views import parameter_array
from sparsecircuits.kernels.choice import operator


@dataclass(frozen=True)
class Pattern:
    """Where a matrix's nonzeros are. Their order is by row, and in a row by column."""

    shape: tuple[int, int]
    places: Int[Tensor, " nonzeros"]
    """Flat places in the matrix, int64."""
    row_starts: Int[Tensor, " rows+1"]
    columns: Int[Tensor, " nonzeros"]
    """int32."""
    column_starts: Int[Tensor, " columns+1"]
    rows: Int[Tensor, " nonzeros"]
    """int32, by column."""
    order: Int[Tensor, " nonzeros"]
    """Where each nonzero by column is in the order by row, int64."""

    @classmethod
    def of(cls, weight: Float[Tensor, "rows columns"]) -> "Pattern":
        """The pattern of a matrix's nonzero entries."""
        return cls.at((weight.shape[0], weight.shape[1]), weight.detach().reshape(-1).nonzero()[:, 0])

    @classmethod
    def at(cls, shape: tuple[int, int], places: Int[Tensor, " nonzeros"]) -> "Pattern":
        """The pattern of a matrix with nonzeros at these flat places, in ascending order."""
        n_rows, n_columns = shape
        rows, columns = places // n_columns, places % n_columns
        order = columns.argsort(stable=True)
        return cls(
            (n_rows, n_columns),
            places,
            _starts(rows, n_rows),
            columns.int(),
            _starts(columns, n_columns),
            rows[order].int(),
            order,
        )


def _starts(units: Tensor, count: int) -> Tensor:
    return torch.nn.functional.pad(torch.bincount(units, minlength=count).cumsum(0), (1, 0))


@dataclass(frozen=True)
class Held:
    """A weight as its nonzeros: what takes part in the graph is `values`, not the matrix they came from."""

    pattern: Pattern
    values: Float[Tensor, " nonzeros"]

    def dense(self) -> Float[Tensor, "rows columns"]:
        """The matrix, differentiable in the values."""
        return _dense(self.pattern.row_starts, self.pattern.columns, self.values, self.pattern.shape[1])

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x · weightᵀ + bias, not differentiable."""
        return compressed_product(x, self.pattern.row_starts, self.pattern.columns, self.values.detach(), bias)

    def transposed_product(self, x: Tensor) -> Tensor:
        """x · weight, not differentiable."""
        p = self.pattern
        return compressed_product(x, p.column_starts, p.rows, self.values.detach()[p.order], None)

    def linear(self, x: Float[Tensor, "... columns"], bias: Tensor | None = None) -> Float[Tensor, "... rows"]:
        """x · weightᵀ + bias. Differentiable in x, values and bias."""
        return _held_linear(self, x, bias)

    def embed(self, ids: Int[Tensor, "..."]) -> Float[Tensor, "... columns"]:
        """The rows of the matrix that ids name. Differentiable in the values."""
        return _held_embed(self, ids)


@torch.library.custom_op("sparsecircuits::sampled_product", mutates_args=())
def sampled_product(a: Tensor, b: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    """(aᵀ · b) at the places of a sparse matrix's nonzeros alone: a [n, rows], b [n, columns] -> [nonzeros].

    starts [rows + 1] and columns [nonzeros] say where they are (`Pattern`). Not differentiable.
    """
    return _at_nonzeros(a.T @ b, starts, columns)


def _rows_of(starts: Tensor, columns: Tensor) -> Int[Tensor, " nonzeros"]:
    """Each nonzero's row. The host does not wait for the device to count them: there is a column for each."""
    rows = torch.arange(len(starts) - 1, device=starts.device)
    return torch.repeat_interleave(rows, starts.diff(), output_size=len(columns))


def _at_nonzeros(matrix: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    return matrix[_rows_of(starts, columns), columns.long()]


def _dense(starts: Tensor, columns: Tensor, values: Tensor, width: int) -> Float[Tensor, "rows columns"]:
    """The matrix that lists by row stand for, differentiable in the values."""
    matrix = values.new_zeros(len(starts) - 1, width)
    matrix[_rows_of(starts, columns), columns.long()] = values
    return matrix


@sampled_product.register_kernel("cpu")
def _(a: Tensor, b: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    if a.dtype != torch.float32 or b.dtype != torch.float32:
        return _at_nonzeros(a.T @ b, starts, columns)
    from sparsecircuits.kernels import _cpu, _cpu_sparse

    out = torch.empty(len(columns))
    with _cpu.LOCK:
        _cpu_sparse.sampled_product(
            parameter_array(a.contiguous()),
            parameter_array(b.contiguous()),
            starts.numpy(),
            columns.numpy(),
            out.numpy(),
            torch.get_num_threads(),
        )
    return out


@sampled_product.register_kernel("cuda")
def _sampled_on_gpu(a: Tensor, b: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    if not _gpu.takes(a) or a.dtype != b.dtype:
        return _at_nonzeros(a.T @ b, starts, columns)
    from sparsecircuits.kernels import _triton_held

    with torch.cuda.device(a.device):
        return _triton_held.sampled_product(a, b, _rows_of(starts, columns), columns)


@sampled_product.register_fake
def _(a: Tensor, b: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    return a.new_empty(len(columns))


def multiply_lists(
    x: Tensor, lists: tuple[np.ndarray, np.ndarray, np.ndarray], bias: Tensor | None
) -> Float[Tensor, "... out"]:
    """x [..., in] · Wᵀ + bias on a CPU in float32, of a W given by its nonzeros by output: (starts int64 [out + 1],
    indices int32, values). Not differentiable."""
    from sparsecircuits.kernels import _cpu, _cpu_sparse

    n_out = len(lists[0]) - 1
    source = x.detach().reshape(-1, x.shape[-1]).contiguous()
    out = torch.empty(source.shape[0], n_out)
    shift = torch.zeros(n_out) if bias is None else bias.detach().contiguous()
    with _cpu.LOCK:
        _cpu_sparse.sparse_product(
            parameter_array(source), *lists, parameter_array(shift), out.numpy(), torch.get_num_threads()
        )
    return out.view(*x.shape[:-1], n_out)


@torch.library.custom_op("sparsecircuits::compressed_product", mutates_args=())
def compressed_product(x: Tensor, starts: Tensor, indices: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] · Wᵀ + bias -> [..., out], of a W given by its nonzeros by output: starts [out + 1], indices and
    values [nonzeros]. Not differentiable."""
    return _compressed_reference(x, starts, indices, values, bias)


def _compressed_reference(
    x: Tensor, starts: Tensor, indices: Tensor, values: Tensor, bias: Tensor | None
) -> Float[Tensor, "... out"]:
    return torch.nn.functional.linear(x, _dense(starts, indices, values, x.shape[-1]).to(x.dtype), bias)


@compressed_product.register_kernel("cpu")
def _(x: Tensor, starts: Tensor, indices: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    if x.dtype != torch.float32 or values.dtype != torch.float32:
        return _compressed_reference(x, starts, indices, values, bias)
    return multiply_lists(x, (starts.numpy(), indices.numpy(), parameter_array(values)), bias)


@compressed_product.register_kernel("cuda")
def _product_on_gpu(x: Tensor, starts: Tensor, indices: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    if not _gpu.takes(x) or not _gpu.takes(values):
        return _compressed_reference(x, starts, indices, values, bias)
    from sparsecircuits.kernels import _triton_held

    with torch.cuda.device(x.device):
        return _triton_held.compressed_product(x, starts, indices, values, bias)


@compressed_product.register_fake
def _(x: Tensor, starts: Tensor, indices: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(starts) - 1)


@torch.library.custom_op("sparsecircuits::held_linear", mutates_args=())
def _linear(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    row_starts: Tensor,
    columns: Tensor,
    column_starts: Tensor,
    rows: Tensor,
    order: Tensor,
) -> Tensor:
    return compressed_product(x, row_starts, columns, values, bias)


@_linear.register_fake
def _(x: Tensor, values: Tensor, bias: Tensor | None, row_starts: Tensor, *_rest: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(row_starts) - 1)


def _linear_setup(ctx, inputs, output):
    x, values, bias, *pattern = inputs
    ctx.save_for_backward(x, values, *pattern)
    ctx.has_bias = bias is not None


def _linear_backward(ctx, grad):
    x, values, row_starts, columns, column_starts, rows, order = ctx.saved_tensors
    need_x, need_values, need_bias, *_ = ctx.needs_input_grad
    flat = grad.reshape(-1, grad.shape[-1])
    grad_x = compressed_product(grad, column_starts, rows, values[order], None) if need_x else None
    grad_values = sampled_product(flat, x.reshape(-1, x.shape[-1]), row_starts, columns) if need_values else None
    grad_bias = flat.sum(dim=0) if need_bias and ctx.has_bias else None
    return grad_x, grad_values, grad_bias, None, None, None, None, None


_linear.register_autograd(_linear_backward, setup_context=_linear_setup)


@torch.library.custom_op("sparsecircuits::held_embed", mutates_args=())
def _embed(ids: Tensor, values: Tensor, starts: Tensor, columns: Tensor, width: int) -> Tensor:
    return _dense(starts, columns, values, width)[ids]


@_embed.register_kernel("cpu")
def _(ids: Tensor, values: Tensor, starts: Tensor, columns: Tensor, width: int) -> Tensor:
    from sparsecircuits.kernels import _cpu_sparse

    flat = ids.reshape(-1).contiguous()
    _require_rows(flat, starts)
    out = values.new_zeros(flat.numel(), width)
    _cpu_sparse.gather_rows(flat.numpy(), starts.numpy(), columns.numpy(), parameter_array(values), out.numpy())
    return out.view(*ids.shape, width)


@_embed.register_kernel("cuda")
def _embed_on_gpu(ids: Tensor, values: Tensor, starts: Tensor, columns: Tensor, width: int) -> Tensor:
    if not _gpu.takes(values):
        return _dense(starts, columns, values, width)[ids]
    from sparsecircuits.kernels import _triton_held

    with torch.cuda.device(values.device):
        return _triton_held.embed(ids, values, starts, columns, width)


def _require_rows(ids: Tensor, starts: Tensor) -> None:
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(starts) - 1:
        raise IndexError(f"an id is outside 0..{len(starts) - 2}")


@_embed.register_fake
def _(ids: Tensor, values: Tensor, starts: Tensor, columns: Tensor, width: int) -> Tensor:
    return values.new_empty(*ids.shape, width)


@torch.library.custom_op("sparsecircuits::held_embed_gradient", mutates_args=())
def _embed_gradient(grad: Tensor, ids: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    return _embed_gradient_reference(grad, ids, starts, columns)


def _embed_gradient_reference(grad: Tensor, ids: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    return _at_nonzeros(grad.new_zeros(len(starts) - 1, grad.shape[1]).index_add_(0, ids, grad), starts, columns)


@_embed_gradient.register_kernel("cpu")
def _(grad: Tensor, ids: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    from sparsecircuits.kernels import _cpu_sparse

    out = grad.new_zeros(len(columns))
    source = parameter_array(grad.contiguous())
    _cpu_sparse.scatter_rows(ids.contiguous().numpy(), starts.numpy(), columns.numpy(), source, out.numpy())
    return out


@_embed_gradient.register_kernel("cuda")
def _embed_gradient_on_gpu(grad: Tensor, ids: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    if not _gpu.takes(grad):
        return _embed_gradient_reference(grad, ids, starts, columns)
    from sparsecircuits.kernels import _triton_held

    with torch.cuda.device(grad.device):
        return _triton_held.embed_gradient(grad, ids, len(starts) - 1, _rows_of(starts, columns), columns)


@_embed_gradient.register_fake
def _(grad: Tensor, ids: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    return grad.new_empty(len(columns))


def _embed_setup(ctx, inputs, output):
    ids, _, starts, columns, _ = inputs
    ctx.save_for_backward(ids, starts, columns)


def _embed_backward(ctx, grad):
    ids, starts, columns = ctx.saved_tensors
    return None, _embed_gradient(grad.reshape(-1, grad.shape[-1]), ids.reshape(-1), starts, columns), None, None, None


_embed.register_autograd(_embed_backward, setup_context=_embed_setup)


def _held_linear_reference(
    held: Held, x: Float[Tensor, "... columns"], bias: Tensor | None
) -> Float[Tensor, "... rows"]:
    return torch.nn.functional.linear(x, held.dense().to(x.dtype), bias)


@operator("held_linear", _held_linear_reference)
def _held_linear(held: Held, x: Float[Tensor, "... columns"], bias: Tensor | None) -> Float[Tensor, "... rows"]:
    p = held.pattern
    return _linear(x, held.values, bias, p.row_starts, p.columns, p.column_starts, p.rows, p.order)


def _held_embed_reference(held: Held, ids: Int[Tensor, "..."]) -> Float[Tensor, "... columns"]:
    return held.dense()[ids]


@operator("held_embed", _held_embed_reference)
def _held_embed(held: Held, ids: Int[Tensor, "..."]) -> Float[Tensor, "... columns"]:
    p = held.pattern
    return _embed(ids, held.values, p.row_starts, p.columns, p.shape[1])


class Embedding(nn.Embedding):
    """nn.Embedding whose table may be held as its nonzeros while it trains."""

    held: Held | None = None

    def forward(self, ids: Int[Tensor, "..."]) -> Float[Tensor, "... width"]:
        """Rows of the table."""
        return super().forward(ids) if self.held is None else self.held.embed(ids)
