"""The sparse product is the dense product, values and gradients."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.kernels import Linear, sparse_linear
from sparsecircuits.kernels.sparse_linear import worth_it


@given(
    st.integers(1, 200), st.integers(1, 40), st.integers(1, 40), st.floats(0, 0.5), st.booleans(), st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_values_and_gradients(n, outputs, inputs, density, with_bias, seed):
    torch.manual_seed(seed)
    weight = torch.randn(outputs, inputs) * (torch.rand(outputs, inputs) < density)
    bias = torch.randn(outputs) if with_bias else None
    x, upstream = torch.randn(2, n, inputs), torch.randn(2, n, outputs)
    results = []
    for function in (sparse_linear, F.linear):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias) if t is not None]
        y = function(*leaves)
        y.backward(upstream)
        results.append([y.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_a_layer_chooses_by_density_and_size():
    layer, x = Linear(64, 64), torch.randn(300, 64)
    assert not worth_it(x, layer.weight)
    layer.weight.data *= torch.rand(64, 64) < 0.05
    assert worth_it(x, layer.weight)
    assert not worth_it(x[:4], layer.weight)
    assert not worth_it(x.bfloat16(), layer.weight)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-4, rtol=1e-4)


def test_is_a_proper_operator():
    arguments = (torch.randn(5, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True), torch.randn(4), False)
    torch.library.opcheck(torch.ops.sparsecircuits.sparse_product.default, arguments)
