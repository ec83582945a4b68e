"""One table and one plot of many circuits: edges against target loss, for one or several models."""

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from sparsecircuits.files import write_text
from sparsecircuits.pruning.size_curve import Point, edges_at

TARGETS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
COLUMNS = {
    "model": "model",
    "task": "task",
    "loss": "circuit",
    "loss_full_calibrated": "whole model",
    "loss_ablated_calibrated": "without it",
    "loss_raw": "circuit, raw",
    "loss_full": "whole model, raw",
    "loss_ablated": "without it, raw",
    "order": "in order",
    "n_nodes": "nodes",
    "n_edges": "edges",
    "seconds": "seconds",
    "skipped": "skipped",
}
"""Of a circuit's record, what stands in the table, and under which heading."""
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 400, 64, 48, 44, 16

Curves = dict[str, dict[str, list[Point]]]
"""model -> task -> Pareto front of (nodes, edges, loss)."""
Row = Mapping[str, object]
"""A circuit, or why there is none: what stands in which of the columns."""


class Mean(TypedDict):
    """A model's geometric mean of edges at a target, and the tasks that it is over."""

    model: str
    target_loss: float
    tasks: list[str]
    geometric_mean_edges: float | None


def geometric_mean_edges(fronts: list[list[Point]], target: float) -> float | None:
    """Geometric mean over tasks of the fewest edges that hold a target (Gao et al. 2025); None unless every
    task holds it. A task that needs none counts as 1, since the mean of a zero would be zero."""
    edges = [edges_at(front, target) for front in fronts]
    if not edges or any(count is None for count in edges):
        return None
    return math.exp(sum(math.log(max(1, count or 0)) for count in edges) / len(edges))


def shared_curves(curves: Curves) -> Curves:
    """The tasks that every model has a circuit for: only these may be compared."""
    shared = set.intersection(*(set(tasks) for tasks in curves.values())) if curves else set()
    return {model: {task: tasks[task] for task in sorted(shared)} for model, tasks in curves.items()}


def summary(curves: Curves, target: float) -> list[Mean]:
    """Per model: the geometric mean of edges at a target over the tasks that all models share, and which."""
    return [
        {
            "model": model,
            "target_loss": target,
            "tasks": list(tasks),
            "geometric_mean_edges": geometric_mean_edges(list(tasks.values()), target),
        }
        for model, tasks in shared_curves(curves).items()
    ]


def write_table(folder: Path, rows: Sequence[Row], curves: Curves, target: float) -> list[Path]:
    """Write `table.md` and, if there is a circuit, `edges.svg`. Returns their paths."""
    written = [write_text(folder / "table.md", markdown(rows, summary(curves, target)))]
    if any(shared_curves(curves).values()):
        written.append(write_text(folder / "edges.svg", plot(curves)))
    return written


def markdown(rows: Sequence[Row], means: Sequence[Mean]) -> str:
    """The table as Markdown, then the geometric means. Losses are on held-out prompts, calibrated but where it says
    raw; "in order" is the share of pairs that the circuit puts in the right order."""
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in COLUMNS) + " |" for row in rows]
    lines.append("")
    for mean in means:
        lines.append(
            f"- {mean['model']}: geometric mean of edges at {mean['target_loss']} over {len(mean['tasks'])} tasks: "
            f"{_cell(mean['geometric_mean_edges'])}"
        )
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", r"\|")


def plot(curves: Curves) -> str:
    """An SVG: target loss across (log), edges up (log). Thin lines are tasks, thick ones the geometric mean
    over the tasks that all models share."""
    curves = shared_curves(curves)
    most = max([2, *(edges for tasks in curves.values() for front in tasks.values() for _, edges, _ in front)])
    parts = [_axes(most)]
    for place, (model, tasks) in enumerate(curves.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        for name, front in tasks.items():
            points = [(target, edges_at(front, target)) for target in TARGETS]
            parts.append(_line(points, most, colour, 1, f"{model}: {name}"))
        means = [(target, geometric_mean_edges(list(tasks.values()), target)) for target in TARGETS]
        parts.append(_line(means, most, colour, 3, f"{model}: geometric mean of {len(tasks)} tasks"))
        parts.append(f'<text x="{_LEFT + 8}" y="{18 + 14 * place}" fill="{colour}">{html.escape(model)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _x(target: float) -> float:
    low, high = math.log(TARGETS[0]), math.log(TARGETS[-1])
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (math.log(target) - low) / (high - low)


def _y(edges: float, most: int) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * math.log(max(1.0, edges)) / math.log(most)


def _line(points: Sequence[tuple[float, float | None]], most: int, colour: str, width: int, title: str) -> str:
    shown = " ".join(f"{_x(t):.1f},{_y(edges, most):.1f}" for t, edges in points if edges is not None)
    return (
        f'<polyline points="{shown}" fill="none" stroke="{colour}" stroke-width="{width}" '
        f'stroke-opacity="{0.35 if width == 1 else 1}"><title>{html.escape(title)}</title></polyline>'
    )


def _axes(most: int) -> str:
    parts = []
    for target in TARGETS:
        parts.append(f'<text x="{_x(target):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{target}</text>')
    for power in range(int(math.log10(most)) + 1):
        y = _y(10**power, most)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10**power}</text>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 10}" text-anchor="middle">target loss (nats)</text>')
    parts.append(f'<text x="14" y="{_HEIGHT / 2}" transform="rotate(-90 14 {_HEIGHT / 2})">edges</text>')
    return "".join(parts)
