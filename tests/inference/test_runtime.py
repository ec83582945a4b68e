"""The runtime is the model: every option of the architecture, every way to run it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from randommodels import configs, random_model
from sparsecircuits.errors import UserError
from sparsecircuits.inference.runtime import SparseRuntime, compile_sparse
from sparsecircuits.models.config import ABSTOPK_SITES, ModelConfig
from sparsecircuits.models.transformer import KVCache, SparseTransformer

SMALL = ModelConfig(vocab_size=50, n_ctx=96, n_layer=3, d_model=32, d_head=8, sink=True)


def ids_of(config: ModelConfig, batch: int, length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (batch, length), generator=generator)


def decoded(runtime: SparseRuntime, ids: torch.Tensor, prompt: int) -> torch.Tensor:
    """Logits [B, T - prompt + 1, V] from the prompt's last token on, a token at a time."""
    cache = runtime.empty_cache(len(ids))
    last = torch.full((len(ids),), prompt - 1)
    found = [runtime.last_logits(ids[:, :prompt], last, cache)]
    found += [runtime.step(column, cache) for column in ids[:, prompt:].unbind(dim=1)]
    return torch.stack(found, dim=1)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() < 1e-4 * max(1.0, float(b.abs().max())))


@torch.no_grad()
def agrees(model: SparseTransformer, ids: torch.Tensor) -> None:
    expected = model(ids)
    runtime = compile_sparse(model)
    assert close(runtime(ids), expected)
    for prompt in {1, ids.shape[1] // 2 or 1}:
        assert close(decoded(runtime, ids, prompt), expected[:, prompt - 1 :])


@given(config=configs(ours=True), seed=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_any_mix_of_options(config, seed):
    agrees(random_model(config, seed), ids_of(config, 2, 12, seed))


OPTIONS = [
    {"norm": "layer"}, {"norm": "layer", "norm_bias": False}, {"activation": "relu"}, {"residual_activation": "relu"},
    {"bias": False}, {"positions": "added"}, {"positions": "concat", "d_pos_emb": 5},
    {"positions": "concat_sinusoidal", "d_pos_emb": 4},
    {"positions": "concat", "d_pos_emb": 5, "position_norm": "layer"}, {"sink": False}, {"bigram": "none"},
    {"bigram": "frozen"}, {"tied_unembed": True}, {"afrac": None}, {"afrac": 1.0}, {"afrac": 0.01},
    {"abstopk": tuple(ABSTOPK_SITES)}, {"abstopk": ("resid_post_attn", "resid_post_mlp")}, {"d_mlp": 7},
    {"n_head": 3, "d_head": 5}, {"d_model": 33, "d_head": 11}, {"vocab_size": 1},
    {"offsets": 1}, {"offsets": 7}, {"offsets": 40, "sink": False},
    {"frozen_nodes": True}, {"frozen_nodes": True, "sink": False, "offsets": 3},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_option(options):
    config = replace(SMALL, **options)
    agrees(random_model(config, 1), ids_of(config, 3, 20))


@pytest.mark.parametrize(("batch", "frozen"), [(1, False), (2, False), (7, False), (64, False), (3, True)])
def test_batches_of_prompts_of_any_lengths(batch, frozen):
    """Prompts of unequal lengths stand in one batch with padding after them; each goes on from its own end."""
    model = random_model(replace(SMALL, frozen_nodes=frozen))
    runtime = compile_sparse(model)
    ids, more = ids_of(SMALL, batch, 30), ids_of(SMALL, batch, 5, seed=1)
    lengths = torch.randint(1, 31, (batch,), generator=torch.Generator().manual_seed(2))
    cache = runtime.empty_cache(batch)
    found = [runtime.last_logits(ids, lengths - 1, cache)]
    found += [runtime.step(column, cache) for column in more.unbind(dim=1)]
    for b, length in enumerate(lengths.tolist()):
        alone = torch.cat((ids[b, :length], more[b]))[None]
        with torch.no_grad():
            expected = model(alone)[0, length - 1 :]
        assert close(torch.stack([logits[b] for logits in found]), expected)


def test_a_matrix_without_nonzeros_empty_rows_and_columns():
    model = random_model(SMALL)
    with torch.no_grad():
        model.block(0).attn.c_attn.weight.zero_()
        model.block(1).mlp.c_fc.weight.zero_()
        model.block(1).mlp.c_fc.bias.zero_()
        model.block(2).attn.c_proj.weight[::2] = 0
        model.block(2).mlp.c_proj.weight[:, ::2] = 0
        model.wte.weight[3] = 0
    agrees(model, torch.cat((torch.full((2, 1), 3), ids_of(SMALL, 2, 15)), dim=1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    agrees(model, ids_of(SMALL, 1, 9))


def test_it_goes_on_to_the_end_of_the_context_and_no_further():
    model = random_model(SMALL)
    ids = ids_of(SMALL, 1, SMALL.n_ctx)
    agrees(model, ids)
    runtime = compile_sparse(model)
    cache = runtime.empty_cache()
    runtime(ids, cache)
    with pytest.raises(UserError, match="do not fit"):
        runtime.step(ids[:, 0], cache)
    with pytest.raises(UserError, match="outside"):
        runtime.step(torch.tensor([50]), runtime.empty_cache())
    with pytest.raises(UserError, match="cannot go on"):
        runtime.step(torch.tensor([1, 2]), runtime.empty_cache())


def test_threads_change_nothing():
    model, ids = random_model(SMALL), ids_of(SMALL, 5, 12)
    one, two = (decoded(compile_sparse(model, threads=n), ids, 4) for n in (1, 2))
    assert torch.equal(one, two)
    with pytest.raises(UserError, match="threads"):
        compile_sparse(model, threads=0)


@torch.no_grad()
def test_bfloat16_is_the_model_with_rounded_matrices():
    config = replace(SMALL, positions="concat", d_pos_emb=5)
    model, ids = random_model(config), ids_of(config, 2, 16)
    runtime = compile_sparse(model, dtype="bfloat16")
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and not name.startswith(("bigram", "wpe")):
            parameter.copy_(parameter.bfloat16().float())
    assert close(runtime(ids), model(ids))
    assert close(decoded(runtime, ids, 5), model(ids)[:, 4:])


def test_matrices_too_tall_for_short_indices():
    config = ModelConfig(vocab_size=9, n_ctx=8, n_layer=1, d_model=4, d_head=2, d_mlp=70_000)
    model = SparseTransformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_().mul_(torch.rand_like(parameter) > 0.5)
    runtime = compile_sparse(model)
    assert runtime._decoder.packed.rows.dtype == np.uint32
    agrees(model, ids_of(config, 1, 8))


@torch.no_grad()
def test_the_model_is_what_it_was_when_it_was_compiled():
    model, ids = random_model(SMALL), ids_of(SMALL, 1, 6)
    runtime, before = compile_sparse(model), model(ids)
    model.logit_bias += 1
    model.block(0).mlp.c_fc.weight.zero_()
    assert close(runtime(ids), before)


@torch.no_grad()
def test_a_cache_of_the_model_and_one_of_the_runtime_see_the_same():
    model, ids = random_model(SMALL), ids_of(SMALL, 2, 9)
    runtime, cache, other = compile_sparse(model), KVCache.empty(SMALL.n_layer), None
    other = runtime.empty_cache(2)
    for part in (ids[:, :4], ids[:, 4:7], ids[:, 7:]):
        last = torch.full((2,), part.shape[1] - 1)
        assert close(runtime.last_logits(part, last, other), model.last_logits(part, last, cache))
