"""The compact forward pass against gates set by hooks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from randommodels import configs, random_model
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.nodes import compact_forward
from sparsecircuits.nodes.compact_forward import CompactForward, narrowing_of
from sparsecircuits.nodes.edges import EdgeGates, edges_between
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.task_loss import all_candidate_logits
from sparsecircuits.tasks import PairBatch


def random_batch(generator: np.random.Generator, pairs: int, config: ModelConfig) -> PairBatch:
    last = generator.integers(0, config.n_ctx, 2 * pairs)
    tokens = generator.integers(0, config.vocab_size, (2 * pairs, int(last.max()) + 1))
    tokens[np.arange(tokens.shape[1]) > last[:, None]] = 0
    return PairBatch(tokens, last, np.tile([0, 1], pairs), (3, 7))


def by_hooks(model, space, frozen, kept, removed, batch):
    gating = Gating(space, kept.float(), frozen)
    if removed is not None:
        gating = replace(gating, edges=EdgeGates(removed, torch.zeros(len(removed))))
    return all_candidate_logits(model, batch, gating)


@settings(max_examples=40, deadline=None)
@given(
    configs(ours=True), st.integers(0, 2**31), st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.5]), st.integers(0, 3),
    st.sampled_from([0, 10**9]),
)  # fmt: skip
def test_same_logits_as_hooks(config, seed, share, cut, silent, few):
    """silent: how many of the last layers' attentions write constants only. few: whether streams are narrow wherever
    the model lets them be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compact_forward, "FEW", few)
        agrees_with_hooks(config, seed, share, cut, silent)


def agrees_with_hooks(config, seed, share, cut, silent):
    model, space = random_model(config, seed), NodeSpace.of(config)
    generator = torch.Generator().manual_seed(seed)
    frozen = torch.randn(space.size, generator=generator)
    batch = random_batch(np.random.default_rng(seed), 40, config)
    forward = CompactForward(model, batch, narrowing_of(model, frozen))
    kept = torch.rand(space.size, generator=generator) < share
    for layer in range(max(0, config.n_layer - silent), config.n_layer):
        kept[space.slices[f"{layer}.attn.resid_delta"]] = False
    for _ in range(4):  # sets that share a beginning, so that remembered results are used
        edges = edges_between(model, space, kept)
        removed = edges[torch.rand(len(edges), generator=generator) < cut] if cut else None
        expected = by_hooks(model, space, frozen, kept, removed, batch)
        apart = ~torch.isclose(forward(kept, removed), expected, atol=2e-4, rtol=2e-4).all(dim=1)
        # Of 80 prompts one may have two magnitudes at a threshold of AbsTopK that only rounding tells apart.
        assert apart.sum() <= 1
        node = int(torch.randint(space.size, (), generator=generator))
        kept = kept.clone()
        kept[node] = ~kept[node]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_kept_and_everything_kept(share):
    config = ModelConfig(vocab_size=40, n_ctx=12, n_layer=2, d_model=16, d_head=4)
    model, space = random_model(config, 1), NodeSpace.of(config)
    batch, kept = random_batch(np.random.default_rng(0), 4, config), torch.full((space.size,), share > 0)
    logits = CompactForward(model, batch, narrowing_of(model, torch.randn(space.size)))(kept)
    if share:
        torch.testing.assert_close(logits, all_candidate_logits(model, batch), atol=1e-4, rtol=1e-4)
    else:  # only the bigram table and the constants are left
        rows = torch.arange(len(batch.last))
        last = torch.from_numpy(batch.tokens)[rows, torch.from_numpy(batch.last)]
        assert model.bigram is not None
        rest = logits - model.bigram.weight.detach()[last][:, [3, 7]]
        torch.testing.assert_close(rest, rest[:1].expand_as(rest), atol=1e-5, rtol=1e-5)
