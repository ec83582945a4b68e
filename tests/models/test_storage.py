"""The native format: whole, small, and never silently wrong."""

import contextlib
import json
import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer
from sparsecircuits.models.byte_rows import rounded
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.storage import content_hash, load_tensors, pack, save_native, save_tensors, unpack
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.sparsity.projection import Projector
from sparsecircuits.sparsity.schedules import SparsityConfig


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=2048, n_ctx=16, n_layer=1, d_model=64, d_head=8, bigram="none")
    model = SparseTransformer(config).eval()
    Projector(model, SparsityConfig(density=0.1))(1.0)
    model.tokenizer = Tokenizer.default()
    save_native(model, tmp_path / "run")
    return tmp_path / "run", model


def test_round_trip_is_bit_equal_and_small(run):
    directory, model = run
    loaded = sc.load_model(directory)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert loaded.config == model.config
    assert loaded.tokenizer.encode("x = 1") == model.tokenizer.encode("x = 1")
    assert content_hash(loaded) == content_hash(model)
    dense = sum(t.numel() * 4 for t in model.state_dict().values())
    assert (directory / "model.safetensors").stat().st_size < 0.35 * dense


@given(st.integers(0, 3000), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_packing_inverts(size, density, seed):
    torch.manual_seed(seed)
    tensor = torch.randn(size) * (torch.rand(size) < density)
    packed, shapes = pack({"x": tensor})
    assert torch.equal(unpack(packed, shapes, "here")["x"], tensor)


@given(st.integers(0, 99), st.floats(-30, 30), st.floats(-12, 12), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_rounded_table_takes_a_byte_an_entry_and_loses_nothing(seed, shift, scale, flat_row):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(256, 256, generator=generator) * 2.0**scale + shift
    if flat_row:
        table[3] = table[3, 0]
    packed, shapes = pack({"x": table})
    assert list(packed) == ["x"]  # one that was not rounded stays as it is
    near = rounded(table)
    spread = table.amax(dim=1) - table.amin(dim=1)
    assert bool(((near - table).abs().amax(dim=1) <= spread / 254 + table.abs().amax(dim=1) / 2**15).all())
    packed, shapes = pack({"x": near})
    assert packed["x.codes"].dtype == torch.uint8
    assert sum(part.nbytes for part in packed.values()) == 256 * 256 + 256 * 8
    assert torch.equal(unpack(dict(packed), shapes, "here")["x"], near)
    assert torch.equal(rounded(near), near)


def test_parts_of_a_table_that_do_not_fit_are_refused():
    packed, shapes = pack({"x": rounded(torch.randn(256, 256))})
    for damage in (
        {"x.rows": packed["x.rows"][:-1]},
        {"x.codes": packed["x.codes"][:-1]},
        {"x.codes": packed["x.codes"].int()},
        {"x.rows": packed["x.rows"].double()},
    ):
        with pytest.raises(sc.UserError, match=r"x is incomplete|x is stored in types"):
            unpack({**packed, **damage}, shapes, "here")
    with pytest.raises(sc.UserError, match="x is incomplete"):
        unpack({"x.codes": packed["x.codes"]}, shapes, "here")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_weights_are_refused(run, share):
    path = run[0] / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(sc.UserError, match="damaged"):
        sc.load_model(run[0])


@given(st.integers(0, 2**31), st.integers(0, 255))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_header_byte_is_no_crash(run, place, value):
    path = run[0] / "model.safetensors"
    whole = path.read_bytes()
    broken = bytearray(whole)
    broken[place % 400] = value
    path.write_bytes(broken)
    with contextlib.suppress(sc.UserError):  # anything else fails the test
        loaded = sc.load_model(run[0])
        assert loaded.config == run[1].config
    path.write_bytes(whole)


def test_other_faults_are_named(run, tmp_path):
    directory, _ = run
    state, _ = load_tensors(directory / "model.safetensors")

    def fails(changed, words):
        save_tensors(directory / "model.safetensors", changed)
        with pytest.raises(sc.UserError, match=words):
            sc.load_model(directory)

    fails({k: v for k, v in state.items() if k != "wte.weight"}, "wte.weight is missing")
    fails({**state, "extra": torch.zeros(2)}, "unexpected tensor extra")
    fails({**state, "ln_f.weight": torch.zeros(3)}, r"ln_f.weight has shape \(3,\)")
    fails({**state, "ln_f.weight": torch.full((64,), float("nan"))}, "not finite")
    with pytest.raises(sc.UserError, match="no model at"):
        sc.load_model(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(sc.UserError, match="holds no model"):
        sc.load_model(tmp_path / "empty")


def test_sparse_indices_out_of_range_are_refused():
    values = torch.ones(2)
    for indices in ([0, 10], [3, 2], [1, 1], [-1, 2]):
        with pytest.raises(sc.UserError, match="indices"):
            unpack({"x.values": values, "x.indices": torch.tensor(indices)}, {"x": [10]}, "here")
    with pytest.raises(sc.UserError, match="incomplete"):
        unpack({"x.values": values}, {"x": [10]}, "here")


def test_bad_configs_are_named(run):
    path = run[0] / "config.json"
    good = json.loads(path.read_text())
    for bad, words in (
        ("{", "not valid JSON"),
        ("[]", "no 'model'"),
        (json.dumps({"model": {**good["model"], "depth": 3}}), "unknown key 'depth'"),
        (json.dumps({"model": {**good["model"], "n_layer": 2}}), "missing"),
        (json.dumps({"model": {**good["model"], "d_model": 128}}), "shape"),
    ):
        path.write_text(bad)
        with pytest.raises(sc.UserError, match=words):
            sc.load_model(run[0])


def test_a_full_disk_leaves_the_old_file(run, monkeypatch):
    directory, model = run
    before = (directory / "model.safetensors").read_bytes()

    def no_space(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparsecircuits.models.storage.save_file", no_space)
    with pytest.raises(sc.UserError, match="No space left"):
        save_native(model, directory)
    assert (directory / "model.safetensors").read_bytes() == before
    assert not list(directory.glob(".*.part"))


def test_importing_the_package_is_cheap():
    code = "import sys, sparsecircuits; assert 'torch' not in sys.modules and 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
