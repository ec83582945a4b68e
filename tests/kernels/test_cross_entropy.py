"""Unembedding and cross-entropy in one equals the two of PyTorch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.kernels import cross_entropy, linear_cross_entropy


def reference(hidden, weight, bias, targets, table=None, ids=None):
    logits = hidden @ weight.T + bias
    return F.cross_entropy(logits if table is None else logits + table[ids], targets)


@given(
    st.integers(1, 60), st.integers(2, 50), st.integers(1, 20), st.booleans(), st.floats(0.02, 1), st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_values_and_gradients(n, vocab, width, with_table, density, seed):
    torch.manual_seed(seed)
    cross_entropy.ROWS = 16
    weight = torch.randn(vocab, width) * (torch.rand(vocab, width) < density)
    tensors = [3 * torch.randn(n, width), weight, torch.randn(vocab)]
    tensors += [torch.randn(vocab, vocab)] if with_table else []
    targets, ids = torch.randint(0, vocab, (n,)), torch.randint(0, vocab, (n,))
    results = []
    for function, dtype in ((linear_cross_entropy, torch.float32), (reference, torch.float64)):
        leaves = [x.to(dtype, copy=True).requires_grad_() for x in tensors]
        loss = function(*leaves[:3], targets, *((leaves[3], ids) if with_table else ()))
        (2 * loss).backward()
        results.append([loss.detach().double(), *(leaf.grad.double() for leaf in leaves)])
    cross_entropy.ROWS = 512
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_only_what_is_asked_for_is_computed():
    hidden = torch.randn(30, 8, requires_grad=True)
    loss = linear_cross_entropy(hidden, torch.randn(20, 8), torch.zeros(20), torch.arange(20).repeat(2)[:30])
    loss.backward()
    assert hidden.grad is not None
    with torch.no_grad():
        assert not linear_cross_entropy(
            hidden, torch.randn(20, 8), torch.zeros(20), torch.zeros(30, dtype=int)
        ).requires_grad


def test_large_logits_and_nan():
    weight, targets = torch.eye(4) * 200, torch.tensor([0, 1])
    good = linear_cross_entropy(torch.eye(4)[:2], weight, torch.zeros(4), targets)
    assert good == pytest.approx(0, abs=1e-5)
    bad = linear_cross_entropy(torch.eye(4)[1:3], weight, torch.zeros(4), targets)
    assert bad == pytest.approx(200, rel=1e-4)
    spoiled = torch.full((2, 4), float("nan"))
    assert linear_cross_entropy(spoiled, weight, torch.zeros(4), targets).isnan()


def test_ids_outside_the_vocabulary_are_refused():
    with pytest.raises(IndexError, match=r"0\.\.3"):
        linear_cross_entropy(torch.randn(1, 2), torch.randn(4, 2), torch.zeros(4), torch.tensor([4]))


def test_other_types_fall_back():
    arguments = (torch.randn(5, 8).double(), torch.randn(9, 8).double(), torch.randn(9).double(), torch.arange(5))
    torch.testing.assert_close(linear_cross_entropy(*arguments), reference(*arguments))


def test_gradients_are_given_once():
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    loss = linear_cross_entropy(hidden, weight, torch.zeros(5), torch.tensor([0, 1, 4]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated before"):
        loss.backward()
