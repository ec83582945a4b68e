"""Backup circuits of hand-made models: two disjoint ways, a shared core, one way alone; and forbidden nodes."""

import dataclasses

import numpy as np
import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer
from sparsecircuits.errors import TaskTooHard
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.planted.models import QUOTE_NODES, SECOND_NODES, quote_model, two_way_model
from sparsecircuits.pruning.backups import BackupRecord, backups, jaccard
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.discretise import choosable, smallest_prefix, top_nodes

QUICK = PruneConfig(steps=40, pairs=8, eval_pairs=24, restarts=0, lr=4e-2)


@pytest.fixture(scope="module")
def task():
    return sc.get_task("single_double_quote.plain")


@pytest.fixture(scope="module")
def tokens(task) -> np.ndarray:
    """Text for the means, both quotes equally often."""
    batch = task.batch("train", 200, seed=7)
    return np.concatenate([row[: last + 1] for row, last in zip(batch.tokens, batch.last, strict=True)])


@pytest.fixture(scope="module")
def two_ways():
    return two_way_model(Tokenizer.default(), 6.0)


@pytest.fixture(scope="module")
def told():
    """What was told of the search for disjoint ways: shares done, and words."""
    return []


@pytest.fixture(scope="module")
def disjoint(two_ways, task, tokens, told):
    return backups(two_ways, task, tokens=tokens, config=QUICK, seeds=2, report=lambda *said: told.append(said))


def _two_ends():
    """The model with two ways, which read the quote with the same nodes: they part at the neurons."""
    model = two_way_model(Tokenizer.default(), 6.0)
    with torch.no_grad():
        model.block(0).mlp.c_fc.weight[6, [2, 3]] = torch.tensor([0.0, 3.0])
    return model


def test_two_disjoint_ways_are_both_found(disjoint, told):
    record = disjoint.record
    assert {way.nodes for way in record.ways} == {tuple(QUOTE_NODES), tuple(SECOND_NODES)}
    assert (record.core, record.exhausted) == ((), True)
    assert all(way.loss <= 0.15 and len(way.edges) == 4 for way in record.ways)
    assert record.ways[0].loss_left <= 0.15 < 0.6 < record.ways[1].loss_left
    assert record.words == "There are 2 circuits that share no node (of 7, 7 nodes): this is one of several."
    assert [circuit.node_names for circuit in disjoint.circuits] == [list(way.nodes) for way in record.ways]
    assert disjoint.circuits[1].found_by.forbidden == record.ways[0].nodes
    assert BackupRecord.model_validate_json(record.model_dump_json()) == record
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    words = {said.split(":")[0] for _, said in told}
    assert words >= {"circuit 1", "the necessary core", "circuit 2", "circuit 3", "seed 1"}


def test_seeds_share_one_way_or_nothing(disjoint):
    overlap = disjoint.record.overlap
    assert overlap.n_nodes == (7, 7)
    assert overlap.nodes == overlap.edges
    assert overlap.nodes in (1.0, 0.0)


def test_what_both_ways_need_is_the_core(task, tokens):
    record = backups(_two_ends(), task, tokens=tokens, config=QUICK, seeds=1).record
    assert record.core == tuple(QUOTE_NODES[:4])
    ends = {tuple(QUOTE_NODES[4:]), tuple(SECOND_NODES[4:])}
    assert {way.nodes[4:] for way in record.ways} == ends
    assert all(way.nodes[:4] == record.core for way in record.ways)
    assert record.exhausted
    assert record.overlap is None
    assert "2 circuits that share a necessary core of 4 nodes" in record.words


def test_one_way_alone_is_all_core(task, tokens):
    record = backups(quote_model(Tokenizer.default()), task, tokens=tokens, config=QUICK, seeds=1).record
    assert record.core == tuple(QUOTE_NODES)
    assert len(record.ways) == 1
    assert record.exhausted
    assert record.words == "There is no other way: each of the circuit's 7 nodes is necessary."


def test_the_search_can_end_early(two_ways, task, tokens, disjoint):
    found = backups(two_ways, task, tokens=tokens, config=QUICK, first=disjoint.circuits[1], most=1, seeds=1).record
    assert [way.nodes for way in found.ways] == [disjoint.record.ways[1].nodes]
    assert not found.exhausted
    for wrong in ({"most": 0}, {"seeds": 0}):
        with pytest.raises(sc.UserError, match="must be at least 1"):
            backups(two_ways, task, tokens=tokens, **wrong)


@pytest.mark.parametrize("method", ["learned", "integrated-gradients", "eap-ig"])
def test_forbidden_nodes_stay_outside(two_ways, task, tokens, method):
    config = dataclasses.replace(QUICK, method=method)
    for forbidden, left in ((QUOTE_NODES, SECOND_NODES), (SECOND_NODES, QUOTE_NODES)):
        found = sc.prune(two_ways, task, tokens=tokens, config=config, forbidden=forbidden)
        assert found.node_names == left
        assert found.found_by.forbidden == tuple(forbidden)
        assert sc.Circuit.model_validate(found.model_dump()).checksum() == found.checksum()


def test_what_cannot_be_done_without_the_forbidden_is_refused(task, tokens):
    model = quote_model(Tokenizer.default())
    with pytest.raises(TaskTooHard, match=r"no set of nodes holds .* without the 1 forbidden nodes"):
        sc.prune(model, task, tokens=tokens, config=QUICK, forbidden=[QUOTE_NODES[0]])
    every = NodeSpace.of(model.config).names(torch.ones(NodeSpace.of(model.config).size, dtype=torch.bool))
    with pytest.raises(TaskTooHard):
        sc.prune(model, task, tokens=tokens, config=QUICK, forbidden=every)
    with pytest.raises(sc.UserError, match="no node"):
        sc.prune(model, task, tokens=tokens, forbidden=["9.mlp.post_act.0"])


def test_rankings_choose_nothing_forbidden():
    tau = torch.tensor([0.5, -torch.inf, 0.1, -0.2])
    assert choosable(tau) == 3
    assert top_nodes(tau, 4).tolist() == [True, False, True, True]
    assert smallest_prefix(torch.full((3,), -torch.inf), lambda kept: 1 / 0, 0.1) is None


def test_jaccard_at_known_points():
    assert [jaccard({1, 2}, {2, 3}), jaccard({1}, {1}), jaccard({1}, {2}), jaccard(set(), set())] == [1 / 3, 1, 0, 1]
