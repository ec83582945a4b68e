"""Pruning a hand-made model finds exactly the circuit that was built into it."""

import numpy as np
import pytest

import sparsecircuits as sc
from sparsecircuits.circuits.schema import FoundBy
from sparsecircuits.data import Tokenizer
from sparsecircuits.errors import TaskTooHard
from sparsecircuits.planted.models import QUOTE_EDGES, QUOTE_NODES, quote_model
from sparsecircuits.pruning.config import PruneConfig


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    """Text for the means, both quotes equally often."""
    batch = sc.get_task("single_double_quote.plain").batch("train", 200, seed=7)
    return np.concatenate([row[: last + 1] for row, last in zip(batch.tokens, batch.last, strict=True)])


def pruned(model, tokens, seed):
    task = sc.get_task("single_double_quote.plain", model.tokenizer)
    return sc.prune(model, task, tokens=tokens, config=PruneConfig(steps=100, eval_pairs=48, seed=seed))


@pytest.fixture(scope="module")
def found(tokens):
    """By seed."""
    return {seed: pruned(quote_model(Tokenizer.default()), tokens, seed) for seed in (0, 1)}


@pytest.mark.parametrize("seed", [0, 1])
def test_exactly_the_built_in_circuit(found, seed):
    circuit = found[seed]
    assert circuit.node_names == QUOTE_NODES
    assert {(e.source, e.target): e.weight for e in circuit.edges} == QUOTE_EDGES
    assert circuit.losses.circuit <= 0.15
    assert circuit.losses.ablated > 0.6
    assert circuit.losses.empty > 0.69
    assert all(node.importance > 0.1 for node in circuit.nodes)


def test_pruning_is_deterministic_and_leaves_the_model_as_it_was(tokens, found):
    model = quote_model(Tokenizer.default())
    learned = {name: p.requires_grad for name, p in model.named_parameters()}
    before = {name: t.clone() for name, t in model.state_dict().items()}
    again = pruned(model, tokens, 1)
    assert again.model_copy(update={"found_by": FoundBy()}) == found[1].model_copy(update={"found_by": FoundBy()})
    assert {name: p.requires_grad for name, p in model.named_parameters()} == learned
    assert all(before[name].equal(t) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_task_that_the_model_cannot_do_is_refused(tokens):
    model = quote_model(Tokenizer.default())
    with pytest.raises(TaskTooHard, match="whole model's loss on bracket_counting"):
        sc.prune(model, sc.get_task("bracket_counting"), tokens=tokens)


def test_targets_out_of_range_are_refused(tokens):
    model = quote_model(Tokenizer.default())
    for target in (0, 0.7):
        with pytest.raises(sc.UserError, match="target_loss"):
            sc.prune(model, sc.get_task("single_double_quote.plain"), target, tokens=tokens)
