"""Our models in TransformerLens: the same logits, and hooks that see and change what `record` and `intervene` do."""

import tomllib
from pathlib import Path

import pytest
import torch

import sparsecircuits as sc
from randommodels import random_model
from sparsecircuits.data import Tokenizer

ROOT = Path(__file__).parents[2]
ENTRY = "sparsecircuits.interop.transformer_lens:SparseCircuitsAdapter"

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.no_shapecheck,
]


def test_the_entry_point_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["transformer_lens.architectures"] == {"SparseCircuitsForCausalLM": ENTRY}


@pytest.fixture(scope="module")
def lens():
    pytest.importorskip("transformer_lens", reason="needs pip install 'sparsecircuits[lens]'")
    from sparsecircuits.interop import transformer_lens

    return transformer_lens


CONFIGS = {
    "sinks, positions beside": {"sink": True, "positions": "concat_sinusoidal", "d_pos_emb": 4, "bigram": "learned"},
    "plain, two norms": {"afrac": None, "norm": "layer", "positions": "added"},
    "offsets, relu": {"sink": True, "offsets": 3, "activation": "relu"},
}


def made(name):
    shape = {"vocab_size": 2048, "n_ctx": 16, "n_layer": 2, "d_model": 16, "d_head": 4}
    model = random_model(sc.ModelConfig(**shape, **CONFIGS[name]), 3)
    model.tokenizer = Tokenizer.default()
    return model


def some_ids():
    return torch.randint(0, 2048, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CONFIGS)
def test_it_computes_the_same_and_the_cache_has_what_record_sees(lens, name):
    model, ids = made(name), some_ids()
    bridge = lens.to_transformer_lens(model)
    with torch.no_grad(), sc.record(model) as seen:
        expected = model(ids)
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(ids)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    nodes = [site for site in seen if not site.endswith((".y", "resid_in", "resid_mid", "resid_out"))]
    assert len(nodes) == 17
    for site in nodes:
        there = cache[f"{'' if site == 'final_resid' else 'blocks.'}{site}.hook_out"]
        torch.testing.assert_close(there.reshape(seen[site].shape), seen[site], atol=1e-4, rtol=1e-4)
    for theirs, ours in {
        "blocks.1.attn.hook_q": "1.attn.q",
        "blocks.1.attn.hook_z": "1.attn.y",
        "blocks.0.hook_resid_pre": "0.resid_in",
        "blocks.0.hook_resid_mid": "0.resid_mid",
        "blocks.1.hook_resid_post": "1.resid_out",
        "blocks.0.hook_attn_out": "0.attn.resid_delta",
        "blocks.0.hook_mlp_out": "0.mlp.resid_delta",
        "blocks.0.mlp.hook_post": "0.mlp.post_act",
    }.items():
        torch.testing.assert_close(cache[theirs].reshape(seen[ours].shape), seen[ours], atol=1e-4, rtol=1e-4)
    assert cache["blocks.1.attn.hook_q"].shape == (2, 9, 4, 4)


@pytest.mark.parametrize(
    ("hook", "site", "channel", "ours"),
    [
        ("blocks.1.mlp.post_act.hook_out", "1.mlp.post_act", (5,), 5),
        ("blocks.0.attn.hook_v", "0.attn.v", (2, 1), 9),
        ("blocks.0.attn.hook_k", "0.attn.k", (0, 3), 3),
        ("blocks.0.hook_mlp_out", "0.mlp.resid_delta", (7,), 7),
        ("final_resid.hook_out", "final_resid", (0,), 0),
    ],
)
def test_a_hook_changes_what_intervene_changes(lens, hook, site, channel, ours):
    model, ids = made("sinks, positions beside"), some_ids()
    bridge = lens.to_transformer_lens(model)

    def theirs(values, hook):
        values = values.clone()
        values[(..., *channel)] = 3.0
        return values

    def of_ours(values):
        values = values.clone()
        values[..., ours] = 3.0
        return values

    with torch.no_grad():
        before = model(ids)
        with sc.intervene(model, {site: of_ours}):
            expected = model(ids)
        changed = bridge.run_with_hooks(ids, fwd_hooks=[(hook, theirs)])
        assert not torch.allclose(before, expected, atol=1e-3)
        torch.testing.assert_close(changed, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(bridge(ids), before, atol=1e-4, rtol=1e-4)  # nothing is left behind


def test_text_is_read_as_ours_reads_it(lens):
    model = made("offsets, relu")
    bridge = lens.to_transformer_lens(model)
    text = "for i in x:\n"
    assert bridge.to_tokens(text, prepend_bos=False)[0].tolist() == model.tokenizer.encode(text)


def test_weights_are_not_processed(lens):
    bridge = lens.to_transformer_lens(made("offsets, relu"))
    with pytest.raises((NotImplementedError, RuntimeError, ValueError)):
        bridge.enable_compatibility_mode()


def test_the_entry_point_leads_to_the_adapter(lens, monkeypatch):
    """As `entry_points` gives it where the package is installed."""
    from importlib.metadata import EntryPoint

    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.factories import architecture_adapter_factory as factory

    declared = EntryPoint(lens.ARCHITECTURE, ENTRY, "transformer_lens.architectures")
    monkeypatch.setattr(factory, "entry_points", lambda group: [declared] if group == declared.group else [])
    monkeypatch.setattr(factory.ArchitectureAdapterFactory, "_entry_points_discovered", False)
    monkeypatch.setattr(factory.ArchitectureAdapterFactory, "_adapters", dict(factory.SUPPORTED_ARCHITECTURES))
    config = TransformerBridgeConfig(
        d_model=16, d_head=4, n_heads=4, n_layers=2, n_ctx=16, architecture=lens.ARCHITECTURE
    )
    adapter = factory.ArchitectureAdapterFactory.select_architecture_adapter(config)
    assert type(adapter) is lens.SparseCircuitsAdapter
