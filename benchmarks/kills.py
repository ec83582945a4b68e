"""Kill small trainings at random moments beside a busy process, and compare their ends with one that nothing disturbed.

python benchmarks/kills.py [ROUNDS] [SEED] [HALF]

First ROUNDS (20) trainings, each killed once (SIGKILL) between its first file and its last and gone on with; then as
many where two processes are started into each folder, at the start and again at `--resume`: one of the two must be
refused in one line. All must end with the same bits in every weight and the same loss at every step. dtype is auto.
HALF, 1 or 2, runs only one of the two.
"""

import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from sparsecircuits.data.tinypython import generate_files
from sparsecircuits.models.storage import load_tensors
from sparsecircuits.runs import CONFIG_NAME, METRICS_NAME, WEIGHTS_NAME
from sparsecircuits.training.checkpoints import checkpoint_steps
from sparsecircuits.training.metrics import read_metrics

OPTIONS = (
    "--steps 120 --checkpoint-every 10 --eval-every 40 --batch-size 4 --model.d-model 32 --model.d-head 8 "
    "--model.n-layer 1 --model.n-ctx 32 --sparsity.density 0.25 --eval-tokens 2048"
).split()
REFUSED = re.compile(
    r"error: (a training into .* is going on in process \d+: wait for it, or end it|.* already holds a run)"
)


def start(out: Path, corpus: Path) -> subprocess.Popen:
    """A training into `out`, or what goes on with one."""
    more = ["--resume"] if (out / CONFIG_NAME).exists() else ["--data", str(corpus), *OPTIONS]
    command = [sys.executable, "-m", "sparsecircuits", "train", "--out", str(out), *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def start_alone(out: Path, corpus: Path, both: bool) -> subprocess.Popen:
    """A training; if both, the one of two that is not refused."""
    if not both:
        return start(out, corpus)
    two = [start(out, corpus), start(out, corpus)]
    while all(process.poll() is None for process in two):
        time.sleep(0.005)
    loser = next(process for process in two if process.poll() is not None)
    errors = [line for line in loser.communicate()[1].splitlines() if line.startswith("error: ")]
    assert loser.returncode == 1, "both went on"
    assert len(errors) == 1, errors
    assert REFUSED.match(errors[0]), errors
    two.remove(loser)
    return two[0]


def killed_and_resumed(out: Path, corpus: Path, moment: float, both: bool) -> int | None:
    """Kill a training `moment` seconds after its first file, go on with it to the end; the step of the checkpoint
    that it went on from. None if it was done before."""
    process = start_alone(out, corpus, both)
    while not (out / CONFIG_NAME).exists():
        time.sleep(0.002)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if process.returncode == 0:
        return None
    step = max(checkpoint_steps(out), default=0)
    process = start_alone(out, corpus, both)
    said = process.communicate()[1]
    assert process.returncode == 0, said
    return step


def same(run: Path, whole: Path) -> bool:
    """Whether two runs have the same weights and losses, to the bit, and left nothing beside them."""
    weights = [load_tensors(folder / WEIGHTS_NAME)[0] for folder in (whole, run)]
    losses = [[m["loss"] for m in read_metrics(folder / METRICS_NAME) if "loss" in m] for folder in (whole, run)]
    equal = all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())
    return equal and weights[0].keys() == weights[1].keys() and losses[0] == losses[1] and not list(run.rglob(".*"))


def main() -> None:
    given = [int(word) for word in sys.argv[1:]]
    rounds, seed, half = given + [20, 0, 0][len(given) :]
    drawn = random.Random(seed)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with tempfile.TemporaryDirectory() as name:
            folder, corpus = Path(name), Path(name) / "corpus"
            corpus.mkdir()
            for place, file in enumerate(generate_files(60, seed=5)):
                (corpus / f"file_{place}.py").write_text(file.text, encoding="utf-8", newline="\n")
            assert start(folder / "first", corpus).wait() == 0  # kernels and corpus come from their caches from here on
            whole = folder / "whole"
            process = start(whole, corpus)
            while not (whole / CONFIG_NAME).exists():
                time.sleep(0.002)
            began = time.monotonic()
            assert process.wait() == 0
            length = time.monotonic() - began
            print(f"undisturbed: {length:.1f} s from the first file to the end", flush=True)
            for both in {1: (False,), 2: (True,)}.get(half, (False, True)):
                steps: list[int] = []
                equal = tries = 0
                while len(steps) < rounds:
                    tries += 1
                    out = folder / f"{both}-{tries}"
                    step = killed_and_resumed(out, corpus, drawn.uniform(0, length), both)
                    if step is not None:
                        steps.append(step)
                        equal += same(out, whole)
                        print(f"{equal} of {len(steps)} bit-equal", end="\r", flush=True)
                what = "two runs a folder, one refused each time" if both else "one run a folder"
                print(
                    f"{what}: {equal} of {rounds} ends bit-equal; killed after checkpoints {sorted(steps)}", flush=True
                )
                assert equal == rounds
    finally:
        busy.kill()
        busy.wait()


if __name__ == "__main__":
    main()
