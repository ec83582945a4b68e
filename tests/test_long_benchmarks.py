"""Benchmarks that are stopped and called again: what they keep, and the table of what surviving costs."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def test_records_are_read_back(benchmark_module, tmp_path):
    records, path = benchmark_module("records"), tmp_path / "records.jsonl"
    assert records.read_records(path) == []
    for seed in range(2):
        records.add_record(path, {"seed": seed, "task": "a"})
    assert records.read_records(path, seed=1) == [{"seed": 1, "task": "a"}]
    assert len(records.read_records(path)) == 2


def test_the_table_of_survival_has_a_row_a_task_and_says_what_does_not_hold(benchmark_module, tmp_path):
    survival = benchmark_module("survival")
    row = {"model": "m", "task": "t"}
    cells = [
        {**row, "cell": "mean", "nodes": 8, "edges": 6, "loss": 0.1},
        {**row, "cell": "stochastic", "nodes": 9, "edges": 7, "loss": 0.1, "held": False, "worst": 0.333, "rounds": 6},
        {**row, "cell": "resample", "words": "no set of nodes holds"},
        {**row, "cell": "backups", "ways": [[8, 6, 0.1]] * 2, "core": 1, "exhausted": False, "jaccard_nodes": 0.5,
         "jaccard_edges": 0.25},
        {**row, "task": "u", "cell": "mean", "nodes": 1, "edges": 0, "loss": 0.1},
    ]  # fmt: skip
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- survival -->\nold\n<!-- end of survival -->\nafter\n", encoding="utf-8")
    survival.write(cells, page)
    written = page.read_text(encoding="utf-8").split("\n")
    assert written[5] == "| m | t | 8, 6 | (9, 7; 0.33) |  | none | at least 2 | 1 | 0.50, 0.25 |"
    assert written[6] == "| m | u | 1, 0 |  |  |  |  |  |  |"
    assert (written[0], written[-2], "old" in written) == ("before", "after", False)
