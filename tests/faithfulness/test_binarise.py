"""Nodes in two values, and in three: thresholds searched, then trained."""

import numpy as np
import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer
from sparsecircuits.faithfulness.measures import binarise as module
from sparsecircuits.faithfulness.measures.binarise import TwoValued, binarise
from sparsecircuits.planted.faults import circuit_of
from sparsecircuits.planted.models import QUOTE_NODES, quote_model


@pytest.fixture(scope="module")
def task():
    return sc.get_task("single_double_quote.plain")


@pytest.fixture(scope="module")
def bound(task):
    model = quote_model(Tokenizer.default())
    return circuit_of(model, task, QUOTE_NODES).on(model)


def test_sharp_steps_have_their_levels_and_soft_ones_lie_between():
    nodes = [
        TwoValued(name="0.mlp.post_act.1", threshold=1.0, low=-1.0, high=3.0),
        TwoValued(name="0.mlp.post_act.3", threshold=0.0, low=0.0, middle=5.0, high=2.0, second=1.0),
    ]
    stairs = module._Staircases.of(nodes, {node.name: 1.0 for node in nodes}, torch.device("cpu"))
    x = torch.tensor([[7.0, 0.5, 7.0, -0.1], [7.0, 1.0, 7.0, 0.5], [7.0, 9.0, 7.0, 1.5]])
    sharp = [[7.0, -1.0, 7.0, 0.0], [7.0, 3.0, 7.0, 5.0], [7.0, 3.0, 7.0, 2.0]]
    assert stairs(x, 0.0).tolist() == sharp
    assert stairs(x, 1e-3)[[0, 2]].tolist() == pytest.approx(torch.tensor(sharp)[[0, 2]])
    assert -1 < stairs(x, 1.0)[0, 1] < 3
    moved = stairs.moved(torch.ones(2, 2), torch.full((2, 3), 0.5))
    assert list(moved.steps(nodes)) == [
        TwoValued(name="0.mlp.post_act.1", threshold=2.0, low=-0.5, high=3.5),
        TwoValued(name="0.mlp.post_act.3", threshold=1.0, low=0.5, middle=5.5, high=2.5, second=2.0),
    ]


def test_training_mends_levels_that_say_nothing(bound, task):
    learn = task.batch("train", 24)
    seen = module.activations(bound, learn, alone=True)
    scales = {name: module.spread(x) for name, x in seen.items()}

    def loss(steps):
        return module._losses(bound, learn, steps, scales)[0].mean().item()

    good = module._searched(bound, seen, loss)
    name = "final_resid.4"
    off = 0.4 * (good[name].high - good[name].low)
    bad = {**good, name: good[name].model_copy(update={"low": good[name].low + off, "high": good[name].high + off})}
    assert loss(bad) > 0.6
    trained = module._trained(bound, learn, bad, scales, 0)
    assert loss(trained) < 0.4 * loss(bad)
    assert trained == module._trained(bound, learn, bad, scales, 0)


def test_a_node_for_which_two_values_are_too_few(bound, task, monkeypatch):
    found = binarise(bound, task.batch("train", 24), task.batch("held_out", 24))
    assert found.failed == ()
    assert found.loss.value == pytest.approx(found.loss_of_two, abs=1e-6)
    assert all(node.middle is None for node in found.nodes)
    monkeypatch.setattr(module, "TOO_MUCH", -1.0)  # so that every node seems to be one
    found = binarise(bound, task.batch("train", 24), task.batch("held_out", 24))
    assert set(found.failed) == {node.name for node in found.nodes}
    assert found.loss.value <= found.loss_of_two + 0.05


def test_the_wider_side_is_cut():
    values = np.array([0.0, 0.1, 5.0, 6.0, 9.0, 10.0])
    step = TwoValued(name="0.mlp.post_act.1", threshold=1.0, low=0.05, high=7.5)
    three = module._with_middle(step, values)
    assert (three.threshold, three.second) == (1.0, 7.5)
    assert (three.low, three.middle, three.high) == (0.05, 5.5, 9.5)
