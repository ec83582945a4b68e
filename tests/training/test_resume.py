"""Runs that are killed, damaged, and gone on with."""

import dataclasses
import json
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

import forked
import sparsecircuits as sc
from sparsecircuits.cli.arguments import parse
from sparsecircuits.errors import Interrupted
from sparsecircuits.models.storage import load_tensors
from sparsecircuits.training.checkpoints import checkpoint_steps, load_checkpoint, save_checkpoint
from sparsecircuits.training.metrics import read_metrics

FLAGS = (
    "--steps 60 --checkpoint-every 5 --keep-checkpoints 3 --batch-size 4 --accumulate 2 --model.d-model 32 "
    "--model.d-head 8 --model.n-layer 1 --model.n-ctx 32 --sparsity.density 0.25 --eval-tokens 2048 --dtype float32"
).split()


def command(out, corpus, *more):
    return ["train", "--out", str(out), *more, "--data", str(corpus), *FLAGS]


def resume(out):
    return ["train", "--out", str(out), "--resume", "--json"]


def gone_on_with(out):
    """As `resume` does, without a process of its own."""
    sc.train(parse(resume(out)).config, out, resume=True)


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """A run that nothing disturbed, of a process that was started and not forked as the others are."""
    out = tmp_path_factory.mktemp("resume") / "whole"
    subprocess.run([sys.executable, "-m", "sparsecircuits", *command(out, corpus)], check=True, capture_output=True)
    return out


def assert_same_run(killed, whole):
    expected, _ = load_tensors(whole / "model.safetensors")
    resumed, _ = load_tensors(killed / "model.safetensors")
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    losses = [[m["loss"] for m in read_metrics(run / "metrics.jsonl") if "loss" in m] for run in (whole, killed)]
    assert losses[0] == losses[1]
    assert len(checkpoint_steps(killed)) == 3


KILL_WHILE_SAVING = """
import os, signal, sys
from sparsecircuits.cli import main
from sparsecircuits.training import checkpoints

def kill_between_checksum_and_checkpoint(path, text, real=checkpoints.write_text):
    real(path, text)
    if "00000025" in path.name:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoints.write_text = kill_between_checksum_and_checkpoint
main(sys.argv[1:])
"""


def test_killed_again_and_again_ends_bit_equal(corpus, whole, tmp_path):
    killed, moment = tmp_path / "killed", random.Random(5)
    for step in (5, 20, 40):
        line = resume(killed) if (killed / "config.json").exists() else command(killed, corpus)
        process = forked.start(*line)
        while process.poll() is None and max(checkpoint_steps(killed), default=0) < step:
            time.sleep(0.005)
        time.sleep(moment.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (killed / "model.safetensors").exists(), "it finished before it could be killed"
    done = forked.run(*resume(killed), check=True)
    assert json.loads(done.stdout)["steps"] == 60
    assert_same_run(killed, whole)


def test_a_folder_in_use_is_refused_to_a_second_run_and_to_a_resume(corpus, whole, tmp_path):
    out = tmp_path / "run"
    first = forked.start(*command(out, corpus))
    while first.poll() is None and max(checkpoint_steps(out), default=0) < 5:
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)
    config = parse(command(out, corpus)).config
    for again in (False, True):
        with pytest.raises(sc.UserError) as error:
            sc.train(config, out, resume=again, tokens=lambda: pytest.fail("it prepared the corpus"))
        assert str(error.value) == f"a training into {out} is going on in process {first.pid}: wait for it, or end it"
    first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    assert_same_run(out, whole)
    assert not (out / ".lock").exists()


def test_ctrl_c_saves_and_says_how_to_go_on(corpus, whole, tmp_path):
    out = tmp_path / "a run"
    done = forked.run(*command(out, corpus), code=KILL_WHILE_SAVING.replace("SIGKILL", "SIGINT"))
    assert done.returncode == 128 + signal.SIGINT
    how = f"go on with `sparsecircuits train --out '{out}' --resume`"
    assert (
        done.stderr.splitlines()[-1] == f"error: interrupted, the checkpoint of step 32 is saved: {how}"
    )  # the next dense gradient's
    assert "Traceback" not in done.stderr
    assert checkpoint_steps(out)[-1] == 32
    gone_on_with(out)
    assert_same_run(out, whole)


@pytest.mark.parametrize("every", [1, 7])
def test_sigterm_saves_where_weights_are_not_held(corpus, tmp_path, every):
    """Between two dense gradients weights are held; a checkpoint there would change the end of the run."""
    config = parse([*command(tmp_path, corpus), "--sparsity.regrow-every", str(every)]).config
    config = dataclasses.replace(config, steps=30, checkpoint_every=1000)
    expected = sc.train(config, tmp_path / "whole").state_dict()

    def stop(status):
        if status.step == 12:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="--resume"):
        sc.train(config, tmp_path / "run", report=stop)
    assert signal.getsignal(signal.SIGTERM) == before
    assert checkpoint_steps(tmp_path / "run") == [13 if every == 1 else 14]
    resumed = sc.train(config, tmp_path / "run", resume=True).state_dict()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_killed_while_saving_ends_bit_equal(corpus, whole, tmp_path):
    killed = tmp_path / "killed"
    assert forked.run(*command(killed, corpus), code=KILL_WHILE_SAVING).returncode == -signal.SIGKILL
    assert checkpoint_steps(killed) == [10, 15, 20]
    assert list((killed / "checkpoints").glob(".*.part"))
    for name in ("model.safetensors", "metrics.jsonl"):  # as a kill at another moment leaves them
        (killed / f".{name}.x1y2.part").write_text("half")
    gone_on_with(killed)
    assert not list(killed.rglob(".*"))
    assert_same_run(killed, whole)


def refusal(*arguments):
    with pytest.raises(sc.UserError) as error:
        parse(["train", *map(str, arguments)])
    return str(error.value)


def test_resume_takes_what_agrees_and_names_what_does_not(corpus, whole):
    again = ["train", "--out", str(whole), "--resume"]
    saved = parse(again).config
    assert (saved.steps, saved.accumulate, saved.model.d_model, saved.seed) == (60, 2, 32, 0)
    assert parse([*command(whole, corpus), "--resume"]).config == saved, "the same command line with --resume"
    assert parse([*command(whole, corpus), "--preset", "nano", "--resume"]).config == saved
    start = "--resume goes on with the saved config: "
    for options, wanted in {
        ("--optimizer.lr", "0.5"): "--optimizer.lr 0.5 contradicts its 0.08; leave it out",
        ("--batch-size=8",): "--batch-size 8 contradicts its 4; leave it out",
        ("--minutes", "3"): "--minutes 3.0 contradicts its None; leave it out",
        ("--steps", "61"): "--steps 61 contradicts its 60; leave it out",
        ("--seed", "1", "--steps", "60"): "--seed 1 contradicts its 0; leave it out",
        ("--model.no-sink",): "--model.sink False contradicts its True; leave it out",
        ("--optimizer.no-sharkfin",): "--optimizer.sharkfin False contradicts its True; leave it out",
        ("--preset", "micro", "--steps", "60"): "--preset, which means --model.",
        ("--dense",): "--dense, which means --model.afrac None, contradicts its 0.25; leave it out",
    }.items():
        assert refusal("--out", whole, "--resume", *options).startswith(start + wanted), options


def test_resume_without_a_run_is_refused(tmp_path):
    assert refusal("--out", tmp_path / "none", "--resume").startswith("no model config at")


def test_files_that_are_no_checkpoints_are_left_alone(tmp_path):
    save_checkpoint(tmp_path, 1, {"x": torch.zeros(2)}, keep=2)
    folder = tmp_path / "checkpoints"
    strangers = [folder / name for name in ("step-foo.pt", "step-.pt", "step-1-2.pt", "step-9 copy.pt", "step-٣.pt")]
    for path in strangers:
        path.write_text("mine")
    save_checkpoint(tmp_path, 2, {"x": torch.ones(2)}, keep=1)
    assert checkpoint_steps(tmp_path) == [2]
    assert load_checkpoint(tmp_path)[0] == 2
    assert all(path.exists() for path in strangers)


def test_a_checkpoint_with_code_is_refused_in_a_line(tmp_path):
    class Bomb:
        def __reduce__(self):
            return print, ("executed",)

    path = save_checkpoint(tmp_path, 1, {"x": Bomb()}, keep=1)
    with pytest.raises(sc.UserError, match="contains code") as refused:
        load_checkpoint(tmp_path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_damaged_checkpoints_fall_back(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"x": torch.tensor([step])}, keep=2)
    assert checkpoint_steps(tmp_path) == [2, 3]
    newest = tmp_path / "checkpoints" / "step-00000003.pt"
    newest.write_bytes(newest.read_bytes()[:-20])
    with pytest.warns(UserWarning, match="is damaged"):
        step, state = load_checkpoint(tmp_path)
    assert (step, int(state["x"])) == (2, 2)
    (tmp_path / "checkpoints" / "step-00000002.sha256").unlink()
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(sc.UserError, match="all checkpoints"):
        load_checkpoint(tmp_path)
