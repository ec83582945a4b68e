"""A training from Python with parts of one's own: model, sampler, evaluator."""

import dataclasses

import numpy as np
import pytest
import torch

import sparsecircuits as sc
from heldruns import HELD, assert_same, stopped_at
from sparsecircuits.data import TokenData
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.runs import METRICS_NAME
from sparsecircuits.training import loop
from sparsecircuits.training.metrics import read_metrics

CONFIG = dataclasses.replace(
    HELD, model=ModelConfig(vocab_size=2048, n_layer=1, d_model=32, d_head=8, n_ctx=16), steps=8, eval_every=4
)


class Counting:
    """Batches that count upwards, a new one beginning where the last one ended."""

    def __init__(self, rows=CONFIG.batch_size):
        self.rows, self.at = rows, 0

    def next(self):
        ids = (self.at + np.arange(self.rows * (CONFIG.model.n_ctx + 1))).reshape(self.rows, -1) % 50
        self.at += ids.size
        return ids[:, :-1], ids[:, 1:]

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


@pytest.fixture(scope="module")
def tokens():
    ids = (np.arange(2000) % 50).astype(np.uint16)
    return TokenData.of(ids, ids[:500])


def test_a_model_a_sampler_and_an_evaluator_of_ones_own(tokens, tmp_path):
    torch.manual_seed(5)
    own, sampler, seen = sc.SparseTransformer(CONFIG.model), Counting(), []

    def evaluate(model):
        assert not torch.is_grad_enabled()
        seen.append(model(torch.arange(8).view(1, 8)).shape)
        return {"calls": float(len(seen))}

    model = sc.train(CONFIG, tmp_path / "run", init=own, tokens=tokens, sampler=sampler, evaluate=evaluate)
    assert model.config == CONFIG.model
    assert sampler.at == CONFIG.steps * CONFIG.batch_size * (CONFIG.model.n_ctx + 1)
    measured = [line for line in read_metrics(tmp_path / "run" / METRICS_NAME) if "val_loss" in line]
    assert [line["calls"] for line in measured] == [1.0, 2.0, 3.0]  # at steps 4 and 8, and at the end


def test_a_resumed_run_goes_on_with_its_sampler(tokens, tmp_path, monkeypatch):
    config, given = dataclasses.replace(CONFIG, checkpoint_every=4), {"tokens": tokens}
    whole = sc.train(config, tmp_path / "whole", sampler=Counting(), **given)
    with monkeypatch.context() as patched:
        patched.setattr(loop._Run, "_take_step", stopped_at(6))
        with pytest.raises(KeyboardInterrupt):
            sc.train(config, tmp_path / "run", sampler=Counting(), **given)
    assert_same(whole, sc.train(config, tmp_path / "run", resume=True, sampler=Counting(), **given))


def test_batches_of_another_shape_are_refused(tokens, tmp_path):
    with pytest.raises(sc.UserError, match=r"gave batches of \(3, 16\) and \(3, 16\), not of \(4, 16\)"):
        sc.train(CONFIG, tmp_path / "run", tokens=tokens, sampler=Counting(rows=3))
