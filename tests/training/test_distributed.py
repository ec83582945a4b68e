"""Training in several real processes (gloo): the same model as in one. The command line's are torchrun's."""

import copy
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train_together import CONFIG, config_of

import forked
import sparsecircuits as sc
from sparsecircuits.data import Tokenizer, prepare_tokens
from sparsecircuits.models.storage import load_tensors
from sparsecircuits.training.checkpoints import checkpoint_steps
from sparsecircuits.training.metrics import read_metrics

HERE = Path(__file__).parent


def torchrun(processes, *command):
    """Run `-m MODULE` in processes of one thread each; returns stdout."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run([*launch, *map(str, command)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tokens(corpus):
    return prepare_tokens(str(corpus), Tokenizer.default())


COMPACT = {"sparsity": {"start": "uniform", "state": "compact", "sparse_biases": False}}
REVIVED = {
    "parallel": "ddp",
    "sparsity": {"revive_every": 3, "start": "uniform"},
    "optimizer": {"lr": 0.3},
    "batch_size": 2,
    "steps": 12,
}


@pytest.fixture(scope="module")
def runs(tokens, corpus, tmp_path_factory):
    """Folder of runs of CONFIG: `alone` in one process, the others in the number that their name ends in; in
    `compact`, of weights that are kept as their nonzeros alone; in `revived`, where dead units begin anew.

    Processes take a while to find one another, so those of one number train all that is theirs.
    """
    folder = tmp_path_factory.mktemp("together")
    compact, revived = folder / "compact", folder / "revived"
    sc.train(CONFIG, folder / "alone", tokens=tokens)
    sc.train(config_of(copy.deepcopy(COMPACT)), compact / "alone", tokens=tokens)
    sc.train(config_of(copy.deepcopy(REVIVED)), revived / "alone", tokens=tokens)
    ddp, fsdp, small = {"parallel": "ddp"}, {"parallel": "fsdp"}, COMPACT | {"parallel": "ddp"}
    said = train_together(4, folder, corpus, {"ddp-4": ddp, "fsdp-4": fsdp, "compact/ddp-4": small}, "shards")
    (folder / "said by four").write_text(said)
    for name in ("to-one", "to-two"):
        half_done(folder / "fsdp-4", folder / name)
    half_done(folder / "alone", folder / "to-shards")
    (folder / "to-shards" / "config.json").write_text((folder / "fsdp-4" / "config.json").read_text())
    half_done(compact / "alone", compact / "to-two")
    half_done(compact / "ddp-4", compact / "to-one")
    two = {
        "ddp-2": ddp | {"accumulate": 2},
        "fsdp-2": fsdp | {"checkpoint_activations": True, "accumulate": 2},
        "compact/ddp-2": small,
        "compact/accumulated": small | {"accumulate": 2},  # whose replicas must agree
        "revived/two": REVIVED,
    }
    train_together(2, folder, corpus, two, "to-two=resume", "to-shards=resume", "compact/to-two=resume")
    sc.train(CONFIG, folder / "to-one", tokens=tokens, resume=True)
    sc.train(config_of(copy.deepcopy(COMPACT)), compact / "to-one", tokens=tokens, resume=True)
    return folder


def train_together(processes, folder, corpus, runs, *more):
    """`train_together.py` with runs by name, and what else it can be told; returns stdout."""
    named = (f"{name}={json.dumps(fields)}" for name, fields in runs.items())
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import train_together; train_together.main()"
    return forked.run_together(processes, folder, corpus, *named, *more, code=code)


def test_the_dead_are_those_that_no_process_saw_fire(runs):
    """What one process alone revives: a unit that fires in another process's part of the batch is alive."""
    lines, found = (read_metrics(runs / "revived" / run / "metrics.jsonl") for run in ("alone", "two"))
    revived = [line for line in lines if "revived_neurons" in line]
    assert sum(line["revived_neurons"] for line in revived) > 0
    assert [line for line in found if "revived_neurons" in line] == revived
    alone, _ = load_tensors(runs / "revived" / "alone" / "model.safetensors")
    expected, _ = load_tensors(runs / "revived" / "two" / "model.safetensors")
    assert alone.keys() == expected.keys()
    for key, tensor in alone.items():
        assert float((expected[key] - tensor).abs().max()) < 1e-4, key


@pytest.mark.parametrize("name", ["ddp-2", "ddp-4", "to-one", "to-two"])
def test_several_processes_keep_the_same_nonzeros(runs, name):
    expected, _ = load_tensors(runs / "compact" / "alone" / "model.safetensors")
    found, _ = load_tensors(runs / "compact" / name / "model.safetensors")
    for key in expected:
        assert torch.equal(found[key] != 0, expected[key] != 0), key
        assert float((found[key] - expected[key]).abs().max()) < 1e-5, key


def half_done(run, target):
    """Copy a run as if it had been killed after its checkpoint of step 4."""
    shutil.copytree(run, target)
    (target / "model.safetensors").unlink()
    for path in (target / "checkpoints").glob("step-00000008*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert checkpoint_steps(target) == [4]


NAMES = ("ddp-2", "ddp-4", "fsdp-2", "fsdp-4", "to-one", "to-two", "to-shards")


@pytest.mark.parametrize("name", NAMES)
def test_several_processes_train_the_model_of_one(runs, name):
    expected, _ = load_tensors(runs / "alone" / "model.safetensors")
    found, _ = load_tensors(runs / name / "model.safetensors")
    assert found.keys() == expected.keys()
    for key in expected:
        assert int(found[key].count_nonzero()) == int(expected[key].count_nonzero()), key
        assert float((found[key] - expected[key]).abs().max()) < 1e-5, key


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_written_once_and_agree(runs, name):
    alone, found = (read_metrics(runs / run / "metrics.jsonl") for run in ("alone", name))
    assert [line["step"] for line in found] == [line["step"] for line in alone]
    for line, expected in zip(found, alone, strict=True):
        assert line.get("nonzeros") == expected.get("nonzeros")
        assert line.get("alive_neurons") == expected.get("alive_neurons")
        for key in ("loss", "val_loss", "grad_rms"):
            assert line.get(key) == (pytest.approx(expected[key], rel=1e-4) if key in expected else None)


def test_shards_are_checkpointed_as_a_folder_of_safetensors(runs):
    folder = runs / "fsdp-4" / "checkpoints" / "step-00000004"
    assert len(list(folder.glob("*.safetensors"))) == 4
    assert {p.suffix for p in folder.iterdir()} == {".safetensors", ".json", ".sha256"}


def test_a_damaged_folder_falls_back(runs, tokens, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "fsdp-4", run)
    shard = min((run / "checkpoints" / "step-00000008").glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.warns(UserWarning, match="step-00000008 is damaged"):
        sc.train(CONFIG, run, tokens=tokens, resume=True)
    expected, _ = load_tensors(runs / "alone" / "model.safetensors")
    found, _ = load_tensors(run / "model.safetensors")
    assert all(float((found[key] - expected[key]).abs().max()) < 1e-5 for key in expected)


def test_projection_across_shards_is_exact(runs):
    assert "agreed 4" in (runs / "said by four").read_text()


def test_the_command_line_under_torchrun(corpus, tmp_path):
    size = "--model.d-model 32 --model.d-head 8 --model.n-layer 1 --model.n-ctx 32 --sparsity.density 0.25"
    rest = f"--minutes 0.05 --batch-size 4 --eval-tokens 512 {size} --json --data {corpus} --out {tmp_path / 'run'}"
    stdout = torchrun(2, "-m", "sparsecircuits", "train", *rest.split())
    assert json.loads(stdout)["steps"] == read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["step"]
    assert sc.load_model(tmp_path / "run").config.d_model == 32


@pytest.mark.parametrize("fields", [{"accumulate": 3}, {"checkpoint_activations": True}])
def test_less_memory_the_same_steps(runs, tokens, tmp_path, fields):
    sc.train(dataclasses.replace(CONFIG, **fields), tmp_path / "run", tokens=tokens)
    expected, _ = load_tensors(runs / "alone" / "model.safetensors")
    found, _ = load_tensors(tmp_path / "run" / "model.safetensors")
    for key in expected:
        assert float((found[key] - expected[key]).abs().max()) < 1e-5, key


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_layers_train_the_same_model(runs, tokens, tmp_path):
    model = sc.train(dataclasses.replace(CONFIG, compile="on"), tmp_path / "run", tokens=tokens)
    expected, _ = load_tensors(runs / "alone" / "model.safetensors")
    for key, tensor in model.state_dict().items():
        assert float((tensor - expected[key]).abs().max()) < 1e-5, key
    alone, found = (read_metrics(run / "metrics.jsonl") for run in (runs / "alone", tmp_path / "run"))
    assert found[-1]["alive_neurons"] == alone[-1]["alive_neurons"], "hooks must be seen by a compiled model"
    assert all(block._compiled_call_impl is None for block in model.blocks)


def test_a_batch_too_small_to_cut_is_refused():
    with pytest.raises(sc.UserError, match="accumulate 11 cuts a batch of 10"):
        dataclasses.replace(CONFIG, accumulate=11)
