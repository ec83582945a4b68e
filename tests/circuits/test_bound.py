"""A circuit in its model: what is read once says what the circuit's own methods say."""

from collections import Counter

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.circuits import circuit as circuit_module
from sparsecircuits.data import Tokenizer
from sparsecircuits.faithfulness.measures.necessity import minimality
from sparsecircuits.planted.faults import circuit_of
from sparsecircuits.planted.models import QUOTE_NODES, two_way_model


@pytest.fixture(scope="module")
def model():
    return two_way_model(Tokenizer.default(), 3.0)


@pytest.fixture(scope="module")
def task(model):
    return sc.get_task("single_double_quote.plain", tokenizer=model.tokenizer)


@pytest.fixture(scope="module")
def circuit(model, task):
    whole = circuit_of(model, task, QUOTE_NODES)
    return whole.model_copy(update={"edges": whole.edges[1:]})  # so that an edge is off


def ends(edges):
    return list(zip(edges.source.tolist(), edges.target.tolist(), strict=True))


def test_the_circuit_alone_is_what_its_own_methods_say(model, circuit):
    bound = circuit.on(model)
    assert bound.kept.equal(circuit.kept(bound.space))
    assert bound.frozen.equal(circuit.frozen_values(bound.space))
    assert ends(bound.removed) == ends(circuit.removed_edges(model))
    assert len(bound.removed) == 1
    assert bound.alone.gates.equal(circuit.gating(model).gates)
    assert bound.rest.gates.equal(1 - bound.kept.float())
    assert not bound.nothing.gates.any()


def test_the_circuit_less_an_edge_is_the_circuit_that_lacks_it(model, circuit):
    bound = circuit.on(model)
    for edge in circuit.edges:
        fewer = circuit.model_copy(update={"edges": tuple(other for other in circuit.edges if other != edge)})
        off = bound.removed_with(edge)
        assert ends(off) == ends(fewer.removed_edges(model))
        assert len(off) == 2


def test_matrices_are_read_once_however_many_edges_are_left_out(model, task, circuit, monkeypatch):
    read = []

    def counted(*args):
        read.append(args)
        return edges_between(*args)

    edges_between = circuit_module.edges_between
    monkeypatch.setattr(circuit_module, "edges_between", counted)
    found = minimality(circuit.on(model), task.batch("held_out", 4), gained=0.5)
    assert len(found.edges) == len(circuit.edges) > 2
    assert len(read) == 1


def test_a_bound_circuit_is_read_once_however_often_it_runs(model, task, circuit, monkeypatch):
    reads = Counter()

    def counting(owner, name):
        original = getattr(owner, name)

        def counted(*args):
            reads[name] += 1
            return original(*args)

        monkeypatch.setattr(owner, name, counted)

    batch, changes = task.batch("held_out", 4), [sc.Intervention(kind="zero", target=circuit.node_names[0])]
    scopes = ("circuit", "model", "circuit")
    expected = [sc.run_with(model, circuit, batch, changes, scope=scope).logits for scope in scopes]
    counting(circuit_module, "edges_between")
    counting(circuit_module.NodeSpace, "of")
    counting(sc.Circuit, "frozen_values")
    counting(sc.Circuit, "kept")
    bound = circuit.on(model)
    found = [sc.run_with(model, bound, batch, changes, scope=scope).logits for scope in scopes]
    assert all(map(torch.equal, found, expected))
    assert reads == {"edges_between": 1, "of": 1, "frozen_values": 1, "kept": 1}
    with pytest.raises(ValueError, match="another model"):
        sc.run_with(two_way_model(Tokenizer.default(), 2.0), bound, batch)


def test_what_does_not_fit_the_model_is_said_when_it_is_read(model, circuit):
    wrong = circuit.edges[0].model_copy(update={"weight": circuit.edges[0].weight + 1})
    bound = circuit.model_copy(update={"edges": (wrong, *circuit.edges[1:])}).on(model)
    assert bound.kept.sum() == len(circuit.nodes)
    with pytest.raises(sc.UserError, match="prune again"):
        bound.removed  # noqa: B018
    published = circuit.model_copy(update={"frozen": {}}).on(model)
    assert ends(published.removed) == ends(circuit.removed_edges(model))
    with pytest.raises(sc.UserError, match="no ablation values"):
        published.frozen  # noqa: B018
