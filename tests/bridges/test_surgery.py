"""Surgery: what is folded and what is gated computes what hooks would."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import forked
import sparsecircuits as sc
from madecircuits import circuit_of
from randommodels import configs, random_model
from sparsecircuits.bridges.audit import compared_on_text
from sparsecircuits.bridges.edited import edit_into
from sparsecircuits.bridges.folding import switch_off
from sparsecircuits.bridges.surgery import Operation, operation
from sparsecircuits.data import Tokenizer
from sparsecircuits.errors import UserError
from sparsecircuits.interop.convert import save_model
from sparsecircuits.models.storage import content_hash, save_native
from sparsecircuits.nodes.edges import edges_between
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.task_score import score_on_task
from sparsecircuits.planted.models import QUOTE_NODES, SECOND_NODES, quote_model, two_way_model
from sparsecircuits.tasks import PairBatch


def gated_logits(model, planned, ids):
    batch = PairBatch(ids.numpy(), np.full(len(ids), ids.shape[1] - 1), np.tile([0, 1], len(ids) // 2), (3, 7))
    with torch.no_grad(), planned.gating(model).over(model, batch):
        return model(ids)


@settings(max_examples=40, deadline=None)
@given(configs(ours=True), st.integers(0, 2**31), st.floats(0, 1), st.sampled_from([0.0, 0.3]))
def test_an_edited_model_equals_the_gated_one(config, seed, share, cut):
    model, space = random_model(config, seed), NodeSpace.of(config)
    generator = torch.Generator().manual_seed(seed)
    frozen = torch.randn(space.size, generator=generator)
    off = torch.rand(space.size, generator=generator) < share
    between = edges_between(model, space, ~off)
    removed = between[torch.rand(len(between), generator=generator) < cut] if cut else None
    ids = torch.randint(config.vocab_size, (4, config.n_ctx), generator=generator)
    before = model(ids)
    folded = switch_off(model, off, frozen, removed)
    expected = gated_logits(model, Operation(off, frozen, removed), ids)
    torch.testing.assert_close(folded.model(ids), expected, atol=2e-4, rtol=2e-4)
    assert torch.equal(model(ids), before)
    assert folded.at_readers + folded.at_source + folded.gated == int(off.sum())
    assert folded.edges == (0 if removed is None else len(removed))
    assert folded.model.config.frozen_nodes == (config.frozen_nodes or folded.gated > 0)


@pytest.fixture
def model():
    return two_way_model(Tokenizer.default(), 6.0)


def test_a_removed_circuit_is_gone_and_the_other_way_stands(model):
    task = sc.get_task("single_double_quote.plain", model.tokenizer)
    both, first = circuit_of(model, QUOTE_NODES + SECOND_NODES), circuit_of(model, QUOTE_NODES)
    score = partial(score_on_task, task=task, split="held_out", n=16, seed=0)
    assert score(model)["accuracy"] == 1
    assert score(sc.edit(model, remove=[both]))["accuracy"] == 0.5
    assert score(sc.edit(model, remove=[first]))["accuracy"] == 1
    assert score(sc.edit(model, keep=[first]))["accuracy"] == 1
    spared = operation(model, remove=[both], spare=[first])
    assert NodeSpace.of(model.config).names(spared.off) == SECOND_NODES


def test_what_is_kept_is_the_union_of_circuits_with_their_edges(model):
    ids = torch.randint(model.config.vocab_size, (2, 20))
    first, second = circuit_of(model, QUOTE_NODES), circuit_of(model, SECOND_NODES)
    first = first.model_copy(update={"edges": first.edges[1:]})
    planned = operation(model, keep=[first, second])
    assert len(planned.removed) == 1
    expected = gated_logits(model, planned, ids)
    torch.testing.assert_close(sc.edit(model, keep=[first, second])(ids), expected, atol=1e-4, rtol=1e-4)


def test_the_folder_is_a_model_that_loads_with_its_audit(model, tmp_path):
    circuit = circuit_of(model, QUOTE_NODES)
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, 600)
    found = edit_into(model, tmp_path / "edited", tokens, remove=[circuit], n_pairs=4)
    loaded, made = sc.load_model(tmp_path / "edited"), sc.edit(model, remove=[circuit])
    assert content_hash(loaded) == content_hash(made) == found["audit"]["model_after"]
    ids = torch.randint(model.config.vocab_size, (2, 20))
    torch.testing.assert_close(loaded(ids), gated_logits(model, operation(model, remove=[circuit]), ids))
    assert json.loads((tmp_path / "edited" / "audit.json").read_text()) == found
    assert found["gated"] == 1  # the read of the last residual stream
    assert found["folded_at_readers"] + found["folded_at_source"] == len(QUOTE_NODES) - 1
    assert len(found["audit"]["tasks"]) == 20
    with pytest.raises(UserError, match="not empty"):
        edit_into(model, tmp_path / "edited", tokens, remove=[circuit], n_pairs=4)
    save_model(loaded, tmp_path / "hf", "hf")
    torch.testing.assert_close(sc.load_model(tmp_path / "hf")(ids), loaded(ids))
    with pytest.raises(UserError, match="frozen nodes"):
        save_model(loaded, tmp_path / "openai", "openai")


def test_an_audit_says_how_far_predictions_moved(model):
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, 600)
    same, _ = compared_on_text(model, model, tokens, 512)
    assert same[0] == same[1]
    assert same[2] == pytest.approx(0, abs=1e-6)
    moved, count = compared_on_text(model, sc.edit(model, keep=[circuit_of(model, QUOTE_NODES)]), tokens, 512)
    assert moved[2] > 1e-4
    assert count == 512


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "which circuits to remove, or which to keep"),
        ({"remove": [QUOTE_NODES], "keep": [QUOTE_NODES]}, "which circuits to remove, or which to keep"),
        ({"keep": [QUOTE_NODES], "spare": [QUOTE_NODES]}, "spare goes with remove"),
        ({"remove": [QUOTE_NODES], "spare": [QUOTE_NODES]}, "nothing is left to switch off"),
    ],
)
def test_wrong_uses_are_told(model, asked, words):
    with pytest.raises(UserError, match=words):
        sc.edit(model, **{name: [circuit_of(model, nodes) for nodes in group] for name, group in asked.items()})


def test_circuits_that_cannot_be_held_are_refused(model):
    space = NodeSpace.of(model.config)
    plain = circuit_of(model, QUOTE_NODES)
    with pytest.raises(UserError, match="other values than"):
        sc.edit(model, remove=[plain, circuit_of(model, SECOND_NODES, torch.ones(space.size))])
    with pytest.raises(UserError, match="resample"):
        sc.edit(model, remove=[circuit_of(model, QUOTE_NODES, ablation="resample")])
    with pytest.raises(UserError, match="belongs to model"):
        sc.edit(quote_model(Tokenizer.default()), remove=[plain])


def test_the_command_edits_by_the_name_of_a_task(model, tmp_path, corpus):
    save_native(model, tmp_path / "run", {"train": {"data": str(corpus)}})
    circuit_of(model, QUOTE_NODES).save(tmp_path / "run" / "circuits" / "quotes" / "circuit.json")
    arguments = ["edit", tmp_path / "run", "--remove", "quotes", "--out", tmp_path / "out"]
    done = forked.run(*arguments, "--pairs", 2, "--tokens", 256, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["remove"] == ["single_double_quote.plain"]
    assert content_hash(sc.load_model(found["path"])) == found["audit"]["model_after"]
