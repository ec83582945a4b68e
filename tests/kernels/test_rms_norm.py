"""RMSNorm against PyTorch's, gradients included."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.kernels import RMSNorm, rms_norm
from sparsecircuits.kernels.rms_norm import EPSILON


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 5), min_size=0, max_size=2),
    st.integers(1, 70),
    st.sampled_from([EPSILON, 0.0, 1e-5]),
    st.integers(0, 10**6),
)
def test_values_and_gradients(rows, width, eps, seed):
    torch.manual_seed(seed)
    x, weight, upstream = torch.randn(*rows, width), torch.randn(width), torch.randn(*rows, width)
    results = []
    for function in (rms_norm, lambda x, weight, eps: F.rms_norm(x, (width,), weight, eps)):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        y = function(*leaves, eps)
        y.backward(upstream)
        results.append([y.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_nothing_nan_and_other_types():
    norm, theirs = RMSNorm(8), torch.nn.RMSNorm(8, eps=EPSILON)
    assert torch.equal(norm(torch.zeros(2, 8)), torch.zeros(2, 8))
    assert norm(torch.zeros(0, 8)).shape == (0, 8)
    x = torch.randn(3, 8)
    x[1, 2] = torch.nan
    y = norm(x)
    assert y[1].isnan().all()
    assert y[[0, 2]].isfinite().all()
    half = torch.randn(3, 8).bfloat16()
    assert torch.equal(norm.bfloat16()(half), theirs.bfloat16()(half))


@pytest.mark.parametrize("strided", [False, True])
def test_is_a_proper_operator(strided):
    x = torch.randn(4, 6).T if strided else torch.randn(6, 4)
    inputs = (x.requires_grad_(), torch.rand(4, requires_grad=True), 1e-6)
    torch.library.opcheck(torch.ops.sparsecircuits.rms_norm.default, inputs)
