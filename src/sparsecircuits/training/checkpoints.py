"""Checkpoints: atomic, with checksums, the last few kept; a damaged newest one falls back to the one before.

One process writes `step-N.pt` beside its `step-N.sha256`. Processes that each hold a shard write a folder `step-N`
of safetensors files together (torch.distributed.checkpoint), whose `checkpoint.json` holds their checksums and
the rest of the state. Either is read by any number of processes. Loading never executes code.
"""

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sparsecircuits.errors import UserError
from sparsecircuits.files import atomic_path, read_text, sha256, write_text
from sparsecircuits.models.torch_files import load_plain
from sparsecircuits.runs import CHECKPOINTS
from sparsecircuits.training.distributed import World

MANIFEST = "checkpoint.json"
_NAME = re.compile(r"step-([0-9]{1,18})(\.pt)?")


def _path(run: Path, step: int) -> Path:
    return Path(run) / CHECKPOINTS / f"step-{step:08d}.pt"


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
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    _drop_old(run, keep)
    return path


def save_shards(
    run: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any], keep: int, world: World
) -> Path:
    """Write a checkpoint of all processes together, into a file system that they share.

    tensors: by name, each a DTensor of which every process writes its own shard. state: the rest, JSON-able.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageWriter, save

    path = _path(run, step).with_suffix("")
    temporary = path.with_name(f".{path.name}.part")

    def begin() -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error

    def finish() -> None:
        write_text(temporary / MANIFEST, json.dumps({"files": digests, "state": state}) + "\n")
        write_text(_checksum_path(temporary / MANIFEST), sha256(temporary / MANIFEST) + "\n")
        shutil.rmtree(path, ignore_errors=True)
        try:
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        _path(run, step).unlink(missing_ok=True)
        _drop_old(run, keep)

    world.first(begin)
    save(tensors, storage_writer=HuggingFaceStorageWriter(str(temporary), save_distributed=True))
    world.wait()
    mine = sorted(temporary.glob("*.safetensors"))[world.rank :: world.size]
    digests = {
        name: digest for part in world.gather({p.name: sha256(p) for p in mine}) for name, digest in part.items()
    }
    world.first(finish)
    return path


def _checkpoints(run: Path) -> list[tuple[int, Path]]:
    """(step, file or folder), ascending."""
    folder = Path(run) / CHECKPOINTS
    found = [(_NAME.fullmatch(path.name), path) for path in folder.glob("step-*")]  # others' files are left alone
    return sorted((int(name[1]), path) for name, path in found if name is not None)


def _drop_old(run: Path, keep: int) -> None:
    for _, path in _checkpoints(run)[:-keep]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
            _checksum_path(path).unlink(missing_ok=True)


def checkpoint_steps(run: Path) -> list[int]:
    """Steps that have a checkpoint, ascending."""
    return [step for step, _ in _checkpoints(run)]


def newest_checkpoint(run: Path) -> tuple[int, Path] | None:
    """(step, file or folder) of the newest checkpoint that is whole; None if there is none at all.

    A damaged one is skipped with a warning. Raises UserError when all are damaged.
    """
    found = _checkpoints(run)
    for step, path in reversed(found):
        try:
            _verify(path)
            return step, path
        except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(f"checkpoint {path} is damaged ({error}): trying the one before", stacklevel=2)
    if found:
        raise UserError(f"all checkpoints under {Path(run) / CHECKPOINTS} are damaged: start the run anew")
    return None


def _verify(path: Path) -> None:
    """Raise if a checkpoint's bytes are not those that were written."""
    file = path / MANIFEST if path.is_dir() else path
    if sha256(file) != read_text(_checksum_path(file), "checksum").strip():
        raise UserError("checksum differs")
    if path.is_dir():
        for name, digest in json.loads(file.read_text(encoding="utf-8"))["files"].items():
            if sha256(path / name) != digest:
                raise UserError(f"the checksum of {name} differs")


def load_file(path: Path) -> dict[str, Any]:
    """The state in a `step-N.pt`, on the CPU."""
    return load_plain(path, "checkpoint")


def load_shards(path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Fill tensors (plain ones, or DTensors sharded in any way) from a `step-N` folder; returns its state."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(tensors, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=not dist.is_initialized())
    except (CheckpointException, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"checkpoint {path} does not fit this run: {str(error).splitlines()[0]}") from error
    return json.loads((path / MANIFEST).read_text(encoding="utf-8"))["state"]


def load_checkpoint(run: Path) -> tuple[int, dict[str, Any]] | None:
    """(step, state) of the newest whole checkpoint that one process wrote; None if there is none at all."""
    found = newest_checkpoint(run)
    return None if found is None else (found[0], load_file(found[1]))
