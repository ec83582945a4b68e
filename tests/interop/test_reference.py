"""Released checkpoints of any mix of options compute what the format's description says: logits, every hook,
with the KV cache, and through every format."""

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import forward
from safetensors.torch import load_file

import sparsecircuits as sc
from randommodels import configs, random_model
from sparsecircuits.interop.convert import save_model
from sparsecircuits.models.transformer import KVCache

GOLDEN = Path(__file__).parents[1] / "golden" / "openai_checkpoints"
IDS = torch.randint(0, 40, (2, 12), generator=torch.Generator().manual_seed(1))


def read_raw(folder):
    raw = json.loads((folder / "beeg_config.json").read_text())
    return raw, torch.load(folder / "final_model.pt", weights_only=True)


@pytest.mark.parametrize("case", sorted(path.name for path in GOLDEN.iterdir()))
def test_the_reference_agrees_with_the_golden_files(case):
    expected = load_file(GOLDEN / case / "expected.safetensors")
    logits, hooks = forward(*read_raw(GOLDEN / case), expected["input_ids"])
    torch.testing.assert_close(logits, expected.pop("logits"), atol=1e-4, rtol=0)
    for name, tensor in expected.items():
        if name.startswith("hook/"):
            torch.testing.assert_close(hooks[name.removeprefix("hook/")], tensor, atol=1e-4, rtol=0, msg=name)


@given(configs(), st.integers(0, 99), st.integers(1, 11), st.sampled_from(["openai", "native", "hf"]))
@settings(max_examples=60, deadline=None)
def test_any_mix_of_options(config, seed, split, form):
    model = random_model(config, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)  # logits of order one, as in a trained model
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder) / "released", "openai")
        expected, hooks = forward(*read_raw(Path(folder) / "released"), IDS)
        loaded = sc.convert(Path(folder) / "released", Path(folder) / "other", form)
        loaded = sc.load_model(Path(folder) / "other")
    cache = KVCache.empty(config.n_layer)
    with torch.no_grad(), sc.record(loaded) as seen:
        logits = loaded(IDS)
    with torch.no_grad():
        parts = torch.cat((loaded(IDS[:, :split], cache), loaded(IDS[:, split:], cache)), dim=1)
    tolerance = {"atol": 1e-4, "rtol": 1e-5}
    torch.testing.assert_close(logits, expected, **tolerance)
    torch.testing.assert_close(parts, expected, **tolerance)
    for name, tensor in hooks.items():
        torch.testing.assert_close(seen[name], tensor, **tolerance, msg=name)


@pytest.mark.parametrize(
    "drop",
    ["d_head", "d_mlp", "dropout", "sink", "flash", "grad_checkpointing", "tokenizer_name", "afrac", "d_pos_emb"],
)
def test_fields_have_their_defaults(drop, tmp_path):
    config = sc.ModelConfig(
        vocab_size=40, n_ctx=12, n_layer=1, d_model=8, d_head=4, positions="added", norm="layer", afrac=None,
        tied_unembed=True, bigram="none",
    )  # fmt: skip
    save_model(random_model(config), tmp_path / "m", "openai")
    raw, state = read_raw(tmp_path / "m")
    (tmp_path / "m" / "beeg_config.json").write_text(json.dumps({k: v for k, v in raw.items() if k != drop}))
    with torch.no_grad():
        torch.testing.assert_close(sc.load_model(tmp_path / "m")(IDS), forward(raw, state, IDS)[0], atol=1e-4, rtol=0)


def test_keys_of_old_files(tmp_path):
    """n_mlp for d_mlp, every legacy key, no final bias, a causal buffer, no lm_head of a tied model."""
    config = sc.ModelConfig(
        vocab_size=40, n_ctx=12, n_layer=1, d_model=8, d_head=4, d_mlp=20, positions="added", norm="layer",
        tied_unembed=True, bigram="none", afrac=None,
    )  # fmt: skip
    save_model(random_model(config), tmp_path / "m", "openai")
    raw, state = read_raw(tmp_path / "m")
    raw["n_mlp"] = raw.pop("d_mlp")
    legacy = ("n_embd afrac_approx ignore_dw_grad bigram_table_rank pfrac expansion_factor expansion_factor_mlp "
              "debug_exact_topk sparse_matmul_impl rtopk").split()  # fmt: skip
    raw |= {**dict.fromkeys(legacy), "use_tied_aux_matrix": False, "n_embd": 8}
    del state["final_logits_bias"], state["lm_head.weight"]
    state["transformer.h.0.attn.bias"] = torch.ones(1, 1, 12, 12).tril()
    (tmp_path / "m" / "beeg_config.json").write_text(json.dumps(raw))
    torch.save(state, tmp_path / "m" / "final_model.pt")
    expected, _ = forward({**raw, "d_mlp": 20}, state, IDS)
    with torch.no_grad():
        torch.testing.assert_close(sc.load_model(tmp_path / "m")(IDS), expected, atol=1e-4, rtol=0)
