"""Units that AbsTopK never picks begin anew, and nothing else changes."""

import dataclasses

import pytest
import torch

import sparsecircuits as sc
from heldruns import EVERY, HELD, assert_same, interrupted, run_of, small_tokens, with_sparsity
from sparsecircuits.errors import UserError
from sparsecircuits.models.statistics import UNITS
from sparsecircuits.models.transformer import sparse_matrices
from sparsecircuits.runs import METRICS_NAME
from sparsecircuits.sparsity.projection import budget
from sparsecircuits.sparsity.schedules import SparsityConfig
from sparsecircuits.training.metrics import read_metrics


@pytest.fixture(scope="module")
def tokens():
    return small_tokens()


def weights_of(run):
    """Dense copies of the layers' weights and moments, by module name."""
    copies = {}
    for i, block in enumerate(run.model.blocks):
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            layer = block.get_submodule(name)
            with run.held.opened(layer) as parts:
                copies[f"{i}.{name}"] = [part.clone() for part in parts]
    return copies


@pytest.mark.parametrize(("start", "state"), [("uniform", "dense"), ("uniform", "compact"), ("erk", "compact")])
def test_the_dead_begin_anew_within_the_budget_and_the_living_stay(tokens, tmp_path, start, state):
    run = run_of(with_sparsity(start=start, state=state, revive_every=8), tokens, tmp_path)
    if start == "erk":  # a matrix of a dead unit is too dense to be kept as its nonzeros alone
        assert "blocks.0.attn.c_proj.weight" not in run.held.names
    for _ in range(5):
        run._take_step(run._progress())
        run.step += 1
    if state == "dense":
        run.held.release()
    fired = {site: torch.ones_like(units) for site, units in run.reviver.fired.items()}
    dead = {"mlp.post_act": [3, 70], "attn.q": [1], "attn.k": [2, 5], "attn.v": [0, 63]}
    for site, units in dead.items():
        fired[site][0, units] = False
    before = weights_of(run)
    run.reviver.load_state_dict(fired)
    counts = run.reviver.revive(8, run.held.opened)
    after = weights_of(run)

    assert counts == {UNITS[site]: len(units) for site, units in dead.items()}
    assert all(units.sum() == 0 for units in run.reviver.fired.values())
    width = run.model.config.attn_width
    changed_rows = {"0.mlp.c_fc": dead["mlp.post_act"]}
    changed_rows["0.attn.c_attn"] = [
        "qkv".index(UNITS[site]) * width + unit for site in dead if site != "mlp.post_act" for unit in dead[site]
    ]
    changed_columns = {"0.mlp.c_proj": dead["mlp.post_act"], "0.attn.c_proj": dead["attn.v"]}
    for name, (old, *_) in before.items():
        new, first, second = after[name]
        assert torch.equal((old != 0).sum(1), (new != 0).sum(1)), name  # each row has as many nonzeros as before
        rows, columns = changed_rows.get(name, []), changed_columns.get(name, [])
        for index in rows:
            assert not torch.equal(old[index], new[index])
            assert not first[index].any()
            assert not second[index].any()
            living = [i for i in range(len(old)) if i not in rows]
            if name == "0.mlp.c_fc":
                assert new[index].norm() == pytest.approx(float(old[living].norm(dim=1).mean()), rel=1e-4)
        for index in columns:
            assert torch.equal(old[:, index] != 0, new[:, index] != 0)
            assert not first[:, index].any()
            assert not second[:, index].any()
        same = torch.ones_like(old, dtype=torch.bool)
        same[rows] = False
        same[:, columns] = False
        assert torch.equal(old[same], new[same]), name


@pytest.mark.parametrize("state", ["dense", "compact"])
def test_fewer_are_dead_at_the_end_and_the_budget_holds(tokens, tmp_path, state):
    ends = {}
    for every in (0, 8):
        config = dataclasses.replace(
            with_sparsity(start="uniform", state=state, revive_every=every),
            steps=60,
            optimizer=dataclasses.replace(HELD.optimizer, lr=0.3),
        )
        model = sc.train(config, tmp_path / str(every), tokens=tokens)
        lines = read_metrics(tmp_path / str(every) / METRICS_NAME)
        ends[every] = sum(lines[-1][f"dead_{kind}"] for kind in UNITS.values())
        revived = [line for line in lines if "revived_neurons" in line]
        assert [line["step"] for line in revived] == ([8, 16, 24, 32, 40] if every else [])
        for name, matrix in sparse_matrices(model).items():
            assert int(matrix.count_nonzero()) == budget(matrix, 0.08), name
    assert ends[8] < ends[0]


@pytest.mark.parametrize(("saved", "state"), [(6, "dense"), (12, "dense"), (9, "compact")])
def test_a_resumed_run_revives_the_same(tokens, tmp_path, saved, state, monkeypatch):
    config = dataclasses.replace(
        with_sparsity(start="uniform", state=state, revive_every=2 * EVERY),
        checkpoint_every=saved,
        optimizer=dataclasses.replace(HELD.optimizer, lr=0.3),
    )
    whole = sc.train(config, tmp_path / "whole", tokens=tokens)
    assert_same(whole, interrupted(config, saved + 1, tmp_path / "run", tokens, monkeypatch))


@pytest.mark.parametrize("fields", [{"revive_every": 3, "regrow_every": 2}, {"revive_every": -8, "regrow_every": 8}])
def test_revival_is_at_steps_with_dense_gradients(fields):
    with pytest.raises(UserError, match="multiple of"):
        SparsityConfig(**fields)


def test_revival_needs_a_sparsifier_with_a_budget():
    with pytest.raises(UserError, match="topk"):
        SparsityConfig(sparsifier="hard_concrete", revive_every=8)
