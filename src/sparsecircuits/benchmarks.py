"""Benchmarks: ours and a named baseline in turn, in one run, medians and their ratio.

sparsecircuits bench               all of them
sparsecircuits bench abstopk --json
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from sparsecircuits.kernels import abstopk, project_topk_, sparse_linear
from sparsecircuits.training.config import TrainConfig, dense_twin, preset
from sparsecircuits.training.hardware import keep_freed_memory


@dataclass(frozen=True)
class Case:
    """One comparison; both functions do the same work."""

    name: str
    ours: Callable[[], object]
    baseline_name: str
    baseline: Callable[[], object]


def run_benchmarks(
    name: str | None, rounds: int, update: Callable[[float, str], None] | None = None
) -> list[dict[str, Any]]:
    """Rows of the contract: case, ours_ms, baseline, baseline_ms, ratio = baseline / ours (medians)."""
    keep_freed_memory()
    torch.manual_seed(0)
    cases = [case for key, make in BENCHMARKS.items() if name in (None, key) for case in make()]
    rows = []
    for place, case in enumerate(cases):
        if update is not None:
            update(place / len(cases), case.name)
        ours, baseline = interleaved(case.ours, case.baseline, rounds)
        rows.append(
            {
                "case": case.name,
                "ours_ms": round(ours, 3),
                "baseline": case.baseline_name,
                "baseline_ms": round(baseline, 3),
                "ratio": round(baseline / ours, 3),
            }
        )
    return rows


def interleaved(ours: Callable[[], object], baseline: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median milliseconds of each, taken in turn after one warm-up of both."""
    times: tuple[list[float], list[float]] = ([], [])
    for done in range(rounds + 1):
        for function, taken in zip((ours, baseline), times, strict=True):
            start = time.perf_counter()
            function()
            if done:
                taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def _abstopk_cases() -> Iterator[Case]:
    for rows, width in ((4096, 256), (4096, 1024)):
        x, k = torch.randn(rows, width), width // 4

        def plain(x: torch.Tensor = x, k: int = k) -> torch.Tensor:
            kept = x.abs().topk(k, dim=-1, sorted=False).indices
            return torch.zeros_like(x).scatter_(-1, kept, x.gather(-1, kept))

        yield Case(
            f"AbsTopK {rows}x{width}, k = 1/4, float32, CPU",
            partial(abstopk, x, k),
            "torch.topk + scatter",
            plain,
        )


def _project_copy(weight: torch.Tensor, k: int) -> torch.Tensor:
    return project_topk_(weight.clone(), k)


def _project_cases() -> Iterator[Case]:
    for density in (0.02, 0.3):
        weight, k = torch.randn(1024, 1024), int(density * 1024 * 1024)

        def plain(weight: torch.Tensor = weight, k: int = k) -> torch.Tensor:
            work = weight.clone()
            threshold = work.abs().flatten().kthvalue(work.numel() - k + 1).values
            return work.mul_(work.abs() >= threshold)

        yield Case(
            f"projection of 1M weights to {density:.0%}, no floor, CPU",
            partial(_project_copy, weight, k),
            "torch.kthvalue + mask",
            plain,
        )


def _sparse_linear_cases() -> Iterator[Case]:
    for density in (0.01, 0.02, 0.12):
        x, weight = torch.randn(4096, 256), torch.randn(1024, 256)
        project_topk_(weight, int(density * weight.numel()))
        yield Case(
            f"linear 256 -> 1024 at {density:.0%}, 4096 tokens, CPU",
            partial(sparse_linear, x, weight),
            "dense product",
            partial(F.linear, x, weight),
        )


class _Step:
    """One training step of a preset on random tokens, without a corpus."""

    def __init__(self, config: TrainConfig) -> None:
        from pathlib import Path

        from sparsecircuits.data import TokenData, Tokenizer
        from sparsecircuits.training.loop import _Run

        ids = np.random.default_rng(0).integers(0, 2048, 200_000).astype(np.uint16)
        tokens = TokenData(train=ids, val=ids[:5000], manifest={}, cached=False)
        self.run = _Run(config, Path("unused"), tokens, Tokenizer.default(), torch.device("cpu"))

    def __call__(self) -> None:
        self.run._take_step(0.75)


def _train_step_cases() -> Iterator[Case]:
    for batch in (16, 32):
        config = replace(preset("nano"), batch_size=batch, steps=1000, dtype="float32")
        yield Case(
            f"training step, nano, {batch} sequences, 2% nonzero, CPU",
            _Step(config),
            "dense step",
            _Step(dense_twin(config)),
        )


SCALE_WIDTHS = (128, 256, 512)
SCALE_DENSITIES = (1.0, 0.1, 0.02, 0.01)


def _train_scale_cases() -> Iterator[Case]:
    """A step's cost over width and density: 2 layers, 8 sequences of 128 tokens; the baseline is dense.

    Density 1 keeps AbsTopK and drops only the zeros, so its row shows what the activations' sparsity costs.
    The floor shrinks where a row of the narrow models has no room for four nonzeros.
    """
    for width in SCALE_WIDTHS:
        nano = preset("nano")
        model = replace(nano.model, d_model=width)
        base = replace(nano, model=model, batch_size=8, steps=1000, dtype="float32", bigram_init="uniform")
        dense = _Step(dense_twin(base))
        for density in SCALE_DENSITIES:
            sparsity = replace(base.sparsity, density=density, floor=min(base.sparsity.floor, int(density * width)))
            step = _Step(replace(base, sparsity=sparsity))
            yield Case(f"training step, d_model {width}, {density:.0%} nonzero, CPU", step, "dense step", dense)


BENCHMARKS: dict[str, Callable[[], Iterator[Case]]] = {
    "abstopk": _abstopk_cases,
    "project": _project_cases,
    "sparse-linear": _sparse_linear_cases,
    "train-step": _train_step_cases,
    "train-scale": _train_scale_cases,
}
