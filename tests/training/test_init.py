"""Training that begins with a model's weights."""

import dataclasses
from pathlib import Path

import pytest
import torch

import sparsecircuits as sc
from heldruns import HELD, assert_same, interrupted, small_tokens, with_sparsity
from sparsecircuits.bridges.folding import switch_off
from sparsecircuits.cli import main
from sparsecircuits.data import Tokenizer
from sparsecircuits.models.hooks import record
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer, sparse_matrices
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.runs import METRICS_NAME
from sparsecircuits.sparsity.projection import budget
from sparsecircuits.training import loop
from sparsecircuits.training.distributed import World
from sparsecircuits.training.engine import Engine, ShardedEngine
from sparsecircuits.training.heads import attention_spent, wake_heads_
from sparsecircuits.training.loop import saved_config
from sparsecircuits.training.metrics import read_metrics


@pytest.fixture(scope="module")
def tokens():
    return small_tokens()


@pytest.fixture(scope="module")
def first(tokens, tmp_path_factory):
    return sc.train(HELD, tmp_path_factory.mktemp("first") / "run", tokens=tokens)


def given(state="dense", **fields):
    sparsity = dataclasses.replace(HELD.sparsity, start="given", state=state)
    return dataclasses.replace(HELD, init="first", sparsity=sparsity, **fields)


@pytest.mark.parametrize("state", ["dense", "compact"])
def test_a_run_begins_where_the_model_ended(tokens, tmp_path, first, state):
    model = sc.train(
        given(state=state, steps=1, optimizer=dataclasses.replace(HELD.optimizer, lr=1e-12)),
        tmp_path / "run",
        tokens=tokens,
        init=first,
    )
    for (name, one), other in zip(first.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0, msg=name)
    assert saved_config(tmp_path / "run").init == "first"


def test_it_is_on_the_budget_at_every_step_and_learns_more(tokens, tmp_path, first):
    dense = sc.train(with_sparsity(density=1.0), tmp_path / "d", tokens=tokens)
    for start, init in enumerate((first, dense)):
        run = loop._Run(given(), tmp_path, tokens, Tokenizer.default(), torch.device("cpu"), init=init)
        matrices = sparse_matrices(run.model)
        for name, weight in matrices.items():
            kept = weight != 0
            assert int(kept.sum()) == budget(weight, 0.08)
            before = sparse_matrices(init)[name]
            assert torch.equal(weight[kept], before[kept])
            assert start == 0 or before[kept].abs().median() > before.abs().median()  # the largest ones
    before = read_metrics(tmp_path / "d" / METRICS_NAME)[0]["loss"]
    sc.train(given(steps=40), tmp_path / "more", tokens=tokens, init=first)
    lines = read_metrics(tmp_path / "more" / METRICS_NAME)
    assert lines[0]["loss"] < before - 1  # it has not forgotten
    assert all(line["nonzeros"] == lines[0]["nonzeros"] for line in lines if "nonzeros" in line)


def test_a_resumed_run_needs_no_model_and_ends_the_same(tokens, tmp_path, first, monkeypatch):
    config = given(checkpoint_every=8)
    whole = sc.train(config, tmp_path / "whole", tokens=tokens, init=first)
    assert_same(whole, interrupted(config, 9, tmp_path / "run", tokens, monkeypatch, init=first))


def test_a_model_without_offsets_gains_them(tokens, tmp_path, first):
    wider = dataclasses.replace(given(steps=8), model=dataclasses.replace(HELD.model, offsets=4))
    run = loop._Run(wider, tmp_path, tokens, Tokenizer.default(), torch.device("cpu"), init=first)
    ids = torch.from_numpy(tokens.val[:16].astype("int64")).view(1, -1)
    assert wake_heads_(run.model, ids) == []  # none of its heads has a sink
    assert run.model.block(0).attn.offset_logit.shape == (run.model.config.heads, 4)
    torch.testing.assert_close(run.model(ids), first(ids))
    trained = sc.train(wider, tmp_path / "run", tokens=tokens, init=first)
    assert all((block.attn.offset_logit != 0).all() for block in trained.blocks)
    with pytest.raises(sc.UserError, match=r"model\.offsets 4, not None"):
        sc.train(given(), tmp_path / "less", tokens=tokens, init=trained)


def test_heads_that_attend_to_nothing_wake_up_and_write_nothing_at_first():
    torch.manual_seed(0)
    config = sc.ModelConfig(vocab_size=50, n_ctx=16, n_layer=2, d_model=16, d_head=4, sink=True, offsets=3)
    model, ids = SparseTransformer(config), torch.randint(50, (4, 16))
    for layer, head in ((0, 2), (1, 0)):
        model.block(layer).attn.sink_logit.data[head] = 30
    before = model(ids)
    assert wake_heads_(model, ids) == [(0, 2), (1, 0)]
    torch.testing.assert_close(model(ids), before)
    assert all((spent > 0.3).all() for spent in attention_spent(model, ids))
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    assert model.block(0).attn.c_proj.weight.grad[:, 8:12].any()
    assert wake_heads_(model, ids) == []


def test_what_does_not_fit_is_told(tokens, tmp_path, first):
    wider = dataclasses.replace(HELD, model=dataclasses.replace(HELD.model, d_model=128, n_layer=3))
    with pytest.raises(sc.UserError, match=r"model\.n_layer 2, not 3; model\.d_model 64, not 128"):
        sc.train(wider, tmp_path / "run", tokens=tokens, init=first)
    with pytest.raises(sc.UserError, match="pass the model too"):
        sc.train(given(), tmp_path / "run", tokens=tokens)
    with pytest.raises(sc.UserError, match="name it with init"):
        with_sparsity(start="given")
    assert not (tmp_path / "run").exists()


def test_the_command_loads_the_model(tmp_path: Path, capsys):
    out = tmp_path / "more"
    words = ["train", "--out", str(out), "--init", "pretrained:nano", "--sparsity.start", "given", "--data",
             "tinypython:40", "--steps", "1", "--optimizer.lr", "1e-12", "--eval-tokens", "256"]  # fmt: skip
    with pytest.raises(SystemExit):
        main([*words, "--model.n-layer", "3"])
    assert "pretrained:nano has model.n_layer 2, not 3" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code
    ours, theirs = sc.load_model(out), sc.load_model("pretrained:nano")
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("state", ["dense", "compact"])
def test_frozen_nodes_stay_frozen_and_a_resumed_run_is_the_same(tokens, tmp_path, first, state, monkeypatch):
    """Surgery leaves gates; training goes on around them, with weights held between dense gradients too."""
    space = NodeSpace.of(first.config)
    off = torch.rand(space.size, generator=torch.Generator().manual_seed(0)) < 0.3
    edited = switch_off(first, off, torch.full((space.size,), 0.25)).model
    config = given(state=state, model=edited.config)
    whole = sc.train(config, tmp_path / "whole", tokens=tokens, init=edited)
    buffers = dict(whole.named_buffers())
    assert len(buffers) == 2 * len(space.slices)
    assert all(torch.equal(buffers[name], old) for name, old in edited.named_buffers())
    assert not torch.equal(whole.lm_head.weight, edited.lm_head.weight)
    with record(whole, "0.attn.q") as seen:
        whole(torch.zeros(1, 4, dtype=torch.long))
    assert torch.all(seen["0.attn.q"][..., off[space.slices["0.attn.q"]]] == 0.25)
    again = interrupted(config, 13, tmp_path / "cut", tokens, monkeypatch, init=edited)
    assert content_hash(again) == content_hash(whole)


def test_frozen_nodes_are_refused_where_only_parameters_are_sharded_and_kept_where_a_model_is_rebuilt(tokens, first):
    off = torch.ones(NodeSpace.of(first.config).size, dtype=torch.bool)
    edited = switch_off(first, off, torch.full((off.numel(),), 0.5)).model
    config = dataclasses.replace(HELD, model=edited.config)
    with pytest.raises(sc.UserError, match="frozen nodes: use --parallel ddp"):
        ShardedEngine(edited, config, World())
    assert content_hash(Engine(edited, config, World())._rebuilt()) == content_hash(edited)
