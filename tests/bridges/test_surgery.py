"""Surgery: what is folded and what is gated computes what hooks would."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from randommodels import configs, random_model
from sparsecircuits.bridges.folding import switch_off
from sparsecircuits.bridges.surgery import Operation
from sparsecircuits.nodes.edges import edges_between
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.tasks import PairBatch


def gated_logits(model, planned, ids):
    batch = PairBatch(ids.numpy(), np.full(len(ids), ids.shape[1] - 1), np.tile([0, 1], len(ids) // 2), (3, 7))
    with torch.no_grad(), planned.gating(model).over(model, batch):
        return model(ids)


@settings(max_examples=40, deadline=None)
@given(configs(ours=True), st.integers(0, 2**31), st.floats(0, 1), st.sampled_from([0.0, 0.3]))
def test_an_edited_model_equals_the_gated_one(config, seed, share, cut):
    model, space = random_model(config, seed), NodeSpace.of(config)
    generator = torch.Generator().manual_seed(seed)
    frozen = torch.randn(space.size, generator=generator)
    off = torch.rand(space.size, generator=generator) < share
    between = edges_between(model, space, ~off)
    removed = between[torch.rand(len(between), generator=generator) < cut] if cut else None
    ids = torch.randint(config.vocab_size, (4, config.n_ctx), generator=generator)
    before = model(ids)
    folded = switch_off(model, off, frozen, removed)
    expected = gated_logits(model, Operation(off, frozen, removed), ids)
    torch.testing.assert_close(folded.model(ids), expected, atol=2e-4, rtol=2e-4)
    assert torch.equal(model(ids), before)
    assert folded.at_readers + folded.at_source + folded.gated == int(off.sum())
    assert folded.edges == (0 if removed is None else len(removed))
    assert folded.model.config.frozen_nodes == (config.frozen_nodes or folded.gated > 0)
