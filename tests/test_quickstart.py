"""What quickstart does with folders: nothing that is finished is ever lost. The job itself is a small one here."""

import dataclasses
import os
import signal
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

import sparsecircuits as sc
from sparsecircuits import quickstart
from sparsecircuits.data import Tokenizer
from sparsecircuits.errors import Interrupted, TaskTooHard
from sparsecircuits.locks import locked
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.pruning import discovery
from sparsecircuits.training.config import OptimizerConfig, TrainConfig
from sparsecircuits.training.metrics import read_metrics

SAID = []


@contextmanager
def quiet(_label):
    yield lambda _share, _details: None


def start(out, minutes=1.0, progress=quiet):
    return quickstart.run_quickstart(out, minutes, 0, progress, SAID.append)


def make(folder, words):
    """A finished quickstart, as far as files go."""
    folder.mkdir(parents=True)
    (folder / quickstart.MARK).write_text("")
    (folder / "model.safetensors").write_text(words)


def words_of(folder):
    return (folder / "model.safetensors").read_text()


@pytest.fixture
def job(monkeypatch):
    """Replaces the work: `job["error"]` is raised after it made its folder."""
    asked = {"error": None, "done": 0}

    def work(folder, name, config, progress, say):
        asked["done"] += 1
        make(folder, f"new {name}")
        if asked["error"] is not None:
            raise asked["error"]
        return {"task": quickstart.TASK, "loss": 0.1}

    monkeypatch.setattr(quickstart, "_work", work)
    return asked


def test_an_earlier_one_is_replaced_and_nothing_else_is_left(tmp_path, job):
    make(tmp_path / "qs", "old")
    assert start(tmp_path / "qs")["loss"] == 0.1
    assert words_of(tmp_path / "qs") == "new qs"
    assert os.listdir(tmp_path) == ["qs"]


def test_what_cannot_be_replaced_is_refused_before_the_work(tmp_path, job, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path / "mine")
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "ismount", lambda path: path == tmp_path / "disk")
        for out, words in {
            ".": "is the working directory or around it",
            "..": "is the working directory or around it",
            tmp_path / "disk": "is a mount point",
            tmp_path / "file": "was not made by quickstart",
        }.items():
            with pytest.raises(sc.UserError, match=words):
                start(out)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sc.UserError, match="was not made by quickstart"):
        start(tmp_path / "mine")
    for minutes in (float("nan"), float("inf"), 0.0, -1.0):
        with pytest.raises(sc.UserError, match="minutes"):
            start(tmp_path / "qs", minutes)
    with locked(tmp_path / ".qs.lock", "another"), pytest.raises(sc.UserError, match=rf"in process {os.getpid()}"):
        start(tmp_path / "qs")
    assert job["done"] == 0
    assert sorted(os.listdir(tmp_path)) == ["file", "mine"]


def test_a_link_to_a_folder_stays_and_the_folder_is_replaced(tmp_path, job):
    make(tmp_path / "disk" / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    start(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert words_of(tmp_path / "link") == "new real"
    assert os.listdir(tmp_path / "disk") == ["real"]


def test_a_model_that_learned_too_little_replaces_nothing_good(tmp_path, job):
    job["error"] = TaskTooHard("too hard")
    with pytest.raises(sc.UserError, match=f"longer than 1 minutes .* is kept in {tmp_path / 'qs'}$"):
        start(tmp_path / "qs")
    (tmp_path / "qs" / "model.safetensors").write_text("good")
    for name in ("qs-kept", "qs-kept1"):
        with pytest.raises(sc.UserError, match=f"is kept in {tmp_path / name}$"):
            start(tmp_path / "qs")
        assert words_of(tmp_path / name) == "new qs"
    assert words_of(tmp_path / "qs") == "good"


def test_a_rename_that_fails_loses_neither(tmp_path, job, monkeypatch):
    make(tmp_path / "qs", "old")
    real = type(tmp_path).rename

    def rename(self, target):
        if self.name == ".qs.partial":
            raise OSError(16, "Device or resource busy")
        return real(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", rename)
    with pytest.raises(sc.UserError, match=r"cannot replace .* what was made is .*\.qs\.partial"):
        start(tmp_path / "qs")
    assert words_of(tmp_path / "qs") == "old"
    assert words_of(tmp_path / ".qs.partial") == "new qs"


def test_a_kill_between_the_two_renames_loses_neither(tmp_path, job):
    make(tmp_path / ".qs.old", "old")
    job["error"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "qs")
    assert words_of(tmp_path / "qs") == "old"


@pytest.fixture
def tiny(monkeypatch, corpus):
    """The real work on a model that takes seconds; pruning only says how it would end."""
    config = TrainConfig(
        model=ModelConfig(n_ctx=32, n_layer=1, d_model=32, d_head=8),
        optimizer=OptimizerConfig(lr=1e-2),
        data=str(corpus),
        batch_size=4,
        eval_tokens=512,
        checkpoint_every=1000,
        sparsity=dataclasses.replace(TrainConfig().sparsity, density=0.25),
    )
    monkeypatch.setattr(quickstart, "nano", lambda: config)

    def too_hard(*_, **__):
        raise TaskTooHard("too hard")

    monkeypatch.setattr(discovery, "prune", too_hard)


def test_a_model_that_fails_among_distractors_is_pruned_without_them(monkeypatch):
    asked, said = [], []

    def prune(_model, task, **_):
        asked.append(task.name)
        if not task.name.endswith(".plain"):
            raise TaskTooHard("the whole model's loss is 0.175")
        return "circuit"

    monkeypatch.setattr(discovery, "prune", prune)
    model = SimpleNamespace(tokenizer=Tokenizer.default())
    task, circuit = quickstart._found(model, 0, np.arange(3), quiet, said.append)
    assert (task.name, circuit) == ("single_double_quote.plain", "circuit")
    assert asked == ["single_double_quote", "single_double_quote.plain"]
    assert "0.175" in said[0]
    assert "--minutes" in said[-1]


def test_one_that_was_stopped_is_gone_on_with(tmp_path, tiny):
    @contextmanager
    def stopping(label):
        calls = []

        def update(_share, _details):
            calls.append(1)
            if label == "training" and len(calls) == 5:
                signal.raise_signal(signal.SIGINT)

        yield update

    make(tmp_path / "qs", "old")
    with pytest.raises(Interrupted, match="the same command goes on"):
        start(tmp_path / "qs", 0.02, stopping)
    work = tmp_path / ".qs.partial"
    assert words_of(tmp_path / "qs") == "old"
    with pytest.raises(sc.UserError, match="qs-kept"):
        start(tmp_path / "qs", 0.02)
    assert "going on with a quickstart that was stopped" in SAID
    lines = read_metrics(tmp_path / "qs-kept" / "metrics.jsonl")
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps[:2] == [1, 10], "it did not begin anew"
    assert 1.2 <= lines[-1]["seconds"] < 10
    assert not work.exists()
