"""The page of curves: one offline HTML file with its script, style and data inline."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from sparsecircuits.plots.curves import Panel, Run
from sparsecircuits.plots.style import look

_PLACEHOLDER = re.compile(r"%%(csp|style|script|payload)%%")
LAST = ("step", "tokens", "seconds", "loss", "val_loss", "density", "nonzeros", "alive_share")
"""Fields whose last values make the table under the curves."""


def render_page(runs: Sequence[Run], panels: Sequence[Panel], axis: str) -> str:
    """HTML that draws the panels; a content-security policy allows its own style and script alone."""
    style, script = _static("plot.css"), _static("plot.js")
    parts = {
        "csp": f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        "style": style,
        "script": script,
        # "<" could end the script element that holds the data.
        "payload": json.dumps(_payload(runs, panels, axis), separators=(",", ":")).replace("<", "\\u003c"),
    }
    return _PLACEHOLDER.sub(lambda match: parts[match[1]], _static("plot.html"))


def _payload(runs: Sequence[Run], panels: Sequence[Panel], axis: str) -> dict[str, Any]:
    shown = []
    for place, run in enumerate(runs):
        light, dark, dash = look(place)
        last = {field: value for line in run.lines for field, value in line.items() if field in LAST}
        shown.append({"name": run.name, "light": light, "dark": dark, "dash": dash, "last": last})
    return {"axis": axis, "runs": shown, "panels": [_panel(panel) for panel in panels]}


def _panel(panel: Panel) -> dict[str, Any]:
    curves = [
        {
            "run": curve.run,
            "label": curve.label,
            "points": curve.points,
            "x": {axis: _plain(values) for axis, values in curve.x.items()},
            "y": _plain(curve.y),
            "smooth": None if curve.smooth is None else _plain(curve.smooth),
        }
        for curve in panel.curves
    ]
    return {"key": panel.key, "title": panel.title, "unit": panel.unit, "log": panel.log, "curves": curves}


def _plain(values: np.ndarray) -> list[float | None]:
    """Six significant digits are more than a screen shows; what is not finite is left out."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]


def _static(name: str) -> str:
    return (files("sparsecircuits.plots") / "static" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
