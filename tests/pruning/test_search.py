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
from sparsecircuits.locks import locked
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.planted.models import QUOTE_NODES
from sparsecircuits.pruning import many
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.search import JOURNAL, RANGES, SUMMARY, _identity, _open_study, search

TINY = PruneConfig(steps=40, pairs=8, eval_pairs=8, restarts=0, edge_steps=15, lr=4e-2)
PROGRAM = """
import sys
import torch
import sparsecircuits as sc
from sparsecircuits.pruning.search import search
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.nodes.space import NodeSpace

if __name__ == "__main__":
    model = sc.load_model(sys.argv[1])
    means = torch.zeros(NodeSpace.of(model.config).size)
    config = PruneConfig(steps=40, pairs=8, eval_pairs=8, restarts=0, edge_steps=15, lr=4e-2)
    task = sc.get_task("single_double_quote.plain", model.tokenizer)
    search(model, task, 0.15, sys.argv[2], trials=3, workers=sys.argv[3], config=config, means=means)
"""


@pytest.fixture(scope="module")
def parts(handmade_run):
    model = sc.load_model(handmade_run)
    task = sc.get_task("single_double_quote.plain", model.tokenizer)
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
    (folder / "study.journal.lock").symlink_to("study.journal")  # as Optuna's own lock is after a kill: dangling
    (folder / ".search.json.x1y2.part").write_text("half")
    circuit = search(model, task, 0.15, folder, trials=3, workers=1, config=TINY, means=means)
    for name, data in before.items():
        assert (folder / name).read_bytes() == data
    summary = json.loads((folder / SUMMARY).read_text())
    assert len(summary["trials"]) == 3
    first = summary["trials"][0]["params"]
    assert first == {name: getattr(TINY, name) for name in RANGES}  # the centres come first
    assert circuit.node_names == QUOTE_NODES
    assert circuit.found_by.search.trials == 3
    losses = [loss for _, _, loss in summary["pareto"]]
    assert losses == sorted(losses, reverse=True)
    # Nothing is left to do: the same call gives the same circuit at once.
    again = search(model, task, 0.15, folder, trials=3, workers=1, config=TINY, means=means)
    assert again == circuit
    assert json.loads((folder / SUMMARY).read_text()) == summary
    with pytest.raises(sc.UserError, match="another target_loss"):
        search(model, task, 0.2, folder, trials=3, config=TINY, means=means)


@pytest.mark.parametrize("cut", [1, 7, 10**9])
def test_a_journal_that_was_cut_goes_on_from_its_last_whole_line(tmp_path, parts, cut):
    model, task, _ = parts
    identity = _identity(model, task, 0.15, TINY)
    study = _open_study(tmp_path, identity, TINY)
    study.tell(study.ask(), 3.0)
    journal = tmp_path / JOURNAL
    data = journal.read_bytes()
    journal.write_bytes(data[:-cut] if cut < len(data) else data + b'{"op_code": \n')
    with pytest.warns(UserWarning, match="study.journal is damaged after"):
        study = _open_study(tmp_path, identity, TINY)
    assert len(study.get_trials()) in (1, 2)
    assert journal.read_bytes().startswith(data[: data[:-cut].rfind(b"\n") + 1])


def test_two_searches_at_once_are_refused(tmp_path, parts):
    model, task, means = parts
    taken = locked(tmp_path / ".lock", "a search")
    with taken, pytest.raises(sc.UserError, match=rf"a search in .* is going on in process {os.getpid()}"):
        search(model, task, 0.15, tmp_path, trials=1, config=TINY, means=means)


def test_two_prunings_into_one_circuit_folder_are_refused_before_any_work(tmp_path, parts, monkeypatch):
    model, task, means = parts
    monkeypatch.setattr(many, "prune", lambda *_, **__: pytest.fail("it began to prune"))
    monkeypatch.setattr(many, "training_means", lambda *_: pytest.fail("it began to read the corpus"))
    others = [sc.get_task("if_equals", model.tokenizer), task]
    with locked(tmp_path / task.name / ".lock", "another"):
        for begin in (
            lambda: next(many.prune_tasks(model, others, tmp_path, keep=many.save_circuit, means=means)),
            lambda: next(many.prune_tasks(model, others, tmp_path, keep=many.save_circuit, means=means, workers=2)),
            lambda: next(many.search_tasks(model, others, tmp_path, keep=many.save_circuit, trials=1)),
        ):
            with pytest.raises(sc.UserError, match=rf"a pruning into .* is going on in process {os.getpid()}"):
                begin()
    assert os.listdir(tmp_path) == []


POOL = """
import sys, time
from sparsecircuits.pruning.workers import pool
if __name__ == "__main__":
    with pool(time.sleep, 2, 2) as (submit, size):
        calls = [submit(float(sys.argv[1])) for _ in range(size)]
        print("started", flush=True)
        calls[0].result()
"""


@pytest.mark.parametrize("signal_sent", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_a_parent_that_ends_as_they_start(tmp_path, signal_sent):
    """Killed before they could ask who their parent is; and Ctrl-C, which goes to the whole group, as a shell does."""
    program = tmp_path / "pool.py"
    program.write_text(POOL)
    command = [sys.executable, str(program), "60"]
    with open(tmp_path / "errors", "w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
    try:
        assert process.stdout.readline() == b"started\n"
        time.sleep(0.2)
        if signal_sent == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=30)
        end = time.monotonic() + 30
        while alive(process.pid) and time.monotonic() < end:
            time.sleep(0.1)
        assert not alive(process.pid)
        assert (tmp_path / "errors").read_text().count("Traceback") <= (signal_sent == signal.SIGINT)  # its own
    finally:
        process.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_script_without_a_main_guard_is_told_once(tmp_path):
    program = tmp_path / "pool.py"
    program.write_text(POOL.replace('if __name__ == "__main__":', "if True:"))
    command = [sys.executable, str(program), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert 'under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
    assert done.stderr.count("Traceback") == 1
    assert len(done.stderr.splitlines()) < 20


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
