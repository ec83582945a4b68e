"""A linear layer whose forward and input gradient cost what its nonzeros cost.

The weight is an ordinary dense tensor that happens to be almost all zero. Its own gradient stays dense
(weights must be able to come back), so that product is an ordinary one.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sparsecircuits.kernels._views import parameter_array
from sparsecircuits.kernels.choice import operator
from sparsecircuits.kernels.held import Held, multiply_lists

# Below this density the sparse product beats the dense one on a CPU (measured: `bench sparse-linear`).
MOST_DENSE = 0.12
FEWEST_ROWS = 128  # fewer tokens do not pay for reading the nonzeros off the dense matrix


@torch.library.custom_op("sparsecircuits::sparse_product", mutates_args=())
def _sparse_product(x: Tensor, weight: Tensor, bias: Tensor | None, transpose: bool) -> Tensor:
    y = x @ (weight if transpose else weight.T)
    return y if bias is None else y + bias


@_sparse_product.register_kernel("cpu")
def _(x: Tensor, weight: Tensor, bias: Tensor | None, transpose: bool) -> Tensor:
    if x.dtype != torch.float32 or weight.dtype != torch.float32:
        y = x @ (weight if transpose else weight.T)
        return y if bias is None else y + bias
    nonzeros = Nonzeros(weight)
    return nonzeros.transposed_product(x) if transpose else nonzeros.product(x, bias)


class Nonzeros:
    """A float32 weight on the CPU as its nonzeros, read off when first needed in each direction."""

    def __init__(self, weight: Float[Tensor, "outputs inputs"]) -> None:
        self._weight = weight.detach().contiguous()
        self._lists: dict[bool, tuple] = {}

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x · weightᵀ + bias, not differentiable."""
        return self._multiply(x, bias, False)

    def transposed_product(self, x: Tensor) -> Tensor:
        """x · weight, not differentiable."""
        return self._multiply(x, None, True)

    def _multiply(self, x: Tensor, bias: Tensor | None, transpose: bool) -> Tensor:
        if transpose not in self._lists:
            from sparsecircuits.kernels import _cpu, _cpu_sparse

            count = int(self._weight.count_nonzero())
            with _cpu.LOCK:
                self._lists[transpose] = _cpu_sparse.compress(
                    parameter_array(self._weight), count, transpose, torch.get_num_threads()
                )
        return multiply_lists(x, self._lists[transpose], bias)


@_sparse_product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, transpose: bool) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[1 if transpose else 0])


def _setup(ctx, inputs, output):
    x, weight, bias, transpose = inputs
    ctx.save_for_backward(x, weight)
    ctx.transpose, ctx.has_bias = transpose, bias is not None


def _backward(ctx, grad):
    x, weight = ctx.saved_tensors
    need_x, need_weight, need_bias, _ = ctx.needs_input_grad
    grad_x = _sparse_product(grad, weight, None, not ctx.transpose) if need_x else None
    grad_weight = None
    if need_weight:
        flat_grad, flat_x = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_weight = flat_x.T @ flat_grad if ctx.transpose else flat_grad.T @ flat_x
    grad_bias = grad.reshape(-1, grad.shape[-1]).sum(dim=0) if need_bias and ctx.has_bias else None
    return grad_x, grad_weight, grad_bias, None


_sparse_product.register_autograd(_backward, setup_context=_setup)


def linear_reference(
    x: Float[Tensor, "... inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "... outputs"]:
    """The dense product."""
    return F.linear(x, weight, bias)


@operator("sparse_linear", linear_reference)
def sparse_linear(
    x: Float[Tensor, "... inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "... outputs"]:
    """x · weightᵀ + bias, at a cost that follows the nonzeros of `weight`. Differentiable in all three."""
    return _sparse_product(x, weight, bias, False)


def worth_it(x: Tensor, weight: Tensor) -> bool:
    """Whether the sparse product is the faster one here: on a CPU in float32, for enough tokens, with a
    weight that is sparse enough."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() >= FEWEST_ROWS * x.shape[-1]
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and int(weight.detach().count_nonzero()) < MOST_DENSE * weight.numel()
    )


@operator("linear", linear_reference)
def linear(
    x: Float[Tensor, "... inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "... outputs"]:
    """x · weightᵀ + bias by whichever product is the faster one."""
    return sparse_linear(x, weight, bias) if worth_it(x, weight) else F.linear(x, weight, bias)


class Linear(nn.Linear):
    """nn.Linear that takes the sparse product where that is faster. Same parameters, same result to
    float32 rounding. While it trains, its weight may be held as its nonzeros."""

    held: Held | None = None

    def forward(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """x: [..., inputs] -> [..., outputs]."""
        if self.held is not None:
            return self.held.linear(x, self.bias)
        return linear(x, self.weight, self.bias)
