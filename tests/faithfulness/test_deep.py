"""Subset ablation (between the circuit and the model, and what it catches that ablating everything at once passes), and
the deep card."""

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer
from sparsecircuits.faithfulness.card.card import Report
from sparsecircuits.faithfulness.card.verdict import CHECKS, reasons_of_subsets, warnings
from sparsecircuits.faithfulness.measures.estimate import Estimate
from sparsecircuits.faithfulness.measures.subsets import subset_ablation
from sparsecircuits.faithfulness.measures.sufficiency import gated_answers
from sparsecircuits.nodes.calibration import calibrate, training_pairs
from sparsecircuits.nodes.task_loss import correct_of, task_loss
from sparsecircuits.planted.faults import FAULTS, card_of, circuit_of
from sparsecircuits.planted.models import (
    CANCELLING,
    QUOTE_NODES,
    SECOND_NODES,
    cancelling_model,
    quote_model,
    two_way_model,
)
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.mixtures import SHARES

TINY_BUDGET = PruneConfig(steps=4, pairs=4, eval_pairs=8)
SMALL_PRUNING = PruneConfig(steps=40, pairs=8, eval_pairs=24, restarts=0, lr=4e-2)
[CANCELS] = [fault for fault in FAULTS if fault.words == "nodes outside that cancel each other"]


@pytest.fixture(scope="module")
def task():
    return sc.get_task("single_double_quote.plain")


@pytest.fixture(scope="module")
def prompts(task):
    return training_pairs(task, 12), task.batch("held_out", 12)


@pytest.fixture(scope="module")
def cancelling_card():
    return card_of(CANCELS, TINY_BUDGET)


def _bound(model, task, nodes=QUOTE_NODES):
    return circuit_of(model, task, nodes).on(model)


@pytest.mark.parametrize("ablation", ["mean", "resample_random"])
def test_nothing_ablated_is_the_model_and_all_of_it_the_circuit(task, prompts, ablation):
    model, (learn, test) = quote_model(Tokenizer.default()), prompts
    whole = circuit_of(model, task, [*QUOTE_NODES, "0.attn.act_in.8", "0.attn.v.5"])
    bound = whole.model_copy(update={"edges": whole.edges[1:]}).on(model)  # so there are edges outside too
    assert len(bound.removed) == 1
    found = subset_ablation(bound, learn, test, ablation, draws=1)
    for gating, loss in ((bound.alone, found.circuit), (bound.without(~bound.kept & bound.kept), found.full)):
        fair = calibrate(gated_answers(model, gating, learn, ablation, 0), correct_of(learn))
        logits = fair(gated_answers(model, gating, test, ablation, 0))
        assert task_loss(logits, correct_of(test)).item() == pytest.approx(loss, abs=1e-5)
    assert found.circuit > found.full + 0.1  # the edge is one that it needs
    assert found.adversarial is None


@pytest.mark.parametrize("ablation", ["mean", "resample_random"])
def test_random_and_worst_subsets_leave_a_true_circuit_alone(task, prompts, ablation):
    found = subset_ablation(_bound(quote_model(Tokenizer.default()), task), *prompts, ablation, steps=5)
    assert [subsets.share for subsets in found.random] == list(SHARES)
    assert found.bound < 0.01
    assert found.worst < 0.05


@pytest.mark.parametrize("ablation", ["mean", "resample_random"])
def test_an_adversary_finds_what_random_subsets_miss(task, prompts, ablation):
    """With no random draw to speak of: some of the cancelling neurons ablated and others not."""
    model = cancelling_model(Tokenizer.default())
    found = subset_ablation(_bound(model, task), *prompts, ablation, draws=1, steps=10)
    assert found.bound < 0.01
    assert found.adversarial.loss.value > 0.5
    assert found.adversarial.loss_found > 0.5
    assert 0 < found.adversarial.ablated < found.adversarial.outside
    again = subset_ablation(_bound(model, task), *prompts, ablation, draws=1, steps=10)
    assert again == found
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_cancelling_nodes_pass_every_check_but_subset_ablation(cancelling_card):
    card = cancelling_card
    failed = [name for name, check in CHECKS.items() if check(card) is False]
    assert failed == ["subset ablation"]
    assert card.verdict == "distinguishable from null"
    assert card.reasons[-1].startswith("Subset ablation fails: ")
    [at_means, resampled] = [text for text in card.warnings if "cancel each other" in text]
    assert "of what lies outside the circuit ablated, at means, the loss is up to 0." in at_means
    assert "(circuit 0.000, whole model 0.000)" in at_means
    assert "resampled from random prompts of the task" in resampled
    section = card.to_markdown().split("## Subset ablation")[1].split("\n## ")[0]
    assert section.count("a random 50% (4 draws)") == 2
    assert "the worst found" not in section
    assert len(CANCELLING) % 2 == 0


def test_a_worst_subset_is_said_and_an_undefined_one_is_no_pass(cancelling_card, task, prompts):
    bound = _bound(quote_model(Tokenizer.default()), task)
    found = subset_ablation(bound, *prompts, "mean", draws=1, steps=1)

    def card_with(value):
        worst = found.adversarial.model_copy(update={"loss": Estimate(value=value)})
        return cancelling_card.model_copy(update={"subsets": (found.model_copy(update={"adversarial": worst}),)})

    check = CHECKS["subset ablation"]
    assert [check(card_with(value)) for value in (0.001, 0.9, None)] == [True, False, False]
    assert reasons_of_subsets(card_with(0.001)) == ()
    assert len(reasons_of_subsets(card_with(None))) == 1
    assert any("leaves a loss of 0.900" in text for text in warnings(card_with(0.9)))
    assert any("leaves a loss of not defined" in text for text in warnings(card_with(None)))
    assert "the worst found: " in card_with(0.9).to_markdown()


def test_a_circuit_of_all_nodes_has_no_subsets(task, prompts):
    model = quote_model(Tokenizer.default())
    bound = _bound(model, task)
    everything = bound.space.names(torch.ones(bound.space.size, dtype=torch.bool))
    found = subset_ablation(_bound(model, task, everything), *prompts, "mean", draws=1, steps=1)
    assert found.adversarial.outside == found.adversarial.ablated == 0
    assert found.worst == pytest.approx(found.full, abs=1e-6)


@pytest.fixture(scope="module")
def deep_card(task):
    model = two_way_model(Tokenizer.default(), 6.0)
    circuit = circuit_of(model, task, QUOTE_NODES)
    return sc.faithfulness(model, circuit, task, deep=True, budget=TINY_BUDGET, pruning=SMALL_PRUNING)


def test_the_deep_card_has_an_adversary_and_backups(deep_card, tmp_path):
    assert deep_card.mode == "deep"
    assert all(subsets.adversarial is not None for subsets in deep_card.subsets)
    backups = deep_card.backups
    assert [way.nodes for way in backups.ways] == [tuple(QUOTE_NODES), tuple(SECOND_NODES)]
    assert backups.ways[0].loss == pytest.approx(deep_card.losses.circuit, abs=1e-5)
    assert backups.exhausted
    assert "There are 2 circuits that share no node (of 7, 7 nodes): this is one of several." in deep_card.warnings
    page = deep_card.to_markdown()
    assert "## Backup circuits\n\nThere are 2 circuits" in page
    assert "of their nodes and" in page
    assert page.count("the worst found: ") == 2
    assert Report.load(deep_card.save(tmp_path / "report.json")) == deep_card
