"""What `bridge.json` says of a bridge: between which models it is. Imports no torch."""

from pathlib import Path
from typing import Any

from sparsecircuits.errors import UserError
from sparsecircuits.files import read_json

FORMAT = "sparsecircuits-bridge-1"
RECORD_NAME, SPARSE_NAME = "bridge.json", "sparse"


def holds_bridge(folder: Path) -> bool:
    """Whether a folder says that it holds a bridge."""
    return (folder / RECORD_NAME).is_file()


def read_record(directory: Path) -> dict[str, Any]:
    """What `bridge.json` says. Raises UserError for a folder that holds no bridge."""
    record = read_json(directory / RECORD_NAME, "bridge")
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{directory / RECORD_NAME} is no bridge of ours: make one with `sparsecircuits bridge`")
    if not all(isinstance(record.get(key), str) for key in ("dense", "dense_id", "sparse_id")):
        raise UserError(f"{directory / RECORD_NAME} does not say which models it joins: make the bridge anew")
    return record


def joined_boundaries(record: dict[str, Any], side: str = "sparse") -> tuple[int, ...] | None:
    """Which boundaries of a model's residual stream a record joins to the other's; None: all. Raises UserError for what
    is no list of them."""
    saved = record.get("joined")
    if saved is None:
        return None
    found = saved.get(side) if isinstance(saved, dict) else None
    if not isinstance(found, list) or not all(type(boundary) is int for boundary in found):
        raise UserError(f"{RECORD_NAME}: joined is {str(saved)[:80]}, no boundaries of two models")
    return tuple(found)
