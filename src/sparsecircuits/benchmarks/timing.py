"""Functions timed in turn, in one run, and what is said of them: medians and their ratio."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Case:
    """One comparison; both functions do the same work, ours `times` times a call. bytes_moved: what ours reads and
    writes at the least, for cases that memory should bound."""

    name: str
    ours: Callable[[], object]
    baseline_name: str
    baseline: Callable[[], object]
    bytes_moved: int | None = None
    times: int = 1

    def rows(self, rounds: int) -> list[dict[str, Any]]:
        """One row, medians of interleaved runs."""
        ours, baseline = interleaved(self.ours, self.baseline, rounds)
        ours /= self.times
        found = row(self.name, ours, self.baseline_name, baseline)
        return [found if self.bytes_moved is None else {**found, "gb_per_s": round(self.bytes_moved / ours / 1e6, 1)}]


def row(case: str, ours_ms: float, baseline: str, baseline_ms: float) -> dict[str, Any]:
    """A row of the contract."""
    return {
        "case": case,
        "ours_ms": round(ours_ms, 3),
        "baseline": baseline,
        "baseline_ms": round(baseline_ms, 3),
        "ratio": round(baseline_ms / ours_ms, 3),
    }


@dataclass(frozen=True)
class Race:
    """One comparison with several baselines, all interleaved, each doing the same work `times` times a call. more: what
    else a row says, from ours in milliseconds. less: for some baselines, a function whose time is taken off."""

    name: str
    ours: Callable[[], object]
    baselines: Mapping[str, Callable[[], object]]
    more: Callable[[float], dict[str, Any]] = lambda _ours: {}
    less: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    times: int = 1

    def rows(self, rounds: int) -> list[dict[str, Any]]:
        """A row for each baseline, medians of interleaved runs."""
        ours, *times = medians([self.ours, *self.baselines.values(), *self.less.values()], rounds)
        off = dict(zip(self.less, times[len(self.baselines) :], strict=True))
        return [
            {**row(self.name, ours / self.times, name, (taken - off.get(name, 0)) / self.times)}
            | self.more(ours / self.times)
            for name, taken in zip(self.baselines, times, strict=False)
        ]


def interleaved(ours: Callable[[], object], baseline: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median milliseconds of each, taken in turn after one warm-up of both."""
    first, second = medians([ours, baseline], rounds)
    return first, second


def medians(functions: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median milliseconds of each of some functions, taken in turn after one warm-up of all."""
    times: list[list[float]] = [[] for _ in functions]
    for done in range(rounds + 1):
        for function, taken in zip(functions, times, strict=True):
            _wait()
            start = time.perf_counter()
            function()
            _wait()
            if done:
                taken.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(taken) for taken in times]


def _wait() -> None:
    """Until the GPU, if there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
