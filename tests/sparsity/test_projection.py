"""After the projection each matrix of a model has exactly its budget, floors included."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.errors import UserError
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.transformer import SparseTransformer, sparse_matrices
from sparsecircuits.sparsity.projection import Projector, budget, targets
from sparsecircuits.sparsity.schedules import SparsityConfig, density_at

TINY = ModelConfig(vocab_size=40, n_ctx=16, n_layer=1, d_model=32, d_head=8)


def check(model: SparseTransformer, config: SparsityConfig, progress: float) -> None:
    matrices = sparse_matrices(model)
    for target in targets(model, config):
        matrix = matrices[target.name]
        assert int(matrix.count_nonzero()) == budget(matrix, density_at(progress, target.density, config))
        assert int(matrix.count_nonzero(dim=target.dim).min()) >= target.floor


@given(st.sampled_from([8, 24, 32]), st.floats(0.15, 0.9), st.integers(0, 4), st.floats(0, 1), st.booleans())
@settings(max_examples=40, deadline=None)
def test_budget_and_floor_over_shapes_densities_and_time(width, density, floor, progress, log):
    model = SparseTransformer(dataclasses.replace(TINY, d_model=width))
    shape = "log" if log else "linear"
    config = SparsityConfig(density=density, floor=min(floor, int(density * width)), anneal=shape)
    Projector(model, config)(progress)
    check(model, config, progress)


def test_embedding_density_is_its_own():
    model = SparseTransformer(TINY)
    config = SparsityConfig(density=0.2, embed_density=0.5, floor=1)
    Projector(model, config)(1.0)
    assert int(model.wte.weight.count_nonzero()) == int(0.5 * 40 * 32)
    assert int(model.block(0).mlp.c_fc.weight.count_nonzero()) == int(0.2 * 128 * 32)


def test_units_are_outputs_of_c_fc_and_inputs_of_c_proj():
    dims = {target.name: target.dim for target in targets(SparseTransformer(TINY), SparsityConfig(density=0.5))}
    assert dims["blocks.0.attn.c_attn.weight"] == dims["blocks.0.mlp.c_fc.weight"] == 1
    assert dims["blocks.0.attn.c_proj.weight"] == dims["blocks.0.mlp.c_proj.weight"] == 0


def test_bigram_and_biases_stay_dense_unless_asked():
    model = SparseTransformer(TINY)
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
    Projector(model, SparsityConfig(density=0.25))(1.0)
    assert model.bigram.weight.all()
    assert model.logit_bias.all()
    Projector(model, SparsityConfig(density=0.25, sparse_biases=True))(1.0)
    assert int(model.logit_bias.count_nonzero()) == 10
    assert model.bigram.weight.all()


def test_a_floor_that_does_not_fit_is_refused_with_a_way_out():
    with pytest.raises(UserError, match=r"raise sparsity.density to 0\.125 or lower sparsity.floor"):
        Projector(SparseTransformer(TINY), SparsityConfig(density=0.02, floor=4))


def test_dense_leaves_everything():
    model = SparseTransformer(TINY)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Projector(model, SparsityConfig(density=1.0))(1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
