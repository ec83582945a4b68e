"""GELU with AbsTopK in one pass equals the two steps, values and gradients."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.kernels import gelu_abstopk
from sparsecircuits.kernels.gelu import gelu_abstopk_reference


@given(st.integers(1, 9), st.integers(2, 90), st.floats(0, 1), st.sampled_from([0.1, 1.0, 8.0]), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_values_and_gradients(rows, width, share, size, seed):
    torch.manual_seed(seed)
    k = int(share * width)
    x = (size * torch.randn(rows, width)).requires_grad_()
    upstream = torch.randn(rows, width)
    kept = gelu_abstopk(x, k)
    kept.backward(upstream)
    expected, slope = gelu_abstopk_reference(x.detach().double(), k)
    torch.testing.assert_close(kept.detach().double(), expected, atol=2e-6, rtol=2e-6)
    # Of values below the first tolerance, float32 may keep another one than float64: slopes there are below 2e-5.
    torch.testing.assert_close(x.grad.double(), upstream.double() * slope, atol=5e-5, rtol=2e-6)
    assert (kept != 0).sum(dim=-1).max() <= k


def test_everywhere_on_the_line():
    x = torch.linspace(-12, 12, 100_000).view(1, -1)
    kept = gelu_abstopk(x, 99_999)
    exact = torch.nn.functional.gelu(x.double())
    exact[0, exact[0].abs().argmin()] = 0
    assert (kept - exact).abs().max() < 1e-6


def test_not_a_number_and_infinities_pass():
    kept = gelu_abstopk(torch.tensor([[torch.nan, torch.inf, 1.0, 0.5]]), 3)
    assert kept[0, 0].isnan()
    assert kept[0, 1] == torch.inf
    assert kept[0, 3] == 0


def test_is_a_proper_operator():
    x = torch.randn(3, 16, requires_grad=True)
    torch.library.opcheck(torch.ops.sparsecircuits.gelu_abstopk.default, (x, 4))
