"""HardConcrete gates: their distribution, and that a trained model ends near its target."""

import dataclasses

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer, prepare_tokens
from sparsecircuits.errors import UserError
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.transformer import SparseTransformer, count_parameters
from sparsecircuits.sparsity.hard_concrete import HardConcrete, open_probability, sample_gate, settled_gate
from sparsecircuits.sparsity.schedules import SparsityConfig
from sparsecircuits.training.config import OptimizerConfig, TrainConfig

MODEL = ModelConfig(n_ctx=32, n_layer=1, d_model=32, d_head=8)
GATED = SparsityConfig(density=0.1, sparsifier="hard_concrete", l0_coef=100.0)


@pytest.mark.parametrize("log_alpha", [-3.0, 0.0, 2.0])
def test_gates_are_open_as_often_as_the_penalty_thinks(log_alpha):
    alpha = torch.full((200_000,), log_alpha)
    share = (sample_gate(alpha, torch.Generator().manual_seed(0)) > 0).float().mean().item()
    assert share == pytest.approx(open_probability(alpha)[0].item(), abs=0.005)


def test_gates_close_exactly_and_open_exactly():
    assert settled_gate(torch.tensor([-5.0, 5.0])).tolist() == [0.0, 1.0]


def test_gradients_reach_free_weights_and_gates_as_by_the_chain_rule():
    torch.manual_seed(0)
    model = SparseTransformer(MODEL)
    gates = HardConcrete(model, dataclasses.replace(GATED, density=1.0))  # no penalty
    gates.prepare(seed=3)
    ids = torch.arange(64).view(2, 32)
    model.loss(ids, ids).backward()
    name = "blocks.0.mlp.c_fc.weight"
    upstream, place = gates.matrices[name].grad.clone(), list(gates.matrices).index(name)
    free, gate = gates.free[place], sample_gate_again(gates, place, seed=3)
    gates.collect()
    torch.testing.assert_close(free.grad, upstream * gate)
    assert gates.log_alpha[place].grad.abs().sum() > 0
    assert gates.matrices[name].grad is None


def sample_gate_again(gates, place, seed):
    generator = torch.Generator().manual_seed(seed)
    return [sample_gate(alpha.detach(), generator) for alpha in gates.log_alpha][place]


def test_training_ends_near_its_target_and_resumes_to_the_bit(corpus, tmp_path):
    tokens = prepare_tokens(str(corpus), Tokenizer.default())
    config = TrainConfig(
        model=MODEL, sparsity=GATED, optimizer=OptimizerConfig(lr=0.05, eps=1e-2), batch_size=4, steps=200,
        dtype="float32", checkpoint_every=100, eval_tokens=2048,
    )  # fmt: skip
    seen = []
    model = sc.train(config, tmp_path / "run", tokens=tokens, report=lambda status: seen.append(status.density))
    assert seen[0] > 0.85
    assert seen[-1] == pytest.approx(0.1, abs=0.03)  # expected share of open gates
    whole, nonzero = count_parameters(model)
    assert 0 < nonzero / whole < 0.12
    for path in (tmp_path / "run" / "checkpoints").glob("*200*"):
        path.unlink()
    again = sc.train(config, tmp_path / "run", tokens=tokens, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_what_does_not_go_together_is_refused():
    with pytest.raises(UserError, match="one density"):
        dataclasses.replace(GATED, embed_density=0.5)
    with pytest.raises(UserError, match="l0_coef"):
        dataclasses.replace(GATED, l0_coef=0.0)


def test_the_released_recipe_follows_the_width():
    config = TrainConfig(model=ModelConfig(d_model=1024), sparsity=SparsityConfig(pfrac=0.25), steps=1)
    assert (config.sparsity.density, config.sparsity.embed_density) == (0.25 / 16, 0.25 / 4)
    assert TrainConfig.from_dict(config.to_dict()) == config
