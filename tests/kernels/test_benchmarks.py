"""The benchmarks' rows."""

import time

import pytest
import torch

from sparsecircuits import benchmarks
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.training.config import nano


def test_rows_hold_medians_their_ratio_and_the_bandwidth(monkeypatch):
    case = benchmarks.Case(
        "naps", lambda: time.sleep(0.004), "long naps", lambda: time.sleep(0.04), bytes_moved=40_000_000
    )
    monkeypatch.setattr(benchmarks, "BENCHMARKS", {"naps": lambda: iter([case]), "other": lambda: iter([1 / 0])})
    (row,) = benchmarks.run_benchmarks("naps", 3)
    assert row["case"] == "naps"
    assert row["baseline"] == "long naps"
    assert row["ratio"] == pytest.approx(row["baseline_ms"] / row["ours_ms"], rel=0.01)
    assert row["ratio"] > 2
    assert row["gb_per_s"] == pytest.approx(40 / row["ours_ms"], abs=0.051)  # it has one decimal


def test_plain_pytorch_runs_the_preset_with_its_sinks():
    model, ids = SparseTransformer(nano().model), torch.randint(0, 2048, (2, 20))
    with torch.no_grad():
        model.blocks[0].attn.sink_logit.fill_(1.0)
        ours = model(ids)
        with benchmarks.plain_pytorch():
            torch.testing.assert_close(model(ids), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cases_of_a_gpu_are_not_made_without_one():
    names = [case.name for make in ("abstopk", "project") for case in benchmarks.BENCHMARKS[make]()]
    assert names
    assert not any("CUDA" in name for name in names)
