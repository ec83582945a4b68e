"""GELU with AbsTopK in one pass equals the two steps, values and gradients."""

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparsecircuits.kernels import gelu_abstopk
from sparsecircuits.kernels.gelu import gelu_abstopk_reference


@given(st.integers(1, 9), st.integers(2, 90), st.floats(0, 1), st.sampled_from([0.1, 1.0, 8.0]), st.integers(0, 99))
@example(7, 71, 0.75, 8.0, 49)  # a near tie of values of a millionth
@settings(max_examples=80, deadline=None)
def test_values_and_gradients(rows, width, share, size, seed):
    torch.manual_seed(seed)
    k = int(share * width)
    x = (size * torch.randn(rows, width)).requires_grad_()
    upstream = torch.randn(rows, width)
    kept = gelu_abstopk(x, k)
    kept.backward(upstream)
    expected, _ = gelu_abstopk_reference(x.detach().double(), k)
    torch.testing.assert_close(kept.detach().double(), expected, atol=2e-6, rtol=2e-6)
    # Of values closer than that, float32 may keep another one than float64: whatever it keeps is among the largest, and
    # has its slope.
    every, slope = gelu_abstopk_reference(x.detach().double(), width)
    chosen, sizes = kept.detach() != 0, every.abs()
    assert (chosen.sum(dim=-1) <= k).all()
    least = sizes.masked_fill(~chosen, torch.inf).amin(dim=-1)
    least = torch.where(chosen.sum(dim=-1) == k, least, 0.0)  # what is kept beside may be as small as zero
    assert k == 0 or (sizes.masked_fill(chosen, 0).amax(dim=-1) <= least + 2e-6).all()
    torch.testing.assert_close(x.grad.double(), upstream.double() * slope * chosen, atol=2e-6, rtol=2e-6)


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
