"""Models that are sparse before their first step."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.errors import UserError
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.transformer import SparseTransformer, sparse_matrices
from sparsecircuits.sparsity.projection import budget, erdos_renyi, targets
from sparsecircuits.sparsity.schedules import SparsityConfig, density_at
from sparsecircuits.sparsity.start import start_sparse_

TINY = ModelConfig(vocab_size=40, n_ctx=16, n_layer=1, d_model=32, d_head=8)


@given(
    st.sampled_from([8, 24, 32]),
    st.floats(0.15, 0.9),
    st.integers(0, 2),
    st.sampled_from(["uniform", "erk"]),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_budget_and_floor_hold_at_the_start(width, density, floor, start, data):
    model = SparseTransformer(dataclasses.replace(TINY, d_model=width))
    embeddings = data.draw(st.none() | st.floats(0.1, 0.9))
    config = SparsityConfig(
        density=density, embed_density=embeddings, floor=min(floor, int(density * width)), start=start
    )
    try:
        goals = targets(model, config)
    except UserError:
        return  # a floor that an uneven share cannot hold
    start_sparse_(model, config)
    matrices = sparse_matrices(model)
    for target in goals:
        matrix = matrices[target.name]
        assert int(matrix.count_nonzero()) == budget(matrix, target.density)
        assert int(matrix.count_nonzero(dim=target.dim).min()) >= target.floor


@pytest.mark.parametrize("start", ["uniform", "erk"])
def test_outputs_keep_their_variance_and_places_are_random(start):
    dense, sparse = (SparseTransformer(dataclasses.replace(TINY, d_model=256, n_layer=2)) for _ in range(2))
    start_sparse_(sparse, SparsityConfig(density=0.05, start=start))
    x = torch.randn(2000, 256)
    for one, other in zip(dense.blocks, sparse.blocks, strict=True):
        for layer, thin in ((one.mlp.c_fc, other.mlp.c_fc), (one.attn.c_attn, other.attn.c_attn)):
            assert thin(x).std().item() == pytest.approx(layer(x).std().item(), rel=0.1)
    first, second = (block.mlp.c_fc.weight != 0 for block in sparse.blocks)
    assert not torch.equal(first, second)


def test_a_dense_start_changes_nothing():
    model = SparseTransformer(TINY)
    before = model.wte.weight.clone()
    start_sparse_(model, SparsityConfig(density=0.2))
    start_sparse_(model, SparsityConfig(density=1.0, start="uniform"))
    assert torch.equal(model.wte.weight, before)


def test_erdos_renyi_shares_one_budget_and_fills_no_matrix_twice():
    shapes = {"wide": (100, 400), "square": (100, 100), "tiny": (2, 3), "other": (50, 50)}
    asked = {"wide": 0.02, "square": 0.02, "tiny": 0.02, "other": 0.5}
    found = erdos_renyi(shapes, asked)
    assert found["other"] == pytest.approx(0.5)
    assert found["tiny"] == 1.0
    assert found["square"] / found["wide"] == pytest.approx((200 / 1e4) / (500 / 4e4))
    kept = sum(found[n] * math.prod(shapes[n]) for n in ("wide", "square", "tiny"))
    assert kept == pytest.approx(0.02 * (40_000 + 10_000 + 6))


def test_the_schedule_of_a_sparse_start_is_flat():
    config = SparsityConfig(density=0.1, start="uniform")
    assert {density_at(p / 10, 0.1, config) for p in range(11)} == {0.1}


def test_gates_begin_dense():
    with pytest.raises(UserError, match=r"sparsity\.start uniform is for sparsity\.sparsifier topk"):
        SparsityConfig(sparsifier="hard_concrete", start="uniform")
