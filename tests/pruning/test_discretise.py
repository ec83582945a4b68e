"""Learned gates and what becomes of them, each part against its definition."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.nodes.calibration import Calibration
from sparsecircuits.nodes.evaluator import Score
from sparsecircuits.pruning.discretise import Estimates, drop_needless, top_nodes
from sparsecircuits.pruning.learned_gates import heaviside


def test_heaviside_and_its_gradient():
    tau = torch.tensor([-0.5, -1e-9, 0.0, 0.7], requires_grad=True)
    gate = heaviside(tau, 0.5)
    assert gate.tolist() == [0, 0, 1, 1]
    gate.sum().backward()
    slope = torch.sigmoid(tau.detach() / 0.5)
    torch.testing.assert_close(tau.grad, slope * (1 - slope) / 0.5)


def test_top_nodes_breaks_ties_by_order():
    assert top_nodes(torch.tensor([0.5, 0.7, 0.5, 0.5]), 2).tolist() == [True, True, False, False]


@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40),
    st.floats(0.0, 5.0),
    st.sampled_from([3, 100]),
    st.sampled_from([0, 3, 100]),
)
@settings(max_examples=80, deadline=None)
def test_as_many_as_can_go_are_dropped(missed, target, limit, exact_below):
    """Where each node's absence costs its own share, the cheapest go first, and not one more could."""
    weights = torch.tensor(missed, dtype=torch.float64)

    def evaluate(kept):
        return Score(weights[~kept].sum().item(), Calibration())

    everything = torch.ones(len(missed), dtype=torch.bool)
    estimates = Estimates(evaluate, lambda kept: weights, exact_below)
    kept = drop_needless(everything, evaluate, target, limit, estimates=estimates)
    assert evaluate(kept).loss <= target
    if limit >= len(missed) or int(kept.sum()) <= limit:
        cheapest = weights.sort().values.cumsum(0)
        assert int((~kept).sum()) == int((cheapest <= target).sum())


def test_a_glance_orders_and_an_evaluation_decides():
    """Half of the prompts' loss, and all of it higher: the same nodes go, far fewer sets are evaluated."""
    weights = torch.linspace(0.01, 0.6, 60, dtype=torch.float64)
    calls = []

    def evaluate(kept):
        calls.append(int(kept.sum()))
        return Score(weights[~kept].sum().item(), Calibration())

    def glance(kept):
        return Score(0.3 + weights[~kept].sum().item(), Calibration())

    def never(kept):
        raise AssertionError("first-order estimates are for larger sets")

    everything = torch.ones(60, dtype=torch.bool)
    whole = drop_needless(everything, evaluate, 1.0)
    without = len(calls)
    kept = drop_needless(everything, evaluate, 1.0, estimates=Estimates(glance, never))
    assert len(calls) - without < without / 2
    assert kept.equal(whole)
    assert (~kept).nonzero().flatten().tolist() == list(range(int((weights.cumsum(0) <= 1.0).sum())))


def test_what_only_a_glance_finds_needless_stays():
    def glance(kept):
        return Score(0.0, Calibration())

    def evaluate(kept):
        return Score(0.2 * int((~kept).sum()), Calibration())

    everything = torch.ones(30, dtype=torch.bool)
    assert drop_needless(everything, evaluate, 0.1, estimates=Estimates(glance, lambda kept: kept.double())).all()


def test_sets_that_glances_agree_on_are_evaluated_a_few_times():
    """100 needless nodes of 130 go in a few evaluations, whatever the order in which the needed lie between them."""
    needed = torch.zeros(130, dtype=torch.bool)
    needed[torch.randperm(130, generator=torch.Generator().manual_seed(0))[:30]] = True
    calls = []

    def loss(kept):
        return 0.2 * int((needed & ~kept).sum()) + 1e-4 * int((~kept).sum())

    def evaluate(kept):
        calls.append(kept)
        return Score(loss(kept), Calibration())

    def glance(kept):
        return Score(0.3 + loss(kept), Calibration())

    estimates = Estimates(glance, lambda kept: kept.double())
    kept = drop_needless(torch.ones(130, dtype=torch.bool), evaluate, 0.1, estimates=estimates)
    assert kept.equal(needed)
    assert len(calls) < 20


@given(seed=st.integers(0, 10_000), target=st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_a_glance_that_is_wrong_costs_size_and_never_the_target(seed, target):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(50, generator=generator, dtype=torch.float64) * 0.2
    seen = truth * (0.5 + torch.rand(50, generator=generator, dtype=torch.float64))

    def evaluate(kept):
        return Score(truth[~kept].sum().item(), Calibration())

    def glance(kept):
        return Score(seen[~kept].sum().item(), Calibration())

    estimates = Estimates(glance, lambda kept: kept.double(), exact_below=5)
    kept = drop_needless(torch.ones(50, dtype=torch.bool), evaluate, target, estimates=estimates)
    assert evaluate(kept).loss <= target
