"""The search: real worker processes, a kill in the middle, what it refuses."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import sparsecircuits as sc
from handmade import QUOTE_NODES
from sparsecircuits.circuits.search import RANGES, SUMMARY, search
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.gates import NodeSpace

TINY = PruneConfig(steps=80, eval_pairs=8, edge_steps=15, lr=2e-2, margin=0.7)
PROGRAM = """
import sys
import torch
import sparsecircuits as sc
from sparsecircuits.circuits.search import search
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.gates import NodeSpace

if __name__ == "__main__":
    model = sc.load_model(sys.argv[1])
    means = torch.zeros(NodeSpace.of(model.config).size)
    config = PruneConfig(steps=80, eval_pairs=8, edge_steps=15, lr=2e-2, margin=0.7)
    task = sc.get_task("single_double_quote", model.tokenizer)
    search(model, task, 0.15, sys.argv[2], trials=3, workers=sys.argv[3], config=config, means=means)
"""


@pytest.fixture(scope="module")
def parts(handmade_run):
    model = sc.load_model(handmade_run)
    task = sc.get_task("single_double_quote", model.tokenizer)
    return model, task, torch.zeros(NodeSpace.of(model.config).size)


def finished(folder):
    """Trials that are told, by their circuit files."""
    return sorted(path.name for path in folder.glob("trial-*.json"))


def start(tmp_path, run, workers, **environment):
    program = tmp_path / "search.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(run), str(tmp_path / "search"), workers]
    return subprocess.Popen(command, start_new_session=True, env={**os.environ, **environment})


def alive(group):
    """Processes of a group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                found.append(stat.parent.name)
    return found


def test_a_killed_search_goes_on_with_nothing_lost(tmp_path, handmade_run, parts):
    model, task, means = parts
    folder = tmp_path / "search"
    process = start(tmp_path, handmade_run, "1")
    try:
        end = time.monotonic() + 600
        while not finished(folder) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.kill()
        process.wait()
        end = time.monotonic() + 60
        while alive(process.pid) and time.monotonic() < end:
            time.sleep(0.2)
        assert not alive(process.pid), "a worker outlives the search that it worked for"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = {name: (folder / name).read_bytes() for name in finished(folder)}
    assert 1 <= len(before) < 3
    circuit = search(model, task, 0.15, folder, trials=3, workers=1, config=TINY, means=means)
    for name, data in before.items():
        assert (folder / name).read_bytes() == data
    summary = json.loads((folder / SUMMARY).read_text())
    assert len(summary["trials"]) == 3
    first = summary["trials"][0]["params"]
    assert first == {name: getattr(TINY, name) for name in RANGES}  # the centres come first
    assert circuit.node_names == QUOTE_NODES
    assert circuit.found_by["search"]["trials"] == 3
    losses = [loss for _, _, loss in summary["pareto"]]
    assert losses == sorted(losses, reverse=True)
    # Nothing is left to do: the same call gives the same circuit at once.
    again = search(model, task, 0.15, folder, trials=3, workers=1, config=TINY, means=means)
    assert again == circuit
    assert json.loads((folder / SUMMARY).read_text()) == summary
    with pytest.raises(sc.UserError, match="another target_loss"):
        search(model, task, 0.2, folder, trials=3, config=TINY, means=means)


def test_wrong_uses_are_told(tmp_path, parts):
    model, task, means = parts
    with pytest.raises(sc.UserError, match="at least 1 trial"):
        search(model, task, 0.15, tmp_path, trials=0, means=means)
    with pytest.raises(sc.UserError, match="a number of processes or ray, not 'many'"):
        search(model, task, 0.15, tmp_path / "a", trials=1, workers="many", config=TINY, means=means)
    with pytest.raises(sc.UserError, match="the method is random"):
        search(model, task, 0.15, tmp_path, trials=1, config=PruneConfig(method="random"), means=means)
    hard = sc.get_task("bracket_counting", model.tokenizer)
    with pytest.raises(sc.UserError, match="whole model's loss"):
        search(model, hard, 0.15, tmp_path / "b", trials=1, config=TINY, means=means)


@pytest.mark.slow
def test_two_ray_nodes_share_one_study(tmp_path, handmade_run):
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        process = start(tmp_path, handmade_run, "ray", RAY_ADDRESS=cluster.address)
        assert process.wait(timeout=500) == 0
    finally:
        cluster.shutdown()
    summary = json.loads((tmp_path / "search" / SUMMARY).read_text())
    assert len(summary["trials"]) == 3
    assert min(row["n_edges"] for row in summary["trials"]) == 4
