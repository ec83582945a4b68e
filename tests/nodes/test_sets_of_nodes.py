"""What sets of nodes are and what they cost: each part against its definition."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer, validation_batches
from sparsecircuits.errors import NoSuchNode
from sparsecircuits.nodes.ablation_values import pretraining_means
from sparsecircuits.nodes.calibration import calibrate
from sparsecircuits.nodes.edges import EdgeGates, edges_between
from sparsecircuits.nodes.evaluator import Evaluator
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.task_loss import all_candidate_logits, candidate_logits, task_loss
from sparsecircuits.planted.models import quote_model


@pytest.fixture(scope="module")
def model():
    return quote_model(Tokenizer.default())


def test_gates_on_change_nothing_and_gates_off_freeze_everything(model):
    space, task = NodeSpace.of(model.config), sc.get_task("single_double_quote.plain")
    batch, frozen = task.batch("train", 8), torch.randn(space.size)
    full = all_candidate_logits(model, batch)
    on, off = (Gating(space, gates, frozen) for gates in (torch.ones(space.size), torch.zeros(space.size)))
    torch.testing.assert_close(all_candidate_logits(model, batch, on), full)
    with torch.no_grad(), off.over(model, batch), sc.record(model) as seen:
        logits = candidate_logits(model, batch)
    torch.testing.assert_close(logits, logits[:1].expand_as(logits))
    for site, values in space.split(frozen).items():
        torch.testing.assert_close(seen[site][0, 0], values)


def test_node_names_and_masks_invert_each_other(model):
    space = NodeSpace.of(model.config)
    mask = torch.rand(space.size) < 0.1
    assert space.mask(space.names(mask)).equal(mask)
    with pytest.raises(NoSuchNode, match="16 channels"):
        space.mask(["0.attn.q.16"])


def test_means_are_means_over_text(model):
    tokens = sc.get_task("if_equals").batch("train", 100).tokens.flatten()
    space = NodeSpace.of(model.config)
    means = space.split(pretraining_means(model, tokens, 2048))
    inputs = torch.cat([torch.from_numpy(x) for x, _ in validation_batches(tokens, 128, 32, 2048)])
    with torch.no_grad(), sc.record(model, r"0\.mlp\.post_act") as seen:
        model(inputs)
    torch.testing.assert_close(means["0.mlp.post_act"], seen["0.mlp.post_act"].mean(dim=(0, 1)), atol=1e-5, rtol=1e-4)


def test_order_and_chunks_of_evaluation_do_not_matter(model, monkeypatch):
    batch = sc.get_task("single_double_quote.plain").batch("train", 20)
    with torch.no_grad():
        expected = candidate_logits(model, batch)
    monkeypatch.setattr("sparsecircuits.nodes.task_loss.EVALUATION_ROWS", 7)
    torch.testing.assert_close(all_candidate_logits(model, batch), expected)


@given(st.integers(0, 50), st.floats(0.2, 3.0), st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_calibration_only_lowers_the_loss_and_undoes_a_shift(seed, scale, shift):
    torch.manual_seed(seed)
    correct = torch.tensor([0, 1] * 50)
    margin = 6 * torch.randn(100) + 9  # the best scale is about a half
    logits = torch.zeros(100, 2)
    logits[torch.arange(100), correct] = margin
    spoiled = scale * logits + torch.tensor([shift, 0.0])
    best, loss = calibrate(logits, correct), task_loss(calibrate(spoiled, correct)(spoiled), correct)
    assert loss <= task_loss(spoiled, correct) + 1e-4
    assert loss == pytest.approx(task_loss(best(logits), correct).item(), abs=2e-2)


def test_calibration_cannot_turn_answers_around():
    correct = torch.tensor([0, 1] * 50)
    wrong = torch.zeros(100, 2)
    wrong[torch.arange(100), 1 - correct] = 5.0
    assert calibrate(wrong, correct).scale > 0
    assert task_loss(calibrate(wrong, correct)(wrong), correct) >= math.log(2) - 1e-3


def test_calibration_makes_no_circuit_of_a_trace():
    correct = torch.tensor([0, 1] * 50)
    logits = torch.zeros(100, 2)
    logits[torch.arange(100), correct] = 0.01  # tells all answers apart, by a hundredth
    calibration = calibrate(logits, correct)
    assert calibration.scale < 6
    assert task_loss(calibration(logits), correct) > 0.6


def test_first_order_rises_are_slopes(model):
    """Of nodes and of edges: what finite differences of the calibrated loss say."""
    task = sc.get_task("single_double_quote.plain")
    space, batch = NodeSpace.of(model.config), task.batch("train", 16)
    correct = batch.correct.copy()
    correct[:6] = correct[:6][::-1]  # some answers are wrong: where all are right, no slope is left
    batch = dataclasses.replace(batch, correct=correct)
    evaluate = Evaluator(model, torch.zeros(space.size), batch)
    kept = torch.ones(space.size, dtype=torch.bool)
    edges = edges_between(model, space, kept)
    on, calibration = torch.ones(len(edges), dtype=torch.bool), evaluate(kept).calibration

    def loss(gating):
        logits = calibration(all_candidate_logits(model, batch, gating).double())
        return task_loss(logits, torch.from_numpy(batch.correct)).item()

    def slope(gates, place, gating):
        losses = []
        for change in (-1e-2, 1e-2):
            moved = gates.clone()
            moved[place] += change
            losses.append(loss(gating(moved)))
        return (losses[0] - losses[1]) / 2e-2

    rises = evaluate.node_rises(kept), evaluate.edge_rises(kept, edges, on)
    gatings = (
        lambda gates: Gating(space, gates, evaluate.frozen),
        lambda gates: Gating(space, kept.float(), evaluate.frozen, edges=EdgeGates(edges, gates)),
    )
    for rise, gating in zip(rises, gatings, strict=True):
        assert rise.abs().max() > 1e-3
        for place in rise.abs().topk(5).indices.tolist():
            expected = slope(torch.ones(rise.numel()), place, gating)
            assert rise[place].item() == pytest.approx(expected, rel=0.05, abs=2e-5)
