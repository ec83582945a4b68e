"""The architecture's options, initialisation, and what bad input gets."""

import dataclasses

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.kernels import attention_pattern
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.generation import stream
from sparsecircuits.models.transformer import KVCache, SparseTransformer, count_parameters

BASE = ModelConfig(vocab_size=40, n_ctx=16, n_layer=2, d_model=32, d_head=8)
OPTIONS = {
    "plain": {},
    "dense": {"afrac": None},
    "sink": {"sink": True},
    "offsets": {"offsets": 3},
    "added positions": {"positions": "added"},
    "concatenated positions": {"positions": "concat", "d_pos_emb": 8},
    "sinusoids": {"positions": "concat_sinusoidal", "d_pos_emb": 8},
    "layer norm": {"norm": "layer", "norm_bias": False},
    "relu": {"activation": "relu", "residual_activation": "relu"},
    "residual sites": {"abstopk": ("resid_post_attn", "resid_post_mlp")},
    "tied": {"tied_unembed": True},
    "no bigram, no bias": {"bigram": "none", "bias": False},
    "frozen bigram": {"bigram": "frozen"},
}


@pytest.fixture(params=OPTIONS)
def model(request):
    torch.manual_seed(0)
    model = SparseTransformer(dataclasses.replace(BASE, **OPTIONS[request.param]))
    for name, parameter in model.named_parameters():  # no gentle start: let differences show
        if name.endswith("offset_logit"):
            parameter.data.normal_()
        elif parameter.dim() == 2:
            parameter.data.mul_(10)
    return model.eval()


def test_is_causal_and_learns(model):
    ids = torch.randint(0, 40, (3, 10))
    logits = model(ids)
    changed = ids.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 40
    torch.testing.assert_close(model(changed)[:, :7], logits[:, :7])
    logits.logsumexp(-1).sum().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_cache_equals_full_pass(model):
    ids, cache = torch.randint(0, 40, (2, 12)), KVCache.empty(2)
    with torch.no_grad():
        parts = [model(ids[:, a:b], cache) for a, b in ((0, 5), (5, 6), (6, 12))]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), atol=1e-5, rtol=1e-4)


def test_config_survives_json(model):
    assert ModelConfig.from_dict(model.config.to_dict()) == model.config


def test_counts_of_the_papers_shape():
    with torch.device("meta"):
        model = SparseTransformer(ModelConfig(bigram="none"))
    per_layer = 4 * 2048 * 2048 + 8 * 2048 * 2048
    assert sum(p.numel() for p in model.parameters() if p.dim() == 2) == 8 * per_layer + 2 * 2048 * 2048


def test_initialisation():
    torch.manual_seed(0)
    model = SparseTransformer(dataclasses.replace(BASE, d_model=128, vocab_size=500))
    block = model.block(0)
    assert block.mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.mlp.c_proj.weight.std().item() == pytest.approx(0.01, rel=0.05)  # 0.02 / sqrt(2 * 2)
    assert not block.mlp.c_fc.bias.any()
    assert 0 <= model.bigram.weight.min() <= model.bigram.weight.max() <= 0.02
    assert count_parameters(model)[0] == count_parameters(model)[1]


def test_sink_takes_attention_away():
    q, k = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    plain = attention_pattern(q, k)
    torch.testing.assert_close(plain.sum(-1), torch.ones(1, 2, 5))
    sunk = attention_pattern(q, k, torch.tensor([0.0, 30.0]))
    assert (sunk[:, 0].sum(-1) < 1).all()
    assert (sunk[:, 1].sum(-1) < 1e-6).all()


@pytest.mark.no_shapecheck
def test_bad_input_is_told_in_a_line():
    model = SparseTransformer(BASE)
    with pytest.raises(sc.UserError, match="17 tokens do not fit the model's context of 16"):
        model(torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(sc.UserError, match=r"outside 0\.\.39"):
        model(torch.tensor([[40]]))
    for ids, kind in (([[1, 2]], "list"), (torch.ones(1, 2).short(), "torch.int16"), (torch.ones(1, 2), "float32")):
        for use in (model, lambda ids: model.loss(ids, ids), lambda ids: next(stream(model, ids, 1))):
            with pytest.raises(sc.UserError, match=f"a tensor of int64 or int32, got .*{kind}"):
                use(ids)
    assert torch.equal(model(torch.tensor([[1, 2]]).int()), model(torch.tensor([[1, 2]])))
    with pytest.raises(sc.UserError, match="batch, sequence"):
        model(torch.tensor([1, 2]))
    for fields, words in (
        ({"d_model": 33}, "no multiple of d_head"),
        ({"afrac": 0.0}, "afrac"),
        ({"positions": "concat"}, "needs d_pos_emb"),
        ({"abstopk": ("attn_y",)}, "attn_y"),
        ({"positions": "concat", "d_pos_emb": -2}, "needs d_pos_emb"),
        ({"n_layer": 0}, "n_layer"),
        ({"n_head": 0}, "n_head must be at least 1"),
        ({"d_mlp": -4}, "d_mlp must be at least 1"),
    ):
        with pytest.raises(sc.UserError, match=words):
            dataclasses.replace(BASE, **fields)
    with pytest.raises(sc.UserError, match="unknown key 'width'"):
        ModelConfig.from_dict({"width": 3})
    with pytest.raises(sc.UserError, match="n_layer has the value '2'"):
        ModelConfig.from_dict({"n_layer": "2"})


def test_float64_computes_what_float32_does(model):
    """RMSNorm's epsilon is a number, not the type's: logits of small activations once differed by 0.7."""
    with torch.no_grad():
        model.wte.weight.mul_(1e-5)
        ids = torch.randint(0, 40, (3, 10))
        single, double = model(ids), model.double()(ids)
    assert double.dtype == torch.float64
    torch.testing.assert_close(single, double.float(), atol=2e-3, rtol=1e-3)


def test_generation_goes_on_beyond_the_context():
    torch.manual_seed(0)
    model = SparseTransformer(BASE).eval()
    prompt = torch.randint(0, 40, (2, 5))
    greedy = torch.stack(list(stream(model, prompt, 30)), dim=1)
    assert greedy.shape == (2, 30)
    ids = prompt
    with torch.no_grad():
        for _ in range(11):  # as long as everything fits, the cache changes nothing
            ids = torch.cat((ids, model(ids)[:, -1].argmax(-1, keepdim=True)), dim=1)
    assert torch.equal(greedy[:, :11], ids[:, 5:])
    sampled = [torch.stack(list(stream(model, prompt, 8, temperature=1.0, top_k=5, seed=s)), 1) for s in (1, 1, 2)]
    assert torch.equal(sampled[0], sampled[1])
    assert not torch.equal(sampled[0], sampled[2])
