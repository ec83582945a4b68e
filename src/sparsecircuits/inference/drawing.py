"""A circuit as a picture, SVG or PNG, for papers and notes: a row for each site, from the first layer up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.errors import UserError
from sparsecircuits.files import atomic_path
from sparsecircuits.models.names import split_node

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".svg", ".png")
POSITIVE, NEGATIVE, INK, FAINT = "#0072b2", "#d55e00", "#333333", "#c8c8c8"
"""Of weights above and below zero (Okabe and Ito 2008), of text, and of what the residual stream carries."""
# Sites that stand in one row, in order from the bottom of a layer.
LEVELS = (
    ("attn.act_in",), ("attn.q", "attn.k", "attn.v"), ("attn.resid_delta",), ("mlp.act_in",), ("mlp.post_act",),
    ("mlp.resid_delta",),
)  # fmt: skip


def draw_circuit(circuit: Circuit, out: str | Path) -> Path:
    """Write a picture of a circuit; the ending of `out` decides: .svg or .png. Nodes by row and in order of their
    channels; weights as lines, blue above zero and orange below, the wider the larger; thin grey ones where a channel
    of the residual stream that is written is read again. Raises UserError for another ending."""
    out = Path(out)
    if out.suffix.lower() not in ENDINGS:
        raise UserError(f"cannot write {out}: a picture ends in {' or '.join(ENDINGS)}")
    from matplotlib import rc_context

    # The same circuit gives the same file, and text stays text.
    dated = {"Date": None} if out.suffix.lower() == ".svg" else None
    with rc_context({"svg.hashsalt": "sparsecircuits", "svg.fonttype": "none"}), atomic_path(out) as temporary:
        _figure(circuit).savefig(temporary, format=out.suffix.lower()[1:], metadata=dated)
    return out


def places(circuit: Circuit) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Where nodes stand, (x from 0 to 1, row from 0), and what the rows are called; rows without nodes are left out."""
    rows: dict[tuple[int, int], list[str]] = {}
    for node in circuit.nodes:
        layer = len(circuit.nodes) + 1 if node.layer is None else node.layer
        level = next((place for place, sites in enumerate(LEVELS) if node.site in sites), len(LEVELS))
        rows.setdefault((layer, level), []).append(node.name)
    found, names = {}, []
    sites = {node.name: node.site for node in circuit.nodes}
    for row, ((layer, level), members) in enumerate(sorted(rows.items())):
        kinds = LEVELS[level] if level < len(LEVELS) else ("final_resid",)
        there = [kind for kind in kinds if any(sites[name] == kind for name in members)]
        names.append(" ".join(["" if level == len(LEVELS) else f"{layer}.", *there]).strip().replace(". ", ".", 1))
        for place, name in enumerate(sorted(members, key=lambda name: (kinds.index(sites[name]), split_node(name)[1]))):
            found[name] = ((place + 0.5) / len(members), float(row))
    return found, names


def carried(circuit: Circuit) -> list[tuple[str, str]]:
    """(write, read) pairs of nodes at the same channel of the residual stream, the read after the write."""
    order = {name: place for place, name in enumerate(circuit.node_names)}
    writes = [node for node in circuit.nodes if node.site.endswith("resid_delta")]
    reads = [node for node in circuit.nodes if node.site.endswith("act_in") or node.layer is None]
    return [
        (write.name, read.name)
        for write in writes
        for read in reads
        if write.index == read.index and order[write.name] < order[read.name]
    ]


def _figure(circuit: Circuit) -> Figure:
    # The object interface: no window, no state shared with a caller's own figures.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    where, rows = places(circuit)
    widest = max((sum(y == row for _, y in where.values()) for row in range(len(rows))), default=1)
    figure = Figure(figsize=(2.0 + max(3.0, 0.62 * widest), 1.0 + 0.8 * max(1, len(rows))), dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.16, 0.02, 0.83, 0.9))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, max(1, len(rows)) - 0.4)
    for pair in carried(circuit):
        (x, y), (u, v) = (where[name] for name in pair)
        axes.plot([x, u], [y, v], color=FAINT, linewidth=0.7, zorder=1)
    largest = max((abs(edge.weight or 0.0) for edge in circuit.edges), default=0.0) or 1.0
    for edge in circuit.edges:
        (x, y), (u, v) = where[edge.source], where[edge.target]
        weight = edge.weight or 0.0
        color, width = (POSITIVE if weight > 0 else NEGATIVE), 0.6 + 2.4 * abs(weight) / largest
        axes.plot([x, u], [y, v], color=color, linewidth=width, alpha=0.8, zorder=2)
    for name, (x, y) in where.items():
        site, index = split_node(name)
        letter = f"{site[-1]} " if site.endswith((".q", ".k", ".v")) else ""
        box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": INK, "linewidth": 0.8}
        axes.text(
            x,
            y,
            f"{letter}{index}",
            ha="center",
            va="center",
            fontsize=7,
            color=INK,
            bbox=box,
            zorder=3,
            gid=name,
        )
    for row, name in enumerate(rows):
        axes.text(-0.02, row, name, ha="right", va="center", fontsize=7, color=INK)
    title = f"{circuit.task} in {circuit.model_name}: {len(circuit.nodes)} nodes, {len(circuit.edges)} weights"
    figure.suptitle(title.replace("$", r"\$"), fontsize=9, color=INK)  # two dollars would begin a formula
    return figure
