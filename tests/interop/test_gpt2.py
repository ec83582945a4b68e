"""GPT-2 directories as transformers writes them, read as our model."""

import json

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

import sparsecircuits as sc
from sparsecircuits.bridges.config import BridgeConfig
from sparsecircuits.bridges.storage import load_bridge
from sparsecircuits.bridges.training import train_bridge
from sparsecircuits.data import TokenData, Tokenizer
from sparsecircuits.errors import UserError
from sparsecircuits.interop.released import config_to_released
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.storage import content_hash, save_native
from sparsecircuits.models.transformer import SparseTransformer

SMALL = {"vocab_size": 2048, "n_positions": 24, "n_layer": 2, "n_embd": 12, "n_head": 3}


def written(folder, made=GPT2LMHeadModel, **fields):
    torch.manual_seed(0)
    model = made(GPT2Config(**{**SMALL, **fields})).eval()
    for parameter in model.parameters():  # biases and norms begin at 0 and 1, which would hide a mistake
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model


VARIANTS = {
    "as it is": {},
    "gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
    "narrow MLP": {"n_inner": 20},
    "untied": {"tie_word_embeddings": False},
}


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=list(VARIANTS))
def test_it_computes_what_transformers_computes(fields, tmp_path):
    theirs = written(tmp_path, **fields)
    ours = sc.load_model(tmp_path)
    ids = torch.randint(0, 2048, (3, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = theirs(ids).logits, ours(ids)
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_without_its_head_it_reads_out_by_its_embedding(tmp_path):
    theirs = written(tmp_path, GPT2Model)
    ours = sc.load_model(tmp_path)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        expected, found = theirs(ids).last_hidden_state @ theirs.wte.weight.T, ours(ids)
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_norm_epsilon", 1e-6),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("add_cross_attention", True),
        ("activation_function", "silu"),
        ("n_head", 5),
        ("n_head", "3"),
        ("n_embd", 0),
        ("n_layer", -1),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(key, value, tmp_path):
    written(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError, match=key.replace("n_layer", "layer")):
        sc.load_model(tmp_path)


def test_it_goes_on_as_our_format_and_not_as_the_released_one(tmp_path):
    written(tmp_path / "gpt2")
    ours = sc.load_model(tmp_path / "gpt2")
    save_native(ours, tmp_path / "native")
    assert content_hash(sc.load_model(tmp_path / "native")) == content_hash(ours)
    with pytest.raises(UserError, match="GELU by tanh"):
        config_to_released(ours.config)


def test_another_architecture_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match=r"'llama': read are 'sparsecircuits' and 'gpt2'"):
        sc.load_model(tmp_path)


def test_it_is_the_dense_side_of_a_bridge(tmp_path):
    written(tmp_path / "gpt2")
    Tokenizer.default().save(tmp_path / "gpt2" / "tokenizer.json")
    dense = sc.load_model(tmp_path / "gpt2")
    sparse = SparseTransformer(ModelConfig(n_ctx=16, n_layer=2, d_model=8, d_head=4, afrac=None))
    sparse.tokenizer = dense.tokenizer
    ids = torch.randint(0, 2048, (4096,), generator=torch.Generator().manual_seed(2)).numpy().astype("uint16")
    config = BridgeConfig(steps=2, batch_size=2, eval_tokens=128, fit_tokens=1024)
    train_bridge(dense, sparse, tmp_path / "bridge", TokenData.of(ids, ids), config, dense_path=str(tmp_path / "gpt2"))
    loaded = load_bridge(tmp_path / "bridge")
    assert loaded.dense.config.activation == "gelu_tanh"
    with torch.no_grad():
        whole = loaded.hybrid("dddddd")(torch.arange(16)[None])
        assert torch.equal(whole, dense(torch.arange(16)[None]))
