"""Draw what a decoded token costs against nonzeros and against width: docs/images/decode-scale.png.

sparsecircuits bench decode-scale --json > scale.json     # measure, on a quiet machine
python docs/make_inference.py scale.json                  # draw
"""

import json
import re
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sparsecircuits.plots.style import LIGHT

TARGET = Path(__file__).with_name("images") / "decode-scale.png"
CASE = re.compile(r"decode, 8 layers, d_model (\d+), ([\d.]+)M nonzeros")
WIDTH, NONZEROS = 2048, 1.0  # at which the other of the two varies; millions


def draw(rows: list[dict], target: Path = TARGET) -> None:
    """Left: milliseconds a token against nonzeros at one width. Right: against width at one number of nonzeros."""
    points = {(int(m[1]), float(m[2])): row for row in rows if (m := CASE.match(row["case"]))}
    if not points:
        sys.exit("these rows hold no case of `bench decode-scale`")
    figure = Figure(figsize=(9.2, 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    nonzeros = sorted(n for width, n in points if width == WIDTH)
    widths = sorted(width for width, n in points if n == NONZEROS)
    sides = (
        (panels[0], nonzeros, [points[WIDTH, n] for n in nonzeros], "million nonzeros", f"d_model {WIDTH}"),
        (panels[1], widths, [points[width, NONZEROS] for width in widths], "d_model", f"{NONZEROS:g}M nonzeros"),
    )
    for axes, x, here, label, title in sides:
        axes.plot(x, [row["ours_ms"] for row in here], color=LIGHT[0], marker="o", label="sparse runtime")
        axes.plot(x, [row["baseline_ms"] for row in here], color=LIGHT[1], marker="s", label=here[0]["baseline"])
        axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
        axes.set_xlabel(label)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.set_xticks([], minor=True)
        axes.grid(color="#d9d9d9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("ms a token")
    panels[0].yaxis.set_major_formatter("{x:g}")
    panels[0].yaxis.set_minor_formatter("")
    panels[0].legend(frameon=False, fontsize=8)
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/make_inference.py scale.json")
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["rows"])
