"""Steering, drawn: the counterfactual answer's probability against strength, beside its controls and the paper's."""

from pathlib import Path
from typing import TYPE_CHECKING

from sparsecircuits.bridges.steering import Steering
from sparsecircuits.errors import UserError
from sparsecircuits.files import atomic_path
from sparsecircuits.plots.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_steering(found: Steering, out: Path) -> Path:
    """Write the curves as a .png. Raises UserError for another ending."""
    # The object interface: no window, no state shared with a caller's own figures.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if out.suffix.lower() != ".png":
        raise UserError(f"cannot write {out}: a plot ends in .png")
    figure = Figure(figsize=(6.4, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    _draw(figure.subplots(), found)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, format="png")
    return out


def _draw(axes: "Axes", found: Steering) -> None:
    x = found["strengths"]
    for place, (name, curves) in enumerate(
        (("random nodes", found["random_nodes"]), ("random directions", found["random_directions"]))
    ):
        for draw, curve in enumerate(curves):
            axes.plot(x, curve, color=LIGHT[4 + place], linewidth=0.8, alpha=0.7, label=None if draw else name)
    axes.plot(x, found["dense_means"], color=LIGHT[1], linestyle="--", label="difference of dense means")
    axes.plot(x, found["sparse"], color=LIGHT[2], linestyle=":", label="the nodes, in the sparse model")
    axes.plot(
        x, found["steered"], color=LIGHT[0], linewidth=2, marker="o", markersize=3, label="steered from the nodes"
    )
    if found["paper"]:
        strengths, values = zip(*found["paper"], strict=True)
        axes.plot(strengths, values, color=LIGHT[6], linestyle="", marker="x", label="Gao et al. 2025, Figure 9")
    axes.axhline(found["counterfactual"], color="#999999", linewidth=0.8, label="on the other prompts")
    axes.set(xlabel="strength", ylabel=f"probability of {found['answer']!r}", ylim=(-0.02, 1.02))
    nodes = ", ".join(found["nodes"][:3]) + (" …" if len(found["nodes"]) > 3 else "")
    axes.set_title(f"{found['task']}: {nodes}", fontsize=10)
    axes.legend(fontsize=7, frameon=False)
