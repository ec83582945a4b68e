"""`plot_runs`: the curves of runs, written as a PNG (matplotlib) or as a page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecircuits.errors import UserError, no_such
from sparsecircuits.files import atomic_path, write_text
from sparsecircuits.plots.curves import AXES, Curve, Panel, Run, panels, read_runs
from sparsecircuits.plots.page import render_page
from sparsecircuits.plots.style import look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXIS_TITLES = {"steps": "steps", "tokens": "tokens", "minutes": "minutes of training"}
INK, FAINT = "#333333", "#d9d9d9"


def plot_runs(paths: Sequence[str | Path], out: str | Path, *, axis: str = "steps") -> list[Panel]:
    """Draw runs against "steps", "tokens" or "minutes"; the ending of `out` decides: .png or .html.

    paths: run directories, or files like metrics.jsonl. Returns the panels that were drawn.
    Raises UserError for another ending, another axis, or a path without metrics.
    """
    out = Path(out)
    if axis not in AXES:
        raise UserError(no_such("no axis", axis, AXES))
    if out.suffix.lower() not in (".png", ".html"):
        raise UserError(f"cannot write {out}: a plot ends in .png or .html")
    if not paths:
        raise UserError("name at least one run to plot")
    runs = read_runs([Path(path) for path in paths])
    drawn = panels(runs)
    if out.suffix.lower() == ".html":
        write_text(out, render_page(runs, drawn, axis))
    else:
        _write_png(runs, drawn, out, axis)
    return drawn


def _write_png(runs: Sequence[Run], drawn: Sequence[Panel], out: Path, axis: str) -> None:
    # The object interface: no window, no state shared with a caller's own figures.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = 3 if len(drawn) > 4 else min(2, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.1 * rows + 0.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, panel in zip(grid, drawn, strict=False):
        _draw_panel(axes, panel, axis)
    for axes in grid[len(drawn) :]:
        axes.set_axis_off()
    handles = [
        Line2D([], [], color=look(place)[0], linestyle=_dash(look(place)[2]), linewidth=2) for place in range(len(runs))
    ]
    names = [run.name.replace("$", r"\$") for run in runs]  # two dollars would begin a formula
    figure.legend(handles, names, loc="outside upper left", ncols=min(5, len(runs)), frameon=False, fontsize=10)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, format="png")


def _dash(pattern: str) -> Any:
    """An SVG dash pattern as matplotlib's."""
    return (0, tuple(map(float, pattern.split()))) if pattern else "-"


def _draw_panel(axes: Axes, panel: Panel, axis: str) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter, PercentFormatter

    for curve in panel.curves:
        _draw_curve(axes, curve, axis)
    axes.set_title(panel.title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_ylabel(panel.unit, fontsize=9, color=INK)
    axes.set_xlabel(AXIS_TITLES[axis], fontsize=9, color=INK)
    if panel.log:
        axes.set_yscale("log")
    if panel.key == "density":
        axes.yaxis.set_major_formatter(PercentFormatter(decimals=None))
    elif panel.key in ("nonzeros", "speed"):
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    if axis != "minutes":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    labels = list(dict.fromkeys((curve.label, curve.points) for curve in panel.curves if curve.label))
    if len(labels) > 1:
        marks = [Line2D([], [], color=INK, marker="o" if points else "", markersize=4) for _, points in labels]
        axes.legend(marks, [label for label, _ in labels], frameon=False, fontsize=8)


def _draw_curve(axes: Axes, curve: Curve, axis: str) -> None:
    color, _, pattern = look(curve.run)
    dash = _dash(pattern)
    x, line = curve.x[axis], curve.y
    if curve.smooth is not None:
        axes.plot(x, curve.y, color=color, alpha=0.22, linewidth=0.8)
        line = curve.smooth
    marker = "o" if curve.points else ""
    axes.plot(x, line, color=color, linewidth=1.6, linestyle=dash, marker=marker, markersize=4)
