"""The benchmarks' rows."""

import time
from functools import partial

import pytest
import torch

from sparsecircuits import benchmarks
from sparsecircuits.benchmarks import inference
from sparsecircuits.models.config import ModelConfig
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


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_decode_leaves_most_out_by_default(monkeypatch):
    """One density and the baselines that one would name; the rest, which takes minutes, with --full alone."""
    monkeypatch.setattr(inference, "ModelConfig", partial(ModelConfig, n_layer=1, d_model=32, n_ctx=96))
    monkeypatch.setattr(inference, "LONG", 1 << 12)
    monkeypatch.setattr(inference, "PAPER", 2e4)
    few, full = (len(list(inference.decode_races(full))) for full in (False, True))
    assert (few, full) == (1, 10)
    assert {"decode", "prefill"} == set(inference.LEFT_OUT) == set(benchmarks.FULL)
