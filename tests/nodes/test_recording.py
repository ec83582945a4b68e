"""Recordings and head patterns, each against its definition."""

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.recording import head_pattern, recordings
from sparsecircuits.nodes.space import NodeSpace

SITES = ("0.mlp.post_act", "1.attn.q", "1.attn.k")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    vocabulary = Tokenizer.default().vocab_size
    config = ModelConfig(vocab_size=vocabulary, n_ctx=128, n_layer=2, d_model=16, d_head=4, d_mlp=32, sink=True)
    made = sc.SparseTransformer(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


@pytest.fixture(scope="module")
def batch():
    return sc.get_task("if_equals").batch("train", 40)  # more prompts than a pass has


def test_recordings_of_some_prompts_at_a_time_are_those_of_all_at_once(model, batch):
    with torch.no_grad(), sc.record(model, SITES) as whole:
        model(torch.from_numpy(batch.tokens))
    row = 0
    for chunk, seen in recordings(model, batch, SITES):
        rows = batch.tokens[row : row + len(chunk.last), : chunk.tokens.shape[1]]
        assert (chunk.tokens == rows).all()
        for site in SITES:
            wanted = whole[site][row : row + len(chunk.last), : chunk.tokens.shape[1]]
            torch.testing.assert_close(seen[site][chunk.real], wanted[chunk.real], atol=1e-5, rtol=1e-4)
        row += len(chunk.last)
    assert row == len(batch.last) > 64


def test_a_gating_acts_in_every_pass_and_no_site_is_no_pass(model, batch):
    space = NodeSpace.of(model.config)
    nothing = Gating(space, torch.zeros(space.size), torch.full((space.size,), 0.25))
    passes = [seen for _, seen in recordings(model, batch, SITES, nothing)]
    assert len(passes) == 2
    assert all((x == 0.25).all() for seen in passes for x in seen.values())
    assert not list(recordings(model, batch, ()))


def test_a_head_s_pattern_is_the_softmax_of_its_queries_and_keys_beside_its_sink(model, batch):
    _, seen = next(recordings(model, batch, SITES))
    q, k = (seen[f"1.attn.{letter}"][..., 4:8] for letter in "qk")
    scores = q @ k.mT / 2  # the square root of the head's width
    scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
    sink = model.block(1).attn.sink_logit[1].detach().expand(*scores.shape[:-1], 1)
    wanted = torch.cat([scores, sink], dim=-1).softmax(dim=-1)[..., :-1]
    torch.testing.assert_close(head_pattern(model, seen, 1, 1), wanted, atol=1e-5, rtol=1e-4)
