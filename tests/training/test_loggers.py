"""Loggers beside metrics.jsonl: real event files, a real trackio store, wandb offline."""

import dataclasses
import importlib.util
import json
import sqlite3

import pytest

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer, prepare_tokens
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.sparsity.schedules import SparsityConfig
from sparsecircuits.training import loggers
from sparsecircuits.training.config import TrainConfig
from sparsecircuits.training.metrics import read_metrics

CONFIG = TrainConfig(
    model=ModelConfig(n_ctx=32, n_layer=1, d_model=32, d_head=8),
    sparsity=SparsityConfig(density=0.25),
    batch_size=4,
    steps=20,
    dtype="float32",
    eval_every=10,
    eval_tokens=512,
    checkpoint_every=10,
)


@pytest.fixture(scope="module")
def tokens(corpus):
    return prepare_tokens(str(corpus), Tokenizer.default())


def scalars(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_holds_what_metrics_holds(tokens, tmp_path):
    sc.train(dataclasses.replace(CONFIG, logger=("tensorboard",)), tmp_path / "run", tokens=tokens)
    seen, lines = scalars(tmp_path / "run"), read_metrics(tmp_path / "run" / "metrics.jsonl")
    for name in ("loss", "val_loss", "lr", "density", "alive_neurons", "tokens_per_second"):
        wanted = [(line["step"], line[name]) for line in lines if name in line]
        assert [step for step, _ in seen[name]] == [step for step, _ in wanted]
        assert [value for _, value in seen[name]] == pytest.approx([value for _, value in wanted], rel=1e-5)


def test_a_resumed_tensorboard_run_has_each_step_once(tmp_path):
    first = loggers.open_loggers(["tensorboard"], tmp_path, CONFIG.to_dict())[0]
    for step in (10, 20, 30):
        first.log(step, {"loss": float(step)})
    first.close()
    again = loggers.open_loggers(["tensorboard"], tmp_path, CONFIG.to_dict(), resume_step=15)[0]
    again.log(20, {"loss": 21.0})
    again.close()
    assert scalars(tmp_path)["loss"] == [(10, 10.0), (20, 21.0)]


def test_trackio_stores_the_rows(tokens, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    import trackio.utils

    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr(trackio.sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio", raising=False)
    sc.train(dataclasses.replace(CONFIG, logger=("trackio",)), tmp_path / "nano", tokens=tokens)
    assert capsys.readouterr().out == ""
    store = sqlite3.connect(tmp_path / "trackio" / "sparsecircuits.db")
    rows = store.execute("select step, metrics from metrics where run_name = 'nano' order by step").fetchall()
    found = {step: json.loads(metrics)["loss"] for step, metrics in rows if "loss" in json.loads(metrics)}
    lines = read_metrics(tmp_path / "nano" / "metrics.jsonl")
    assert found == pytest.approx({line["step"]: line["loss"] for line in lines if "loss" in line})


def test_wandb_offline_keeps_one_run_over_a_resume(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for resume_step in (None, 1):
        run = loggers.open_loggers(["wandb"], tmp_path, CONFIG.to_dict(), resume_step)[0]
        run.log(1 if resume_step is None else 2, {"loss": 1.5})
        run.close()
    folders = list((tmp_path / "wandb").glob("offline-run-*"))
    # offline-run-DATE_TIME-ID, and where two begin in one second -N behind it
    assert len({folder.name.removeprefix("offline-run-").split("-")[1] for folder in folders}) == 1
    assert all(list(folder.glob("*.wandb")) for folder in folders)


def test_settings_are_flat():
    flat = loggers.flat_settings(CONFIG.to_dict())
    assert flat["model.d_model"] == 32
    assert flat["optimizer.lr"] == CONFIG.optimizer.lr
    assert not any(isinstance(value, dict) for value in flat.values())


def test_a_missing_package_is_told_before_any_work(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else real(name))
    with pytest.raises(sc.UserError, match=r"needs the package wandb: pip install 'sparsecircuits\[logging\]'"):
        sc.train(dataclasses.replace(CONFIG, data="no such corpus", logger=("wandb",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(sc.UserError, match="twice"):
        loggers.require_loggers(["tensorboard", "tensorboard"])
