"""Pruning against mixtures of circuit and model: what cancels outside the circuit is found."""

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer
from sparsecircuits.faithfulness.measures.subsets import subset_ablation
from sparsecircuits.faithfulness.nulls import prompt_means
from sparsecircuits.nodes.calibration import training_pairs
from sparsecircuits.nodes.evaluator import Challenge
from sparsecircuits.planted.models import CANCELLING, QUOTE_NODES, cancelling_model, quote_model
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.node_search import NodeSearch

ADDING = [f"0.mlp.post_act.{place}" for place in CANCELLING[::2]]
QUICK = {"steps": 25, "pairs": 16, "eval_pairs": 16, "restarts": 0}


@pytest.fixture(scope="module")
def task():
    return sc.get_task("single_double_quote.plain")


@pytest.fixture(scope="module")
def cancelling():
    return cancelling_model(Tokenizer.default())


@pytest.fixture(scope="module")
def means(cancelling, task):
    return prompt_means(cancelling, task)


def pruned(model, task, means, ablation):
    return sc.prune(model, task, means=means, config=PruneConfig(ablation=ablation, **QUICK))


def worst(circuit, model, task, steps=0):
    found = subset_ablation(
        circuit.on(model), training_pairs(task, 16), task.batch("held_out", 16), "mean", steps=steps, seed=5
    )
    return found.worst


def test_a_challenge_ablates_its_nodes_and_edges_where_they_lie_outside(cancelling, task, means):
    search = NodeSearch.of(cancelling, task, means, 0.15, PruneConfig(**QUICK))
    evaluate, space = search.evaluate, search.evaluate.space
    circuit, nothing = space.mask(QUOTE_NODES), torch.zeros(space.size, dtype=torch.bool)
    edges = evaluate.edges_between(circuit)
    half = Challenge(space.mask(ADDING), edges[:0])
    assert evaluate(circuit).loss < 0.1 < 0.5 < evaluate.under(half, circuit)
    assert evaluate.under(half, circuit | space.mask(ADDING)) < 0.1
    first = Challenge(nothing, edges[:1])
    assert first.meets(edges).tolist() == [True] + [False] * (len(edges) - 1)
    assert evaluate.under(first, circuit, edges[:1]) > 0.5 > 0.1 > evaluate.under(first, circuit, edges[:0])
    hard, calls = evaluate.challenged([half], goal=0.1, target=0.2), evaluate.calls
    assert hard(circuit).loss == pytest.approx(0.5 * evaluate.under(half, circuit))
    assert hard.glance(circuit).loss > 0.25
    assert evaluate.calls == hard.calls == calls + 1
    assert evaluate(circuit).loss < 0.1  # the first one is as it was


def test_random_mixtures_are_held(cancelling, task, means):
    plain, hard = (pruned(cancelling, task, means, ablation) for ablation in ("mean", "stochastic"))
    assert plain.found_by.hardening is None
    assert worst(plain, cancelling, task) > 0.5
    assert hard.ablation == "mean"
    assert hard.found_by.hardening.held
    assert hard.found_by.hardening.rounds >= 1
    assert worst(hard, cancelling, task) <= 0.15
    assert len(hard.nodes) > len(plain.nodes)
    assert hard.losses.circuit <= 0.15


@pytest.mark.slow
def test_the_worst_mixtures_are_held(cancelling, task, means):
    hard = pruned(cancelling, task, means, "adversarial")
    assert hard.found_by.hardening.held
    assert worst(hard, cancelling, task, steps=12) <= 0.25


def test_nothing_is_added_where_nothing_cancels(task):
    model = quote_model(Tokenizer.default())
    circuit = pruned(model, task, prompt_means(model, task), "stochastic")
    assert circuit.node_names == QUOTE_NODES
    assert circuit.found_by.hardening.model_dump() | {"worst": 0} == {
        "rounds": 0,
        "challenges": 0,
        "worst": 0,
        "held": True,
    }
    again = sc.Circuit.model_validate_json(circuit.model_dump_json())
    assert again == circuit
