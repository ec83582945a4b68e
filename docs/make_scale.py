"""Draw what a training step costs per token against width and density: docs/images/train-scale.png.

sparsecircuits bench train-scale --json > scale.json     # measure, on a quiet machine
python docs/make_scale.py scale.json                     # draw
"""

import json
import re
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sparsecircuits.plots.style import LIGHT

TARGET = Path(__file__).with_name("images") / "train-scale.png"
TOKENS = 8 * 128
CASE = re.compile(r"training step, d_model (\d+), \d layers, ([\d.]+)% nonzero")


def draw(rows: list[dict], target: Path = TARGET) -> None:
    """Left: microseconds a token against width, a line a density. Right: the cost as a share of dense."""
    found = [(CASE.match(row["case"]), row) for row in rows]
    points = {(int(m[1]), float(m[2])): row for m, row in found if m}
    if not points:
        sys.exit("these rows hold no case of `bench train-scale`")
    widths = sorted({width for width, _ in points})
    densities = sorted({density for _, density in points}, reverse=True)
    figure = Figure(figsize=(9.2, 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    cost, share = figure.subplots(1, 2)
    baseline = {width: row["baseline_ms"] for (width, _), row in points.items()}
    dense = [1e3 * baseline[width] / TOKENS for width in widths]
    cost.plot(widths, dense, color="#333333", linestyle="--", marker="s", label="dense step")
    for place, density in enumerate(densities):
        here = {width: points[width, density] for width in widths if (width, density) in points}
        style = {"color": LIGHT[place], "marker": "o", "label": f"{density:g}%"}
        cost.plot(list(here), [1e3 * row["ours_ms"] / TOKENS for row in here.values()], **style)
        share.plot(list(here), [1 / row["ratio"] for row in here.values()], **style)
    share.axhline(1, color="#333333", linestyle="--")
    for axes, title, unit in ((cost, "Cost", "µs a token"), (share, "Cost against dense", "sparse / dense")):
        axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
        axes.set_xlabel("d_model")
        axes.set_ylabel(unit)
        axes.set_xscale("log", base=2)
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.grid(color="#d9d9d9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    cost.set_yscale("log", base=2)
    cost.yaxis.set_major_formatter("{x:g}")
    share.set_ylim(bottom=0)
    cost.legend(frameon=False, fontsize=8, title="nonzero")
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/make_scale.py scale.json")
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["rows"])
