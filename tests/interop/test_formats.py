"""Every format holds every architecture: round trips are exact to the bit, and all compute the same."""

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsecircuits as sc
from randommodels import bits, configs, random_model
from sparsecircuits.cli import main
from sparsecircuits.data import Tokenizer
from sparsecircuits.data.tokenizer_format import canonical_hash
from sparsecircuits.interop import convert
from sparsecircuits.interop.convert import save_model
from sparsecircuits.interop.huggingface.modeling_sparsecircuits import CACHE_NAME
from sparsecircuits.interop.huggingface_export import from_hf, to_hf
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import KVCache

GOLDEN = Path(__file__).parents[1] / "golden" / "openai_checkpoints"
IDS = torch.randint(0, 40, (3, 12), generator=torch.Generator().manual_seed(0))


def assert_same(a, b):
    assert set(a.state_dict()) == set(b.state_dict())
    for name, tensor in a.state_dict().items():
        assert torch.equal(bits(tensor), bits(b.state_dict()[name])), name
    assert content_hash(a) == content_hash(b)


@given(configs(), st.permutations(["native", "openai", "hf"]), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_any_way_round_is_bit_equal(config, order, seed):
    model = random_model(config, seed)
    with tempfile.TemporaryDirectory() as folder:
        start, place = Path(folder) / "start", Path(folder) / "start"
        save_model(model, start, "native")
        for step, form in enumerate(order):
            assert_same(model, sc.convert(place, Path(folder) / str(step), form))
            place = Path(folder) / str(step)
        assert_same(model, sc.load_model(place))


def test_a_second_conversion_into_a_folder_waits_for_none(tmp_path, monkeypatch):
    """It would sweep what the first one is writing."""
    model, write = random_model(ModelConfig(n_layer=1, d_model=16, d_head=8, n_ctx=16, vocab_size=40)), convert._write

    def meanwhile(model, folder, form):
        write(model, folder, form)
        with pytest.raises(sc.UserError, match=r"a conversion into .* is going on in process"):
            save_model(model, tmp_path / "new", "native")

    monkeypatch.setattr(convert, "_write", meanwhile)
    save_model(model, tmp_path / "new", "openai")
    assert_same(model, sc.load_model(tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@given(configs(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_hugging_face_model_computes_the_same(config, seed):
    model = random_model(config, seed)
    converted = to_hf(model)
    with torch.no_grad(), sc.record(model) as ours, sc.record(converted) as theirs:
        expected = model(IDS)
        output = converted(IDS, output_hidden_states=True)
    scale = 1 + float(expected.abs().max())
    torch.testing.assert_close(output.logits, expected, atol=1e-5 * scale, rtol=0)
    assert set(ours) == set(theirs)
    assert len(output.hidden_states) == config.n_layer + 1
    assert torch.equal(output.hidden_states[0], theirs["0.resid_in"])
    assert_same(model, from_hf(converted))


@given(configs(), st.integers(1, 11), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_cache_changes_nothing(config, split, seed):
    model, converted = random_model(config, seed), None
    with torch.no_grad():
        expected, cache = model(IDS), KVCache.empty(config.n_layer)
        parts = torch.cat((model(IDS[:, :split], cache), model(IDS[:, split:], cache)), dim=1)
        converted = to_hf(model)
        first = converted(IDS[:, :split], use_cache=True)
        second = converted(IDS[:, split:], cache=first[CACHE_NAME])
    tolerance = {"atol": 1e-5 * (1 + float(expected.abs().max())), "rtol": 0}
    torch.testing.assert_close(parts, expected, **tolerance)
    torch.testing.assert_close(torch.cat((first.logits, second.logits), dim=1), expected, **tolerance)


@pytest.mark.parametrize("case", sorted(path.name for path in GOLDEN.iterdir()))
def test_released_files_come_back_key_by_key(case, tmp_path):
    sc.convert(GOLDEN / case, tmp_path / "native", "native")
    sc.convert(tmp_path / "native", tmp_path / "hf", "hf")
    sc.convert(tmp_path / "hf", tmp_path / "released", "openai")
    before = torch.load(GOLDEN / case / "final_model.pt", weights_only=True)
    after = torch.load(tmp_path / "released" / "final_model.pt", weights_only=True)
    assert set(before) == set(after)
    for key, tensor in before.items():
        assert torch.equal(bits(tensor), bits(after[key])), key
    old = json.loads((GOLDEN / case / "beeg_config.json").read_text())
    new = json.loads((tmp_path / "released" / "beeg_config.json").read_text())
    assert {key: new.get(key) for key in old if key != "grad_checkpointing"} == {
        key: value for key, value in old.items() if key != "grad_checkpointing"
    }


def test_the_tokenizer_and_the_corpus_travel(handmade_run, tmp_path):
    first = sc.load_model(handmade_run)
    sc.convert(handmade_run, tmp_path / "released", "openai")
    sc.convert(tmp_path / "released", tmp_path / "hf", "hf")
    last = sc.convert(tmp_path / "hf", tmp_path / "native", "native")
    assert_same(first, last)
    text = "def f(x):\n    return 'é' + \"x\"\n"
    assert last.tokenizer.encode(text) == Tokenizer.default().encode(text)
    assert "trained on" in (tmp_path / "hf" / "README.md").read_text()


def test_what_a_format_cannot_say_is_refused(tmp_path):
    config = sc.ModelConfig(
        vocab_size=40, n_ctx=8, n_layer=1, d_model=8, d_head=4, norm="layer", positions="concat", d_pos_emb=2
    )
    with pytest.raises(sc.UserError, match="one norm for all"):
        save_model(random_model(config), tmp_path / "new", "openai")
    assert not (tmp_path / "new").exists()
    with pytest.raises(sc.UserError, match="no format 'onnx'"):
        save_model(random_model(config), tmp_path / "new", "onnx")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(sc.UserError, match="not empty"):
        save_model(random_model(config), tmp_path / "full", "native")


def test_what_failed_can_be_tried_again(tmp_path, monkeypatch):
    """A disk that fills up in the middle leaves nothing, also in a folder that was there and empty."""
    model = random_model(sc.ModelConfig(vocab_size=2048, n_ctx=12, n_layer=1, d_model=8, d_head=4, bigram="none"))
    model.tokenizer = Tokenizer.default()
    (tmp_path / "hf").mkdir()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    for form in ("native", "openai", "hf"):
        with monkeypatch.context() as patch:
            for place in ("safetensors.torch.save_file", "sparsecircuits.models.storage.save_file", "torch.save"):
                patch.setattr(place, full)
            with pytest.raises(sc.UserError, match="No space left on device"):
                save_model(model, tmp_path / form, form)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
        save_model(model, tmp_path / form, form)
        assert_same(sc.load_model(tmp_path / form), model)


def test_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        main(["convert", str(GOLDEN / "plain"), str(tmp_path / "out"), "--to", "native", "--json"])
    assert done.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["format"] == "native"
    assert_same(sc.load_model(GOLDEN / "plain"), sc.load_model(said["path"]))


def test_old_released_models_norm_position_channels_by_root_mean_square(tmp_path):
    config = sc.ModelConfig(
        vocab_size=40, n_ctx=12, n_layer=1, d_model=8, d_head=4, norm="layer", positions="concat", d_pos_emb=2,
        position_norm="layer",
    )  # fmt: skip
    save_model(random_model(config), tmp_path / "m", "openai")
    assert sc.load_model(tmp_path / "m").config.position_norm == "layer"
    path = tmp_path / "m" / "final_model.pt"
    state = {k: v for k, v in torch.load(path, weights_only=True).items() if "ln_p" not in k or "bias" not in k}
    torch.save(state, path)
    assert sc.load_model(tmp_path / "m").config.position_norm == "rms"


def test_the_tokenizer_is_the_one_that_the_config_names(tmp_path):
    """By its own key, or by that of the tokens that a run was trained on, whose hash was once the whole file's."""
    model = random_model(sc.ModelConfig(vocab_size=2048, n_ctx=12, n_layer=1, d_model=8, d_head=4, bigram="none"))
    model.tokenizer = Tokenizer.default()
    save_model(model, tmp_path / "run", "native")
    path = tmp_path / "run" / "config.json"
    saved = json.loads(path.read_text())
    earlier = canonical_hash(json.loads((tmp_path / "run" / "tokenizer.json").read_text()))
    for named in ({}, {"tokenizer_sha256": model.tokenizer.content_hash}, {"data": {"tokenizer": earlier}}):
        path.write_text(json.dumps({"model": saved["model"], **named}))
        assert sc.load_model(tmp_path / "run").tokenizer is not None
    for named in ({"tokenizer_sha256": "0" * 64}, {"tokenizer_sha256": 3}, {"data": {"tokenizer": "0" * 64}}):
        path.write_text(json.dumps({"model": saved["model"], **named}))
        with pytest.raises(sc.UserError, match="not the one that the model was trained with"):
            sc.load_model(tmp_path / "run")
