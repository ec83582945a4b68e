"""Narrow passes: the last layer at one position of each sequence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsecircuits as sc
from randommodels import bits, configs, random_model
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.transformer import rows_at
from sparsecircuits.nodes.edges import EdgeGates, edges_between
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.narrow import is_narrow, logits_at, narrowed
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.task_loss import candidate_logits
from sparsecircuits.tasks import PairBatch


def some_prompts(config: ModelConfig, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randint(high, size, generator=generator) for high, size in ((config.vocab_size, (6, 9)), (9, (6,)))
    )


@settings(max_examples=40, deadline=None)
@given(configs(), st.integers(0, 2**31))
def test_it_changes_nothing_at_the_last_position(config, seed):
    """Neither logits nor what hooks see, at the positions where `narrowed` says that they see it."""
    model, (tokens, last) = random_model(config, seed), some_prompts(config, seed)
    with torch.no_grad(), sc.record(model) as seen:
        narrow = logits_at(model, tokens, last, narrow=True)
    with torch.no_grad(), sc.record(model) as full:
        wide = logits_at(model, tokens, last, narrow=False)
        assert torch.equal(wide, model.last_logits(tokens, last))
        torch.testing.assert_close(wide, rows_at(model(tokens), last)[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(narrow, wide, atol=1e-4, rtol=1e-4)
    expected = narrowed(full, config.n_layer, last)
    assert set(seen) == set(expected)
    for name, value in seen.items():
        assert value.shape == expected[name].shape, name
        assert value.shape[1] == (1 if is_narrow(name, config.n_layer) else 9), name
    final = config.n_layer - 1
    assert not is_narrow(f"{final}.attn.k", config.n_layer)
    assert is_narrow(f"{final}.attn.q", config.n_layer)
    for name in (f"{final}.{site}" for site in ("resid_in", "attn.act_in", "attn.k", "attn.v")):
        assert torch.equal(bits(seen[name]), bits(full[name])), name  # before the pass is narrow: the same numbers


def test_it_goes_on_from_a_stream_that_is_at_hand():
    """Stopping at any boundary before the last layer, as whoever keeps a common beginning does."""
    config = ModelConfig(vocab_size=40, n_ctx=12, n_layer=3, d_model=16, d_head=4, positions="concat", d_pos_emb=5)
    model, (tokens, last) = random_model(config), some_prompts(config, 0)
    with torch.no_grad():
        whole = logits_at(model, tokens, last, narrow=True)
        x, positions = model.embed(tokens)
        for stop in range(5):
            stream = model.between(model.between(x, 0, stop, positions), stop, 4, positions)
            stream = model.block(2).attention_half_at(stream, last, positions)
            stream = model.block(2).mlp_half(stream, positions[last].unsqueeze(1))
            assert torch.equal(bits(model.read_out(stream, rows_at(tokens, last))[:, 0]), bits(whole)), stop


@pytest.mark.parametrize("ablation", ["mean", "zero", "resample"])
@settings(max_examples=10, deadline=None)
@given(configs(), st.integers(0, 2**31))
def test_gates_act_as_in_a_pass_of_all_positions(ablation, config, seed):
    model, space, (tokens, last) = random_model(config, seed), NodeSpace.of(config), some_prompts(config, seed)
    batch = PairBatch(tokens.numpy(), last.numpy(), last.numpy() % 2, (3, 7))
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(space.size, generator=generator) < 0.7
    edges = edges_between(model, space, kept)
    gates = EdgeGates(edges, (torch.rand(len(edges), generator=generator) < 0.8).float())
    gating = Gating(space, kept.float(), torch.randn(space.size, generator=generator), ablation, gates)
    with torch.no_grad():
        narrow, wide = (candidate_logits(model, batch, gating, narrow=narrow) for narrow in (True, False))
    torch.testing.assert_close(narrow, wide, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("gated_narrowly", [False, True])
def test_gates_of_the_other_kind_of_pass_are_refused(gated_narrowly):
    config = ModelConfig(vocab_size=40, n_ctx=12, n_layer=2, d_model=16, d_head=4)
    model, space, (tokens, last) = random_model(config), NodeSpace.of(config), some_prompts(config, 0)
    batch = PairBatch(tokens.numpy(), last.numpy(), last.numpy() % 2, (3, 7))
    gating = Gating(space, torch.ones(space.size), torch.zeros(space.size), "resample")
    with (
        torch.no_grad(),
        gating.over(model, batch, narrow=gated_narrowly),
        pytest.raises(ValueError, match="cannot stand for"),
    ):
        logits_at(model, tokens, last, narrow=not gated_narrowly)
