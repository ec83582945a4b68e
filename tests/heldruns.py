"""Small runs whose weights are held between dense gradients, and their steps one by one."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.data import TokenData, Tokenizer
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.transformer import sparse_matrices
from sparsecircuits.sparsity.schedules import SparsityConfig
from sparsecircuits.training import loop
from sparsecircuits.training.config import OptimizerConfig, TrainConfig

EVERY = 4
HELD = TrainConfig(
    model=ModelConfig(n_layer=2, d_model=64, d_head=16, n_ctx=32),
    sparsity=SparsityConfig(density=0.08, anneal_start=0.0, anneal_end=0.3, floor=2, regrow_every=EVERY),
    optimizer=OptimizerConfig(lr=5e-2),
    batch_size=4,
    steps=22,
    dtype="float32",
    eval_every=50,
    eval_tokens=64,
    checkpoint_every=10,
    seed=3,
)


def with_sparsity(**fields):
    """HELD with other fields of its sparsity."""
    return dataclasses.replace(HELD, sparsity=dataclasses.replace(HELD.sparsity, **fields))


def small_tokens():
    """A corpus of functions."""
    text = "".join(f"def f{n}(x):\n    y = x + {n}\n    return y * {n % 7}\n" for n in range(600))
    ids = np.array(Tokenizer.default().encode(text), dtype=np.uint16)
    return TokenData(train=ids[:-1000], val=ids[-1000:], manifest={}, cached=False)


def stopped_at(step):
    """`_Run._take_step` that is killed before this step."""
    real = loop._Run._take_step

    def take_step(self, progress):
        if self.step == step:
            raise KeyboardInterrupt
        return real(self, progress)

    return take_step


def interrupted(config, step, out, tokens, monkeypatch, **more):
    """The model of a run that was killed before this step (or came to its end), and resumed."""
    with monkeypatch.context() as patched:
        patched.setattr(loop._Run, "_take_step", stopped_at(step))
        with pytest.raises(KeyboardInterrupt) if step < config.steps else contextlib.nullcontext():
            sc.train(config, out, tokens=tokens, **more)
    return sc.train(config, out, tokens=tokens, resume=True)


def assert_same(model, other):
    """Bit-equal weights."""
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def run_of(config, tokens, tmp_path, *, direct=True):
    run = loop._Run(config, tmp_path, tokens, Tokenizer.default(), torch.device("cpu"))
    if not direct:
        run.held.direct = False
    return run


def take(run, steps):
    """Take steps, and after each: (was it one with dense gradients, the supports)."""
    for _ in range(steps):
        run._take_step(run._progress())
        run.step += 1
        yield {name: m.detach() != 0 for name, m in sparse_matrices(run.model).items()}
