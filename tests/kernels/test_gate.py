"""Gating is x * gate + frozen * (1 - gate), gradients included."""

import pytest
import torch

from sparsecircuits.kernels import gate_channels


@pytest.mark.parametrize("shape", [(1, 5), (3, 7, 33), (130, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients(shape, dtype):
    torch.manual_seed(0)
    x, gate, frozen = (torch.randn(s, dtype=dtype) for s in (shape, shape[-1:], shape[-1:]))
    upstream, results = torch.randn(shape, dtype=dtype), []
    for function in (gate_channels, lambda x, g, f: x * g + f * (1 - g)):
        leaves = [x.clone().requires_grad_(), gate.clone().requires_grad_()]
        y = function(*leaves, frozen)
        y.backward(upstream)
        results.append([y.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_is_a_proper_operator():
    x, gate = torch.randn(4, 6, requires_grad=True), torch.rand(6, requires_grad=True)
    torch.library.opcheck(torch.ops.sparsecircuits.gate.default, (x, gate, torch.randn(6)))
