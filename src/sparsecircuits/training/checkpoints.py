"""Checkpoints: atomic, with a checksum, the last few kept; a damaged newest one falls back to the one before."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from sparsecircuits.errors import UserError
from sparsecircuits.files import atomic_path, read_text, sha256, write_text

DIRECTORY = "checkpoints"


def _path(run: Path, step: int) -> Path:
    return Path(run) / DIRECTORY / f"step-{step:08d}.pt"


def _checksum_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def save_checkpoint(run: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write the state of a step (tensors, numbers, strings, lists, dicts) and drop all but the last `keep`."""
    path = _path(run, step)
    with atomic_path(path) as temporary:
        torch.save(state, temporary)
        digest = sha256(temporary)
        # The checksum goes first: a checkpoint without one is never trusted.
        write_text(_checksum_path(path), digest + "\n")
    for old in checkpoint_steps(run)[:-keep]:
        _path(run, old).unlink(missing_ok=True)
        _checksum_path(_path(run, old)).unlink(missing_ok=True)
    return path


def checkpoint_steps(run: Path) -> list[int]:
    """Steps that have a checkpoint, ascending."""
    return sorted(int(path.stem.split("-")[1]) for path in (Path(run) / DIRECTORY).glob("step-*.pt"))


def load_checkpoint(run: Path) -> tuple[int, dict[str, Any]] | None:
    """(step, state) of the newest checkpoint that is whole; None if there is none at all.

    A damaged one is skipped with a warning. Raises UserError when all are damaged. Never executes code.
    """
    steps = checkpoint_steps(run)
    for step in reversed(steps):
        path = _path(run, step)
        try:
            if sha256(path) != read_text(_checksum_path(path), "checksum").strip():
                raise UserError("checksum differs")
            return step, torch.load(path, map_location="cpu", weights_only=True)
        except (UserError, OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
            warnings.warn(f"checkpoint {path} is damaged ({error}): trying the one before", stacklevel=2)
    if steps:
        raise UserError(f"all checkpoints under {Path(run) / DIRECTORY} are damaged: start the run anew")
    return None
