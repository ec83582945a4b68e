"""Baselines, ablations, tied gates and edge pruning on the hand-made model, whose circuit is known."""

import numpy as np
import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.circuits.extraction import edge_records
from sparsecircuits.circuits.schema import FoundBy
from sparsecircuits.data import Tokenizer
from sparsecircuits.nodes.ablation_values import pretraining_means
from sparsecircuits.nodes.edges import edges_between
from sparsecircuits.nodes.evaluator import Evaluator
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.planted.models import QUOTE_EDGES, QUOTE_NODES, quote_model
from sparsecircuits.pruning import edge_pruning
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.edge_pruning import prune_edges
from sparsecircuits.pruning.learned_gates import tied_query_keys
from sparsecircuits.pruning.ranking import rank_nodes
from sparsecircuits.pruning.size_curve import curve_of, size_curve

QUICK = {"steps": 60, "pairs": 8, "eval_pairs": 12, "restarts": 1, "edge_steps": 50, "lr": 1e-2}


@pytest.fixture(scope="module")
def model():
    return quote_model(Tokenizer.default())


@pytest.fixture(scope="module")
def task():
    return sc.get_task("single_double_quote.plain")


@pytest.fixture(scope="module")
def means(model, task):
    batch = task.batch("train", 200, seed=7)
    tokens = np.concatenate([row[: last + 1] for row, last in zip(batch.tokens, batch.last, strict=True)])
    return pretraining_means(model, tokens)


@pytest.fixture(scope="module")
def found(model, task, means):
    """The circuit by the default method."""
    return sc.prune(model, task, means=means, config=PruneConfig(**QUICK))


@pytest.mark.parametrize("method", ["integrated-gradients", "eap-ig", "random"])
def test_every_baseline_gives_a_circuit_by_the_same_call(model, task, means, method):
    circuit = sc.prune(model, task, means=means, config=PruneConfig(method=method, **QUICK))
    assert circuit.node_names == QUOTE_NODES  # the clean-up sees to that in so small a model
    assert circuit.found_by.config["method"] == method
    if method == "random":
        assert circuit.found_by.ranked_size > 3 * len(QUOTE_NODES)


@pytest.mark.parametrize("method", ["learned", "gradient", "integrated-gradients", "eap-ig", "weight-magnitude"])
def test_rankings_that_look_at_the_task_put_its_nodes_first(model, task, means, method):
    scores = rank_nodes(model, task, means, PruneConfig(method=method, **QUICK), 0.1)
    space = NodeSpace.of(model.config)
    # A few more for EAP-IG: what feeds the last norm has a gradient too.
    first = set(scores.topk(len(QUOTE_NODES) + (2 if method == "eap-ig" else 0)).indices.tolist())
    found = first >= set(space.mask(QUOTE_NODES).nonzero()[:, 0].tolist())
    assert found == (method != "weight-magnitude")


@pytest.mark.parametrize("ablation", ["zero", pytest.param("resample", marks=pytest.mark.slow)])
def test_the_built_in_circuit_under_other_ablations(model, task, means, ablation):
    circuit = sc.prune(model, task, means=means, config=PruneConfig(ablation=ablation, **QUICK))
    assert circuit.ablation == ablation
    assert circuit.losses.circuit <= 0.15
    assert circuit.losses.ablated > 0.6
    # Zero leaves the answer to the calibration; the mean of the other prompt's nodes is the wrong answer.
    assert set(circuit.node_names) <= set(QUOTE_NODES)
    assert circuit.losses.empty > 0.69


def test_needless_edges_and_the_nodes_at_their_ends_go(model, task, means, monkeypatch):
    monkeypatch.setattr(edge_pruning, "LEARN_ABOVE", 10)  # so that edge gates are learned here too
    space = NodeSpace.of(model.config)
    junk = [f"0.mlp.act_in.{c}" for c in range(6, 12)] + [f"0.mlp.post_act.{n}" for n in range(10, 14)]
    kept = space.mask(QUOTE_NODES + junk)
    batches = [task.batch(split, 24) for split in ("train", "validation")]
    evaluate = Evaluator(model, means, *batches)
    nodes, edges = prune_edges(task, kept, evaluate, 0.1, PruneConfig(**QUICK))
    assert space.names(nodes) == QUOTE_NODES
    found = {(edge.source, edge.target): edge.weight for edge in edge_records(edges, space)}
    assert found == QUOTE_EDGES


def test_a_circuit_without_one_of_its_edges_is_worse(model, task, found):
    for place in range(len(found.edges)):
        fewer = found.model_copy(update={"edges": found.edges[:place] + found.edges[place + 1 :]})
        assert len(fewer.removed_edges(model)) == 1
        assert sc.faithfulness(model, fewer, task).losses.circuit > 0.3


def test_tied_gates_open_and_close_together(model, task, means):
    space = NodeSpace.of(model.config)
    tau = space.split(rank_nodes(model, task, means, PruneConfig(tied_qk=True, **QUICK), 0.1))
    assert tau["0.attn.q"].equal(tau["0.attn.k"])
    free = space.split(rank_nodes(model, task, means, PruneConfig(**QUICK), 0.1))
    assert not free["0.attn.q"].equal(free["0.attn.k"])
    owner = tied_query_keys(space)
    assert (owner != torch.arange(space.size)).sum() == model.config.attn_width
    with pytest.raises(sc.UserError, match="tied_qk ties learned gates"):
        PruneConfig(tied_qk=True, method="random")


def test_the_curve_is_a_front_that_holds_the_circuit(found):
    circuit, curve = found, found.found_by.curve
    edges, losses = [point[1] for point in curve], [point[2] for point in curve]
    assert edges == sorted(set(edges))
    assert losses == sorted(losses, reverse=True)
    assert curve[0][1] == 0
    assert any(point[1] <= len(circuit.edges) and point[2] <= circuit.target_loss for point in curve)
    assert curve_of(circuit) == list(curve)
    with pytest.raises(sc.UserError, match="prune again"):
        curve_of(circuit.model_copy(update={"found_by": FoundBy()}))
    with pytest.raises(ValueError, match="curve"):
        FoundBy(curve=[[1, 2]])


def test_a_task_that_the_bigram_table_does_needs_no_node(model, task):
    wide = quote_model(task.tokenizer)
    colon, condition = (wide.tokenizer.single_token(text) for text in (":\n", " not"))
    wide.bigram = torch.nn.Embedding(wide.config.vocab_size, wide.config.vocab_size)
    with torch.no_grad():
        wide.bigram.weight.zero_()
        wide.bigram.weight[wide.tokenizer.single_token("elif"), condition] = 8.0
        wide.bigram.weight[wide.tokenizer.single_token(" elif"), condition] = 8.0
        wide.bigram.weight[wide.tokenizer.single_token("else"), colon] = 8.0
        wide.bigram.weight[wide.tokenizer.single_token(" else"), colon] = 8.0
    space = NodeSpace.of(wide.config)
    circuit = sc.prune(wide, sc.get_task("else_elif"), means=torch.zeros(space.size), config=PruneConfig(**QUICK))
    assert (len(circuit.nodes), len(circuit.edges)) == (0, 0)
    assert circuit.losses.circuit < 0.05


def test_no_point_of_a_curve_has_more_nodes_than_the_model(model, task, means):
    evaluate = Evaluator(model, means, task.batch("train", 4))
    kept = ~evaluate.space.mask(QUOTE_NODES[:1])  # worse than all nodes, which are the next point
    none = edges_between(model, evaluate.space, torch.zeros_like(kept))
    points = size_curve(evaluate, kept.float(), kept, none, none, {})
    assert max(nodes for nodes, _, _ in points) == evaluate.space.size
