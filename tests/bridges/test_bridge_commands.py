"""The commands `bridge` and `steer`, as a user runs them."""

import json

import pytest

import sparsecircuits as sc
from forked import run
from madecircuits import circuit_of
from sparsecircuits.bridges.drawing import draw_steering
from sparsecircuits.data import Tokenizer
from sparsecircuits.errors import UserError
from sparsecircuits.models.storage import save_native
from sparsecircuits.planted.models import QUOTE_NODES, quote_model, rotated


@pytest.fixture(scope="module")
def bridged(tmp_path_factory, handmade_run):
    """(what the command printed, the folder, a circuit of the sparse model): maps alone were trained."""
    folder = tmp_path_factory.mktemp("bridged")
    model = quote_model(Tokenizer.default())
    save_native(rotated(model)[0], folder / "dense")
    circuit = circuit_of(model, QUOTE_NODES).save(folder / "circuit.json")
    options = (
        "--steps",
        2,
        "--batch-size",
        2,
        "--sparse-lr",
        0,
        "--lr",
        1e-5,
        "--eval-tokens",
        1024,
        "--fit-tokens",
        8192,
    )
    done = run("bridge", folder / "dense", handmade_run, "--out", folder / "bridge", *options, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder / "bridge", circuit


def test_a_bridge_is_trained_and_measured(bridged):
    found, folder, _ = bridged
    assert found["path"] == str(folder)
    assert all(row["nmse_encoder"] < 0.02 for row in found["boundaries"])
    assert {"bridge.json", "bridge.safetensors", "metrics.jsonl", "sparse"} <= {p.name for p in folder.iterdir()}


def test_the_dense_model_is_steered_from_a_circuit_and_drawn(bridged, tmp_path):
    _, folder, circuit = bridged
    options = ("--task", "single_double_quote.plain", "--circuit", circuit, "--pairs", 4, "--controls", 2)
    done = run("steer", folder, *options, "--strengths", 0, 1, "--out", tmp_path / "steered", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["nodes"] == ["0.attn.act_in.0", "0.mlp.act_in.3", "final_resid.4"]
    assert found["steered"][1] > 0.9 > 0.1 > found["steered"][0]
    assert found["paper"]
    saved = json.loads((tmp_path / "steered" / "steering.json").read_text())
    assert saved == {name: value for name, value in found.items() if name != "path"}
    assert (tmp_path / "steered" / "steering.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"ends in \.png"):
        draw_steering(found, tmp_path / "steering.pdf")


def test_a_node_that_is_no_read_is_one_line(bridged):
    done = run("steer", bridged[1], "--task", "single_double_quote.plain", "--node", "0.attn.v.0")
    assert done.returncode == 1
    assert "no read of the residual stream" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_new_sparse_model_of_a_preset_begins_a_bridge_and_resumes(bridged, tmp_path):
    _, folder, _ = bridged
    dense = folder.parent / "dense"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.py").write_text("".join(f"def f{i}(x):\n    return x + {i}\n\n\n" for i in range(400)))
    options = ["--out", tmp_path / "new", "--data", tmp_path / "data", "--batch-size", 1, "--fit-tokens", 1024]
    options += ["--eval-tokens", 256, "--steps", 3, "--sparse-lr", 1e-2, "--seed", 5, "--json"]
    done = run("bridge", dense, "--preset", "nano", *options)
    assert done.returncode == 0, done.stderr
    sparse = sc.load_model(tmp_path / "new" / "sparse")
    theirs = sc.load_model(dense).config
    assert (sparse.config.n_layer, sparse.config.d_model) == (theirs.n_layer, 256)
    share = float(sparse.get_parameter("blocks.0.mlp.c_fc.weight").count_nonzero()) / (256 * 1024)
    assert 0.01 < share < 0.03
    # The new model is drawn again from the seed of then, or resuming would refuse it as another one.
    (tmp_path / "new" / "bridge.json").unlink()
    again = run("bridge", dense, "--preset", "nano", "--out", tmp_path / "new", "--data", tmp_path / "data", "--resume")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("options", [[], ["SPARSE", "--preset", "nano"]])
def test_the_sparse_model_is_given_or_new(options, bridged, tmp_path):
    _, folder, _ = bridged
    options = [folder / "sparse" if word == "SPARSE" else word for word in options]
    done = run("bridge", folder.parent / "dense", *options, "--out", tmp_path / "none")
    assert done.returncode == 1
    assert "one of the two" in done.stderr
