"""A weight held as its nonzeros gives what the dense matrix gives: outputs and the gradients at its nonzeros."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.kernels.held import Held, Pattern, _embed, _linear, compressed_product, sampled_product


def sparse(rows, columns, density, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return torch.randn(rows, columns, dtype=dtype) * (torch.rand(rows, columns) < density)


def held(weight):
    pattern = Pattern.of(weight)
    return Held(pattern, weight.reshape(-1)[pattern.places].clone().requires_grad_())


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 70),
    tokens=st.integers(1, 200),
    density=st.sampled_from([0.0, 0.03, 0.3, 1.0]),
    bias=st.booleans(),
    seed=st.integers(0, 9),
)
def test_linear_and_all_its_gradients_agree_with_the_dense_matrix(rows, columns, tokens, density, bias, seed):
    weight = sparse(rows, columns, density, seed)
    one = held(weight)
    x, shift, grad = torch.randn(tokens, columns), torch.randn(rows) if bias else None, torch.randn(tokens, rows)
    ours, dense = ([t.clone().requires_grad_() if t is not None else None for t in (x, shift)] for _ in range(2))
    full = weight.clone().requires_grad_()
    y, expected = one.linear(*ours), F.linear(dense[0], full, dense[1])
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    y.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(ours[0].grad, dense[0].grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.values.grad, full.grad.reshape(-1)[one.pattern.places], rtol=1e-4, atol=1e-3)
    if bias:
        torch.testing.assert_close(ours[1].grad, dense[1].grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_sampled_gradient_is_the_same_for_every_number_of_threads(threads):
    before = torch.get_num_threads()
    weight = sparse(40, 30, 0.1)
    a, b = torch.randn(1000, 40), torch.randn(1000, 30)
    pattern = Pattern.of(weight)
    try:
        torch.set_num_threads(threads)
        got = sampled_product(a, b, pattern.row_starts, pattern.columns)
        again = sampled_product(a, b, pattern.row_starts, pattern.columns)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(got, again)
    torch.testing.assert_close(got, (a.T @ b).reshape(-1)[pattern.places], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_embedding_rows_and_their_gradient(dtype):
    weight = sparse(50, 24, 0.2, dtype=dtype)
    one, full = held(weight), weight.clone().requires_grad_()
    ids = torch.randint(0, 50, (3, 40))
    grad = torch.randn(3, 40, 24, dtype=dtype)
    got, expected = one.embed(ids), F.embedding(ids, full)
    assert torch.equal(got, expected)
    got.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(one.values.grad, full.grad.reshape(-1)[one.pattern.places])
    with pytest.raises(IndexError):
        one.embed(torch.tensor([50]))


def test_double_precision_goes_by_the_reference():
    one = held(sparse(9, 7, 0.3, dtype=torch.float64))
    x = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, values: Held(one.pattern, values).linear(x), (x, one.values))


def test_the_dense_matrix_is_differentiable_in_the_values():
    weight = sparse(9, 7, 0.3)
    one = held(weight)
    assert torch.equal(one.dense(), weight)
    one.dense().square().sum().backward()
    assert torch.equal(one.values.grad, 2 * one.values)


def test_operators_keep_the_library_s_rules():
    one = held(sparse(9, 7, 0.3))
    p = one.pattern
    x, a = torch.randn(4, 7), torch.randn(4, 9)
    lists = (p.row_starts, p.columns, p.column_starts, p.rows, p.order)
    torch.library.opcheck(_linear, (x.requires_grad_(), one.values, torch.randn(9), *lists))
    torch.library.opcheck(sampled_product, (a, x.detach(), p.row_starts, p.columns))
    torch.library.opcheck(compressed_product, (x.detach(), p.row_starts, p.columns, one.values.detach(), None))
    torch.library.opcheck(_embed, (torch.tensor([[0, 3]]), one.values, p.row_starts, p.columns, 7))
