"""Training beside other programs: the time of a step of nano, with threads that sleep and with threads that spin.

python benchmarks/busy.py [ROUNDS]

Each measurement is a process of its own, for OpenMP reads its settings once: 24 steps alone, then 24 beside one process
that never stops, in turn for OMP_WAIT_POLICY passive (this package's default) and active, and for one thread.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace

STEPS = 24
WAYS = {
    "threads that sleep": {"OMP_WAIT_POLICY": "passive"},
    "threads that spin": {"OMP_WAIT_POLICY": "active"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def measure() -> dict[str, float]:
    """Median milliseconds of a step, alone and beside a busy process."""
    from sparsecircuits.benchmarks import TrainingSteps
    from sparsecircuits.training.config import preset

    config = preset("nano")
    steps = TrainingSteps(replace(config, steps=1000, dtype="float32", bigram_init="uniform"))
    steps()

    def median() -> float:
        taken = []
        for _ in range(STEPS // steps.count):
            start = time.perf_counter()
            steps()
            taken.append(1e3 * (time.perf_counter() - start) / steps.count)
        return statistics.median(taken)

    alone = median()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        beside = median()
        other.kill()
    return {"alone": alone, "beside a busy process": beside}


def main(rounds: int) -> None:
    """Print a table of medians over the rounds."""
    found = defaultdict(list)
    for _ in range(rounds):
        for way, settings in WAYS.items():
            line = [sys.executable, __file__, "measure"]
            done = subprocess.run(line, env={**os.environ, **settings}, capture_output=True, text=True, check=True)
            for when, value in json.loads(done.stdout).items():
                found[way, when].append(value)
    for (way, when), values in found.items():
        print(f"{way:20} {when:22} {statistics.median(values):8.0f} ms a step   {sorted(map(round, values))}")


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measure()))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
