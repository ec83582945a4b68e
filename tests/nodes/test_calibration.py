"""Newton's steps against PyTorch's LBFGS, as the paper takes it."""

import math

import pytest
import torch
import torch.nn.functional as F

from sparsecircuits.nodes.calibration import LARGEST_SCALE, PULL, calibrate


def by_lbfgs(logits, correct):
    """The loss that is minimised as a function of scale and shift, and 16 steps of LBFGS on it."""
    margin = (logits[:, 0] - logits[:, 1]).double()
    mean, spread = margin.mean(), margin.std()
    ceiling = (spread * LARGEST_SCALE).log()

    def loss(scale, shift):
        log_scale = (scale * spread).log()
        wrong = (2.0 * correct - 1.0) * (scale * margin + shift)
        return F.softplus(wrong).mean() + PULL * log_scale.square() + (log_scale - ceiling).clamp(min=0).square()

    at = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2)]
    optimiser = torch.optim.LBFGS(at, max_iter=16, line_search_fn="strong_wolfe")

    def of_parameters():
        scale = at[0].exp() / spread
        return loss(scale, at[1] - scale * mean)

    def closure():
        optimiser.zero_grad()
        value = of_parameters()
        value.backward()
        return value

    optimiser.step(closure)
    return loss, of_parameters().item()


@pytest.mark.parametrize("strength", [-3.0, 0.0, 0.3, 3.0, 30.0, 300.0])
@pytest.mark.parametrize("noise", [0.01, 1.0, 50.0])
def test_no_worse_than_16_steps_of_lbfgs(strength, noise):
    generator = torch.Generator().manual_seed(0)
    correct = torch.arange(64) % 2
    logits = noise * torch.randn(64, 2, generator=generator)
    logits[:, 0] += strength * (1.0 - 2.0 * correct) + 5.0
    loss, by_steps = by_lbfgs(logits, correct)
    found = calibrate(logits, correct)
    scale, shift = torch.tensor(found.scale, dtype=torch.float64), found.shift[0] - found.shift[1]
    assert loss(scale, shift).item() <= by_steps + 1e-9
    for more, further in ((1.01, 0.0), (0.99, 0.0), (1.0, 0.01), (1.0, -0.01)):
        assert loss(scale * more, shift + further) >= loss(scale, shift)
    assert found.scale > 0
    assert found.shift[0] == -found.shift[1]


def test_what_cannot_be_calibrated_stays_as_it_is_or_is_made_even():
    correct = torch.arange(4) % 2
    assert calibrate(torch.full((4, 2), math.nan), correct).scale == 1.0
    same = calibrate(torch.tensor([[3.0, 1.0]]).expand(4, 2), correct)
    assert (same.scale, same.shift) == (1.0, (-1.0, 1.0))
