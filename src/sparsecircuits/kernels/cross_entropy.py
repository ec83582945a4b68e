"""Unembedding and cross-entropy in one, a few hundred tokens at a time, so that logits stay in the cache.

Gradients are computed on the way (the logits are at hand then) and scaled in backward.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.kernels._views import parameter_array
from sparsecircuits.kernels.choice import operator
from sparsecircuits.kernels.held import Held, Pattern
from sparsecircuits.kernels.held_mlp import BLOCK
from sparsecircuits.kernels.sparse_linear import MOST_DENSE, Nonzeros

ROWS = 512
HELD_ROWS = 1024  # whose errors are written before they are added to the table's gradient: work for 16 threads
MOST_LOGITS = 1 << 25  # held at once on a GPU


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        table: Tensor | None,
        ids: Tensor,
    ) -> Tensor:
        needed = ctx.needs_input_grad
        grads = [
            torch.zeros_like(x) if x is not None and n else None
            for x, n in zip((weight, bias), needed[1:3], strict=True)
        ]
        grad_table = torch.zeros_like(table) if table is not None and needed[4] else None
        grad_hidden = torch.empty_like(hidden) if needed[0] else None
        sparse = Nonzeros(weight) if weight.count_nonzero() < MOST_DENSE * weight.numel() else None
        losses = hidden.new_empty(hidden.shape[0])
        for start in range(0, hidden.shape[0], ROWS):
            rows = slice(start, min(start + ROWS, hidden.shape[0]))
            h = hidden[rows]
            logits = torch.addmm(bias, h, weight.T) if sparse is None else sparse.product(h, bias)
            _softmax_minus_target(logits, table, ids[rows], targets[rows], hidden.shape[0], losses[rows])
            _accumulate(logits, h, grads[0], grads[1], grad_table, ids[rows])
            if grad_hidden is not None:
                grad_hidden[rows] = logits @ weight if sparse is None else sparse.transposed_product(logits)
        ctx.grads = (grad_hidden, *grads, None, grad_table, None)
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return _given_away(ctx, grad)


class _HeldCrossEntropy(torch.autograd.Function):
    """The same of a weight held as its nonzeros, of which `values` are differentiable."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        values: Tensor,
        bias: Tensor,
        targets: Tensor,
        table: Tensor | None,
        ids: Tensor,
        pattern: Pattern,
    ) -> Tensor:
        from sparsecircuits.kernels import _cpu, _cpu_cross_entropy, _cpu_held_cross_entropy

        n, entries = len(hidden), len(bias)
        grad_table = torch.zeros_like(table) if table is not None and ctx.needs_input_grad[4] else None
        grad_hidden, losses = torch.empty_like(hidden), hidden.new_empty(n)
        grads = torch.zeros_like(values), torch.zeros_like(bias)
        parts = [torch.empty_like(grad) for grad in grads]
        errors = hidden.new_empty(0 if grad_table is None else min(n, HELD_ROWS), entries)
        bigram = hidden.new_empty(0, entries) if table is None else table.detach()
        threads = torch.get_num_threads()
        for start in range(0, n, HELD_ROWS):
            rows = slice(start, min(start + HELD_ROWS, n))
            count = rows.stop - start
            with _cpu.LOCK:
                _cpu_held_cross_entropy.held_cross_entropy(
                    hidden.detach()[rows].numpy(),
                    (pattern.row_starts.numpy(), pattern.columns.numpy()),
                    parameter_array(values),
                    parameter_array(bias),
                    parameter_array(bigram),
                    ids[rows].numpy(),
                    targets[rows].numpy(),
                    1.0 / n,
                    losses[rows].numpy(),
                    errors[:count].numpy(),
                    grad_hidden[rows].numpy(),
                    *(part.numpy() for part in parts),
                    -(-count // BLOCK),
                    threads,
                )
                if grad_table is not None:
                    _cpu_cross_entropy.add_rows(grad_table.numpy(), ids[rows].numpy(), errors[:count].numpy(), threads)
            for grad, part in zip(grads, parts, strict=True):
                grad += part
        ctx.grads = (grad_hidden, *grads, None, grad_table, None, None)
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return _given_away(ctx, grad)


def _given_away(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if ctx.grads is None:
        raise RuntimeError("this loss was differentiated before: its gradients were given away")
    scale = grad.item()
    grads, ctx.grads = ctx.grads, None  # whoever has the only reference need not copy 16 MB of bigram table
    return tuple(g if g is None or scale == 1.0 else g * scale for g in grads)


def _softmax_minus_target(
    logits: Tensor, table: Tensor | None, ids: Tensor, targets: Tensor, n: int, losses: Tensor
) -> None:
    from sparsecircuits.kernels import _cpu, _cpu_cross_entropy

    bigram = torch.empty(0, logits.shape[1]) if table is None else table.detach()
    with _cpu.LOCK:
        _cpu_cross_entropy.cross_entropy_rows(
            logits.numpy(),
            parameter_array(bigram),
            ids.numpy(),
            targets.numpy(),
            1.0 / n,
            losses.numpy(),
            torch.get_num_threads(),
        )


def _accumulate(
    errors: Tensor,
    hidden: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    table: Tensor | None,
    ids: Tensor,
) -> None:
    """Add this chunk's part to the gradients of weight, bias and table."""
    from sparsecircuits.kernels import _cpu, _cpu_cross_entropy

    if weight is not None:
        weight.addmm_(errors.T, hidden)
    if bias is not None:
        bias += errors.sum(dim=0)
    if table is not None:
        with _cpu.LOCK:
            _cpu_cross_entropy.add_rows(table.numpy(), ids.numpy(), errors.numpy(), torch.get_num_threads())


class ChunkedCrossEntropy(torch.autograd.Function):
    """The same in plain PyTorch for any device and type: products in `dtype`, the softmax in float32 or more."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        table: Tensor | None,
        ids: Tensor,
        dtype: torch.dtype,
        rows: int,
    ) -> Tensor:
        n, single = hidden.shape[0], torch.promote_types(dtype, torch.float32)
        inputs = (hidden, weight, bias, None, table)
        grads = [
            torch.zeros_like(x) if x is not None and needed else None
            for x, needed in zip(inputs, ctx.needs_input_grad[:5], strict=True)
        ]
        w, total = weight.to(dtype), torch.zeros((), dtype=single, device=hidden.device)
        for start in range(0, n, rows):
            part = slice(start, min(start + rows, n))
            h = hidden[part].to(dtype)
            logits = F.linear(h, w, bias.to(dtype)).to(single)
            if table is not None:
                logits += table[ids[part]]
            target = targets[part].unsqueeze(1)
            lse = logits.logsumexp(dim=1, keepdim=True)
            total += (lse - logits.gather(1, target)).sum()
            if any(ctx.needs_input_grad):
                errors = logits.sub_(lse).exp_().scatter_add_(1, target, torch.full_like(lse, -1)).div_(n)
                _add_gradients(grads, errors, h, w, part, ids[part])
        ctx.grads = grads
        return total / n

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return (*(None if g is None else g * grad.to(g.dtype) for g in ctx.grads), None, None, None)


def _add_gradients(
    grads: list[Tensor | None], errors: Tensor, hidden: Tensor, weight: Tensor, part: slice, ids: Tensor
) -> None:
    """Add what the errors of one part of the rows give to (hidden, weight, bias, -, table)."""
    grad_hidden, grad_weight, grad_bias, _, grad_table = grads
    low = errors.to(hidden.dtype)
    if grad_hidden is not None:
        grad_hidden[part] = low @ weight
    if grad_weight is not None:
        grad_weight += low.T @ hidden
    if grad_bias is not None:
        grad_bias += errors.sum(dim=0)
    if grad_table is not None:
        grad_table.index_add_(0, ids, errors.to(grad_table.dtype))


def cross_entropy_reference(
    hidden: Float[Tensor, "n D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"],
    targets: Int[Tensor, " n"],
    table: Float[Tensor, "rows V"] | None = None,
    ids: Int[Tensor, " n"] | None = None,
    held: Held | None = None,
) -> Float[Tensor, ""]:
    """The plain-PyTorch definition of `linear_cross_entropy`, with all logits at once."""
    logits = F.linear(hidden, weight if held is None else held.dense(), bias.to(hidden.dtype))
    if table is not None:
        logits = logits + table[targets if ids is None else ids]
    return F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), targets)


@operator("linear_cross_entropy", cross_entropy_reference)
def linear_cross_entropy(
    hidden: Float[Tensor, "n D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"],
    targets: Int[Tensor, " n"],
    table: Float[Tensor, "rows V"] | None = None,
    ids: Int[Tensor, " n"] | None = None,
    held: Held | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats of logits hidden · weightᵀ + bias (+ table[ids]). Differentiable in hidden,
    weight, bias and table. An id or target outside the vocabulary is an IndexError.

    held: the weight as its nonzeros (float32, on a CPU); then differentiable in these instead. table: may be fewer
    rows than the vocabulary, where ids are rows of it.
    """
    ids = targets if ids is None else ids
    weight = weight if held is None else held.values
    floats = [x for x in (hidden, weight, bias, table) if x is not None]
    autocast = torch.is_autocast_enabled(hidden.device.type)
    if hidden.device.type == "cpu" and not autocast and all(x.dtype == torch.float32 for x in floats):
        vocabulary = len(bias)
        for index, count in ((ids, vocabulary if table is None else len(table)), (targets, vocabulary)):
            if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < count:
                raise IndexError(f"an id is outside 0..{count - 1}")
        arguments = [x.contiguous() if x is not None else None for x in (hidden, weight, bias, targets, table, ids)]
        if held is not None:
            return _HeldCrossEntropy.apply(*arguments, held.pattern)
        return _LinearCrossEntropy.apply(*arguments)
    if held is not None:
        raise ValueError("a weight held as its nonzeros is for float32 on a CPU")
    if hidden.is_cuda:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        rows = max(256, MOST_LOGITS // weight.shape[0])
        with torch.autocast(kind, enabled=False):
            return ChunkedCrossEntropy.apply(hidden, weight, bias, targets, table, ids, dtype, rows)
    return cross_entropy_reference(hidden, weight, bias, targets, table, ids)
