"""What is drawn: the curves of one or more runs, sorted into panels. Reads `metrics.jsonl` alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsecircuits.errors import UserError
from sparsecircuits.runs import METRICS_NAME
from sparsecircuits.training.metrics import read_metrics

AXES = {"steps": "step", "tokens": "tokens", "minutes": "seconds"}
"""Horizontal axes, and the field of a metrics line that each comes from."""
MOST_POINTS = 1500
SMOOTHED_SHARE = 0.02


@dataclass(frozen=True)
class Curve:
    """One quantity of one run: x by axis name, y and (for noisy quantities) y smoothed, all [n]."""

    run: int
    label: str
    x: dict[str, np.ndarray]
    y: np.ndarray
    smooth: np.ndarray | None = None
    points: bool = False
    """Few and exact: drawn with a marker at each."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    key: str
    title: str
    unit: str
    log: bool
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Quantity:
    """A field of the metrics, and how it is shown."""

    field: str
    panel: str
    label: str = ""
    noisy: bool = False
    points: bool = False
    scale: float = 1.0


PANELS = {
    "loss": ("Loss", "nats a token", False),
    "density": ("Density", "% of weights nonzero", True),
    "nonzeros": ("L0", "nonzero weights", True),
    "lr": ("Learning rate", "", False),
    "alive": ("Alive neurons", "% of MLP neurons that fire", False),
    "speed": ("Speed", "tokens a second", False),
}
QUANTITIES = (
    Quantity("loss", "loss", "training", noisy=True),
    Quantity("val_loss", "loss", "validation", points=True),
    Quantity("density", "density", scale=100),
    Quantity("nonzeros", "nonzeros"),
    Quantity("lr", "lr"),
    Quantity("alive_share", "alive", points=True, scale=100),
    Quantity("tokens_per_second", "speed", noisy=True),
)


@dataclass(frozen=True)
class Run:
    """A run's name and the lines of its metrics."""

    name: str
    lines: list[dict[str, Any]]


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs at some directories (or metrics files), with names that tell them apart.

    Raises UserError for a path without metrics, or a run that has not logged a step yet.
    """
    files = [Path(path) / METRICS_NAME if Path(path).is_dir() else Path(path) for path in paths]
    runs = []
    for path, file in zip(paths, files, strict=True):
        if not file.exists():
            raise UserError(f"no {METRICS_NAME} at {path}: give the directory of a training run")
        lines = [line for line in _metrics(file) if isinstance(line, dict) and _number(line.get("step"))]
        if not any(_number(line.get("loss")) for line in lines):
            raise UserError(f"{file} holds no training step yet")
        runs.append(Run("", _with_axes(lines)))
    return [Run(name, run.lines) for name, run in zip(_names(files), runs, strict=True)]


def _metrics(file: Path) -> list[dict[str, Any]]:
    try:
        return read_metrics(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}") from error


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _names(files: Sequence[Path]) -> list[str]:
    """The runs' folder names, with as many parents as it takes to tell them apart."""
    parts = [file.resolve().parent.parts for file in files]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names


def _with_axes(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines with tokens, seconds and the share of alive neurons filled in where they can be.

    Lines that hold a step alone (validation losses of older runs) get the others by interpolation.
    """
    known = {
        field: np.array([(line["step"], line[field]) for line in lines if _number(line.get(field))], dtype=float)
        for field in ("tokens", "seconds")
    }
    filled = []
    for line in lines:
        line = dict(line)
        for field, pairs in known.items():
            if not _number(line.get(field)) and len(pairs):
                line[field] = float(np.interp(line["step"], pairs[:, 0], pairs[:, 1]))
        if line.get("neurons"):
            line["alive_share"] = line["alive_neurons"] / line["neurons"]
        filled.append(line)
    return filled


def smoothed(y: np.ndarray) -> np.ndarray:
    """A centred moving average over 2% of the points (at least 3), narrower at the ends."""
    half = max(1, round(SMOOTHED_SHARE * len(y) / 2))
    total = np.concatenate([[0.0], np.cumsum(y)])
    place = np.arange(len(y))
    width = np.minimum(half, np.minimum(place, len(y) - 1 - place))
    return (total[place + width + 1] - total[place - width]) / (2 * width + 1)


def thinned(values: np.ndarray) -> np.ndarray:
    """At most MOST_POINTS values: means of neighbours, the last value kept as it is."""
    if len(values) <= MOST_POINTS:
        return values
    size = -(-(len(values) - 1) // (MOST_POINTS - 1))
    edges = np.arange(0, len(values) - 1, size)
    counts = np.diff(np.append(edges, len(values) - 1))
    return np.append(np.add.reduceat(values[:-1], edges) / counts, values[-1])


def _curve(place: int, run: Run, quantity: Quantity) -> Curve | None:
    lines = [line for line in run.lines if _number(line.get(quantity.field))]
    if not lines:
        return None
    y = quantity.scale * np.array([line[quantity.field] for line in lines], dtype=float)
    x = {
        axis: thinned(np.array([line.get(field, math.nan) for line in lines], dtype=float))
        / (60 if axis == "minutes" else 1)
        for axis, field in AXES.items()
    }
    smooth = thinned(smoothed(y)) if quantity.noisy and len(y) > 4 else None
    return Curve(place, quantity.label, x, thinned(y), smooth, quantity.points)


def panels(runs: Sequence[Run]) -> list[Panel]:
    """The panels that at least one run has data for, in reading order."""
    found = []
    for key, (title, unit, log) in PANELS.items():
        made = [
            _curve(place, run, quantity)
            for quantity in QUANTITIES
            if quantity.panel == key
            for place, run in enumerate(runs)
        ]
        curves = tuple(curve for curve in made if curve is not None)
        if curves:
            found.append(Panel(key, title, unit, log, curves))
    return found
