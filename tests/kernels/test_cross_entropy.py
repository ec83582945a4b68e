"""Unembedding and cross-entropy in one equals the two of PyTorch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from heldweights import held
from sparsecircuits.kernels import Held, cross_entropy, linear_cross_entropy


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


class HeldCase:
    """A weight held as its nonzeros, tokens and their targets; a table of `table` rows, none where that is 0."""

    def __init__(self, n, vocab, width, density, table):
        self.held = held(vocab, width, density)
        self.hidden = (3 * torch.randn(n, width)).requires_grad_()
        self.bias = torch.randn(vocab, requires_grad=True)
        self.targets = torch.randint(0, vocab, (n,))
        self.table = torch.randn(table, vocab).requires_grad_() if table else None
        self.ids = torch.randint(0, table, (n,)) if table else self.targets

    @property
    def leaves(self):
        return [x for x in (self.hidden, self.held.values, self.bias, self.table) if x is not None]

    def loss(self):
        weight = self.held.dense().detach()
        return linear_cross_entropy(self.hidden, weight, self.bias, self.targets, self.table, self.ids, self.held)

    def gradients(self):
        loss = self.loss()
        return [loss.detach(), *torch.autograd.grad(2 * loss, self.leaves)]

    def expected(self):
        leaves = [x.detach().double().requires_grad_() for x in self.leaves]
        held = Held(self.held.pattern, leaves[1])
        loss = reference(leaves[0], held.dense(), leaves[2], self.targets, *leaves[3:], *([self.ids] * len(leaves[3:])))
        return [loss.detach(), *torch.autograd.grad(2 * loss, leaves)]


@given(
    st.integers(1, 200),
    st.integers(1, 300),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.sampled_from([0, 1, 7, 300]),
    st.sampled_from([64, 100, 1024]),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_a_weight_held_as_its_nonzeros(n, vocab, width, density, table, rows, seed):
    torch.manual_seed(seed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cross_entropy, "HELD_ROWS", rows)
        case = HeldCase(n, vocab, width, density, min(table, vocab))
        for ours, theirs in zip(case.gradients(), case.expected(), strict=True):
            torch.testing.assert_close(ours.double(), theirs, atol=2e-5, rtol=1e-4)


def test_held_any_number_of_threads_gives_the_same_bits():
    torch.manual_seed(0)
    case, results = HeldCase(1300, 200, 30, 0.1, 50), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(case.gradients())
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_held_a_table_that_does_not_learn_gets_no_gradient():
    case = HeldCase(70, 30, 8, 0.5, 30)
    case.table.requires_grad_(False)
    case.loss().backward()
    assert case.table.grad is None
    torch.testing.assert_close(2 * case.held.values.grad.double(), case.expected()[2], atol=1e-5, rtol=1e-4)


def test_held_large_logits_and_nan():
    case = HeldCase(100, 40, 8, 0.5, 0)
    with torch.no_grad():
        case.hidden *= 300
    for ours, theirs in zip(case.gradients(), case.expected(), strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-3, rtol=1e-4)
    with torch.no_grad():
        case.hidden[3, :] = torch.nan
    assert case.loss().isnan()
