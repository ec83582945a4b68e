"""Training runs: what they write, resume, and what stops them."""

import dataclasses
import json
import os
import time
from types import SimpleNamespace

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer, prepare_tokens
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.transformer import sparse_matrices
from sparsecircuits.sparsity.projection import budget, targets
from sparsecircuits.sparsity.schedules import SparsityConfig, density_at
from sparsecircuits.training import hardware, loop
from sparsecircuits.training.checkpoints import load_checkpoint
from sparsecircuits.training.config import OptimizerConfig, TrainConfig, dense_twin, preset
from sparsecircuits.training.metrics import read_metrics
from sparsecircuits.training.optimizer import gradient_rms, scale_gradients_

TINY = TrainConfig(
    model=ModelConfig(n_ctx=32, n_layer=1, d_model=32, d_head=8),
    sparsity=SparsityConfig(density=0.25),
    optimizer=OptimizerConfig(lr=1e-2),
    batch_size=8,
    steps=40,
    dtype="float32",
    eval_every=20,
    eval_tokens=2048,
    checkpoint_every=10,
)


@pytest.fixture(scope="module")
def tokens(corpus):
    return prepare_tokens(str(corpus), Tokenizer.default())


@pytest.fixture(scope="module")
def trained(tokens, tmp_path_factory):
    out = tmp_path_factory.mktemp("train") / "run"
    return out, sc.train(TINY, out, tokens=tokens)


def test_a_run_directory_is_complete_and_loads(trained):
    out, model = trained
    assert {"config.json", "model.safetensors", "tokenizer.json", "metrics.jsonl", "checkpoints"} <= set(
        os.listdir(out)
    )
    loaded = sc.load_model(out)
    ids = torch.arange(20).view(1, 20)
    with torch.no_grad():
        assert torch.equal(loaded(ids), model(ids))


def test_the_loss_falls_and_the_weights_are_sparse(trained):
    out, model = trained
    losses = [line["loss"] for line in read_metrics(out / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < losses[0] - 0.5
    for target in targets(model, TINY.sparsity):
        matrix = sparse_matrices(model)[target.name]
        assert int(matrix.count_nonzero()) == budget(matrix, 0.25)
        assert int(matrix.count_nonzero(dim=target.dim).min()) >= target.floor


def test_metrics_have_a_line_at_least_every_ten_steps(trained):
    lines = [line for line in read_metrics(trained[0] / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in lines] == [1, 10, 20, 30, 40]
    assert {"tokens", "density", "nonzeros", "lr", "grad_rms", "tokens_per_second", "seconds"} <= set(lines[0])


def test_the_budget_holds_after_every_step(tokens, tmp_path):
    run = loop._Run(TINY, tmp_path, tokens, Tokenizer.default(), torch.device("cpu"))
    for step in range(12):
        progress = step / 12
        run._take_step(progress)
        for target in run.projector.targets:
            matrix = sparse_matrices(run.model)[target.name]
            share = density_at(progress, target.density, TINY.sparsity)
            assert int(matrix.count_nonzero()) == budget(matrix, share), (step, target.name)
            assert int(matrix.count_nonzero(dim=target.dim).min()) >= target.floor


def test_same_seed_same_weights_other_seed_other_weights(tokens, tmp_path):
    config = dataclasses.replace(TINY, steps=5)
    first = sc.train(config, tmp_path / "a", tokens=tokens)
    second = sc.train(config, tmp_path / "b", tokens=tokens)
    third = sc.train(dataclasses.replace(config, seed=1), tmp_path / "c", tokens=tokens)
    assert torch.equal(first.wte.weight, second.wte.weight)
    assert not torch.equal(first.wte.weight, third.wte.weight)


def test_dense_twin_zeroes_nothing(tokens, tmp_path):
    model = sc.train(dataclasses.replace(dense_twin(TINY), steps=5), tmp_path / "run", tokens=tokens)
    assert model.config.afrac is None
    assert all(bool((m != 0).all()) for m in sparse_matrices(model).values())


def test_minutes_end_in_time_and_sparse(tokens, tmp_path):
    config = dataclasses.replace(TINY, steps=None, minutes=0.05)
    model = sc.train(config, tmp_path / "run", tokens=tokens)
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert 3 <= last["seconds"] < 20
    assert int(model.wte.weight.count_nonzero()) == budget(model.wte.weight, 0.25)


def test_bfloat16_trains_too(tokens, tmp_path):
    sc.train(dataclasses.replace(TINY, steps=30, dtype="bfloat16"), tmp_path / "run", tokens=tokens)
    losses = [line["loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize(("flags", "expected"), [("fma avx512_bf16", "float32"), ("amx_tile amx_bf16", "bfloat16")])
def test_auto_is_decided_by_features_and_never_by_a_clock(tokens, tmp_path, monkeypatch, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\nbugs\t: none\n")
    monkeypatch.setattr(hardware, "CPU_FLAGS", tmp_path / "cpuinfo")
    with monkeypatch.context() as clockless:
        clockless.setattr(time, "perf_counter", lambda: pytest.fail("the type is decided by a clock"))
        assert hardware.auto_dtype(torch.device("cpu"))[0] == expected
        run = loop._Run(
            dataclasses.replace(TINY, dtype="auto"), tmp_path, tokens, Tokenizer.default(), torch.device("cpu")
        )
    assert run.config.dtype == expected


def test_what_auto_settled_on_is_saved(tokens, tmp_path):
    sc.train(dataclasses.replace(TINY, steps=2, dtype="auto"), tmp_path / "run", tokens=tokens)
    settled = json.loads((tmp_path / "run" / "config.json").read_text())["train"]["dtype"]
    assert settled == hardware.auto_dtype(torch.device("cpu"))[0]


def test_an_existing_run_is_not_overwritten(trained, tokens):
    with pytest.raises(sc.UserError, match="already holds a run"):
        sc.train(TINY, trained[0], tokens=tokens)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_not_finite_stops_with_the_step(tokens, tmp_path, monkeypatch, accumulate):
    real, calls = loop._Run.loss, []

    def poisoned(self, inputs, targets):
        calls.append(1)
        return real(self, inputs, targets) * (float("nan") if len(calls) == 15 * accumulate else 1.0)

    monkeypatch.setattr(loop._Run, "loss", poisoned)
    with pytest.raises(sc.UserError, match=r"the loss is nan at step 15; the checkpoint of step 10 is kept"):
        sc.train(dataclasses.replace(TINY, accumulate=accumulate), tmp_path / "run", tokens=tokens)
    assert load_checkpoint(tmp_path / "run")[0] == 10


def test_a_gradient_that_is_not_finite_is_never_checkpointed(tokens, tmp_path, monkeypatch):
    real = loop._Run._gradient

    def poisoned(self, inputs, targets):
        loss = real(self, inputs, targets)
        if self.step == 19:
            self.model.wte.weight.grad[0, 0] = float("inf")
        return loss

    monkeypatch.setattr(loop._Run, "_gradient", poisoned)
    with pytest.raises(sc.UserError, match=r"the gradient is inf at step 20; the checkpoint of step 10 is kept"):
        sc.train(TINY, tmp_path / "run", tokens=tokens)
    assert load_checkpoint(tmp_path / "run")[0] == 10


def test_a_validation_split_that_is_too_small_is_refused_before_the_first_step(tokens, tmp_path):
    short = dataclasses.replace(tokens, val=tokens.val[:32])
    with pytest.raises(sc.UserError, match=r"validation split of .* has 32 tokens, too few for a context of 32"):
        sc.train(TINY, tmp_path / "run", tokens=short)
    assert not (tmp_path / "run").exists()


def test_an_evaluation_that_fails_loses_no_steps(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "validate", lambda *_: 1 / 0)
    config = dataclasses.replace(TINY, eval_every=7)
    with pytest.raises(ZeroDivisionError):
        sc.train(config, tmp_path / "run", tokens=tokens)
    assert load_checkpoint(tmp_path / "run")[0] == 7


def test_a_disk_without_room_is_refused_before_the_first_step(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(sc.UserError, match=r"training needs \d+ MB for checkpoints in .*, whose disk has 0 MB free"):
        sc.train(TINY, tmp_path / "run", tokens=lambda: pytest.fail("it prepared the corpus"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("mode", "expected"), [("normalise", 1.0), ("clip", 1.0), ("none", 5.0)])
def test_gradient_scaling(mode, expected):
    gradients = [torch.full((n,), 5.0) for n in (10, 30)]
    rms = gradient_rms(gradients, 40)
    assert rms == pytest.approx(5.0)
    scale_gradients_(gradients, rms, mode)
    assert all(g.numpy() == pytest.approx(expected, rel=1e-4) for g in gradients)


def test_presets_match_the_method():
    assert preset("nano").model.d_model == 256
    assert preset("nano").sparsity.density == 0.02
    paper = preset("paper")
    assert (paper.model.n_layer, paper.model.d_model, paper.model.heads) == (8, 2048, 128)
    assert paper.total_steps == 32_000_000_000 // (512 * 256)
    with pytest.raises(sc.UserError, match="no preset"):
        preset("giant")


def test_configs_survive_json_and_name_faults():
    assert TrainConfig.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY
    with pytest.raises(sc.UserError, match="unknown key 'stepz'"):
        TrainConfig.from_dict({**TINY.to_dict(), "stepz": 3})
    with pytest.raises(sc.UserError, match="one of steps, tokens and minutes"):
        dataclasses.replace(TINY, minutes=3.0)
    with pytest.raises(sc.UserError, match="how long"):
        sc.train(dataclasses.replace(TINY, steps=None), "unused", tokens=prepared())


def prepared():
    class Tokens:
        train = val = torch.arange(5000).numpy().astype("uint16") % 2000
        manifest: dict = {}  # noqa: RUF012

    return Tokens()
