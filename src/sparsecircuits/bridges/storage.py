"""A saved bridge: `bridge.json` and `bridge.safetensors` beside the sparse model in `sparse/`, tied by content hashes
to both models."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from sparsecircuits.bridges.bridge import Bridge, Joined
from sparsecircuits.bridges.record import FORMAT, RECORD_NAME, SPARSE_NAME, joined_boundaries, read_record
from sparsecircuits.errors import UserError
from sparsecircuits.files import expanded, write_text
from sparsecircuits.interop.loading import load_model
from sparsecircuits.models.storage import content_hash, load_tensors, save_native, save_tensors
from sparsecircuits.models.transformer import SparseTransformer

MAPS_NAME = "bridge.safetensors"
_DENSE_ID, _SPARSE_ID = "dense", "sparse"


def save_bridge(bridge: Bridge, directory: Path, dense: str, about: dict[str, Any]) -> None:
    """Write a bridge; `bridge.json` last. dense: the path or name that the dense model is loaded from, which is not
    copied; about: more keys of the record, JSON-able."""
    sparse = bridge.sparse
    save_native(sparse, directory / SPARSE_NAME, {"train": {"data": sparse.corpus}} if sparse.corpus else None)
    ids = {_DENSE_ID: content_hash(bridge.dense), _SPARSE_ID: content_hash(sparse)}
    save_tensors(directory / MAPS_NAME, bridge.maps.state_dict(), ids)
    record: dict[str, Any] = {
        "format": FORMAT,
        "dense": dense,
        "dense_id": ids[_DENSE_ID],
        "sparse_id": ids[_SPARSE_ID],
    }
    record |= {"kept": bridge.maps.kept, "joined": dataclasses.asdict(bridge.joined)}
    write_text(directory / RECORD_NAME, json.dumps({**record, **about}, indent=1) + "\n")


def load_bridge(path: str | Path, dense: SparseTransformer | str | Path | None = None) -> Bridge:
    """Load a bridge. dense: the dense model, or where it is by now; by default it is looked for where it was.

    Raises UserError for a damaged bridge, and for models other than those that it joins.
    """
    directory = expanded(path)
    record = read_record(directory)
    if not isinstance(dense, SparseTransformer):
        dense = load_model(dense if dense is not None else str(record.get("dense")))
    sparse = load_model(directory / SPARSE_NAME)
    state, metadata = load_tensors(directory / MAPS_NAME, "bridge")
    for name, model, key in (("dense", dense, _DENSE_ID), ("sparse", sparse, _SPARSE_ID)):
        found = content_hash(model)
        if not found == record.get(f"{name}_id") == metadata.get(key):
            raise UserError(
                f"{directory} does not belong to the {name} model {model.name} ({found[:12]}…): it was made for "
                "another one, or one of its files was changed"
            )
    kept = record.get("kept")
    if kept is not None and (isinstance(kept, bool) or not isinstance(kept, int)):
        raise UserError(f"{directory / RECORD_NAME}: kept is {kept!r}, no number of channels")
    bridge = Bridge.between(dense, sparse, kept, _joined(record))
    expected = {name: tensor.shape for name, tensor in bridge.maps.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.items()} != expected:
        raise UserError(f"{directory / MAPS_NAME} does not fit the two models' widths and depth")
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise UserError(f"{directory / MAPS_NAME} holds values that are not finite numbers")
    bridge.maps.load_state_dict(state)
    return bridge


def _joined(record: dict[str, Any]) -> Joined | None:
    dense, sparse = (joined_boundaries(record, side) for side in ("dense", "sparse"))
    if dense is None or sparse is None:
        return None
    if len(dense) != len(sparse):
        raise UserError(f"{RECORD_NAME}: joined names {len(dense)} and {len(sparse)} boundaries")
    return Joined(dense, sparse)
