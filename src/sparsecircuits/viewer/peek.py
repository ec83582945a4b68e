"""What a circuit's file holds, read without torch: the picture stands before the model is loaded."""

import json
from pathlib import Path
from typing import Any

from sparsecircuits.circuits.residual import residual_links
from sparsecircuits.errors import UserError
from sparsecircuits.files import read_text

LARGEST_FILE = 200_000_000  # bytes


def peek(path: Path) -> dict[str, Any]:
    """The JSON of a circuit file, checked as far as the picture needs it (`Circuit.load` checks the rest).
    Raises UserError that names what is wrong with it."""
    path = Path(path)
    if path.is_file() and path.stat().st_size > LARGEST_FILE:
        raise UserError(f"{path} is larger than {LARGEST_FILE // 1_000_000} MB: no circuit of ours")
    try:
        raw = json.loads(read_text(path, "circuit"))
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not a circuit: {error}") from error
    try:
        if raw["schema_version"] != 1:
            raise UserError(f"{path} is not a circuit: schema_version {raw['schema_version']!r} is unknown")
        checked = {
            **{key: str(raw[key]) for key in ("task", "model_name", "model_id")},
            "answers": [str(text) for text in raw["answers"]],
            "nodes": [_node(node) for node in raw["nodes"]],
            "edges": [_edge(edge) for edge in raw["edges"]],
        }
        if len(checked["answers"]) != 2:
            raise ValueError("there must be two answers")
        return {**raw, **checked}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} is not a circuit: {what}") from error


def _number(value: Any, kind: type) -> Any:
    return None if value is None else kind(value)


def _node(node: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": str(node["name"]),
        "layer": _number(node["layer"], int),
        "site": str(node["site"]),
        "index": int(node["index"]),
        "head": _number(node.get("head"), int),
        "mean": _number(node.get("mean"), float),
        "importance": _number(node.get("importance"), float),
    }


def _edge(edge: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": str(edge["source"]),
        "target": str(edge["target"]),
        "weight": _number(edge["weight"], float),
        "importance": _number(edge.get("importance"), float),
    }


def shown_losses(circuit: dict[str, Any]) -> dict[str, Any]:
    """The losses that were measured, or those that a published file says of itself; else nothing."""
    published = (circuit.get("found_by") or {}).get("published_losses")
    return circuit.get("losses") or (published if isinstance(published, dict) else None) or {}


def file_payload(circuit: dict[str, Any]) -> dict[str, Any]:
    """The payload of `render_html` from a circuit's JSON alone: no prompts, no activations."""
    losses = shown_losses(circuit)
    names = [node["name"] for node in circuit["nodes"]]
    return {
        "schema": 1,
        "title": circuit["task"],
        "task": circuit["task"],
        "description": "",
        "model": {"name": circuit["model_name"], "id": circuit["model_id"]},
        "summary": {
            "loss": losses.get("circuit"),
            "loss_full": losses.get("full"),
            "loss_empty": losses.get("empty"),
            "loss_ablated": losses.get("ablated"),
            "target_loss": circuit.get("target_loss"),
            "n_nodes": len(names),
            "n_edges": len(circuit["edges"]),
            "ablation": circuit.get("ablation", "mean"),
            "split": losses["split"].replace("_", "-") if "split" in losses else None,
            "n_prompts": 2 * losses["n_pairs"] if "n_pairs" in losses else None,
        },
        "answers": [{"text": text, "id": None} for text in circuit["answers"]],
        "nodes": circuit["nodes"],
        "edges": circuit["edges"],
        "residual": [{"source": source, "target": target} for source, target in residual_links(names)],
    }
