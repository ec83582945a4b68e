"""AbsTopK equals its definition, ties, odd shapes and gradients included."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.kernels import abstopk, abstopk_reference

ROWS = st.integers(0, 5)
VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.0, 1e-40, 3e38, float("inf"), float("-inf")])


@given(
    st.data(), ROWS, st.integers(1, 70), st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])
)
@settings(max_examples=150, deadline=None)
def test_keeps_exactly_what_the_reference_keeps(data, rows, n, dtype):
    k = data.draw(st.integers(1, max(1, n - 1)))
    if data.draw(st.booleans()):  # many ties
        flat = data.draw(st.lists(VALUES, min_size=rows * n, max_size=rows * n))
        x = torch.tensor(flat, dtype=torch.float64).view(rows, n).to(dtype)
    else:
        x = torch.from_numpy(np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(rows, n))).to(dtype)
    if k >= n:
        assert abstopk(x, k) is x
        return
    kept, mask = torch.ops.sparsecircuits.abstopk(x, k)
    expected, expected_mask = abstopk_reference(x, k)
    assert torch.equal(mask, expected_mask)
    assert torch.equal(kept, expected)
    assert (mask.sum(dim=-1) == k).all()


def test_edges_of_k():
    x = torch.randn(2, 3, 8)
    assert abstopk(x, 8) is x
    assert not abstopk(x, 0).any()
    with pytest.raises(ValueError, match="negative"):
        abstopk(x, -1)


def test_nan_counts_as_largest():
    x = torch.tensor([[1.0, float("nan"), 3.0, 2.0]])
    kept = abstopk(x, 1)
    assert kept.isnan().tolist() == [[False, True, False, False]]


def test_gradient_flows_through_survivors_only():
    x = torch.randn(4, 6, 32, requires_grad=True)
    weight = torch.randn(4, 6, 32)
    (abstopk(x, 5) * weight).sum().backward()
    assert torch.equal(x.grad, weight * abstopk_reference(x.detach(), 5)[1])


def test_gradient_of_a_strided_input():
    x = torch.randn(32, 6, requires_grad=True)
    abstopk(x.T, 5).sum().backward()
    assert torch.equal(x.grad.T, abstopk_reference(x.detach().T, 5)[1].float())


def test_is_a_proper_operator():
    torch.library.opcheck(torch.ops.sparsecircuits.abstopk.default, (torch.randn(6, 32, requires_grad=True), 5))


def test_threads_may_call_at_once():
    x = torch.randn(512, 256)
    expected = abstopk_reference(x, 64)[0]
    results = []

    def work():
        results.append(all(torch.equal(abstopk(x, 64), expected) for _ in range(20)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4
