"""Hugging Face directories, read: without transformers, and without running the code that lies in them."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsecircuits.errors import UserError
from sparsecircuits.files import atomic_path, read_json
from sparsecircuits.interop import gpt2
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.storage import (
    CHECKSUM,
    CONFIG_SUM,
    build,
    check_config,
    check_sum,
    checksum,
    config_sum,
    read_safetensors,
    tie_head_,
)
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.runs import CONFIG_NAME, WEIGHTS_NAME

MODEL_TYPE = "sparsecircuits"
INDEX_NAME = "model.safetensors.index.json"
_FIELDS = tuple(ModelConfig().to_dict())


def is_hf(directory: Path) -> bool:
    """Whether a folder's config.json is a Hugging Face one, of our model type or another."""
    try:
        raw = json.loads((directory / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(raw, dict) and "model" not in raw and "model_type" in raw


def load_hf(directory: Path) -> SparseTransformer:
    """Load such a folder as our model: one that `convert` made, or a GPT-2 (`gpt2.config_from_gpt2` says which).
    Neither transformers nor code in the folder is run. Raises UserError for anything missing, damaged, contradictory,
    or of another model type."""
    raw = read_json(directory / CONFIG_NAME, "model config")
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    where = str(directory / CONFIG_NAME)
    if kind == MODEL_TYPE:
        config = model_config(raw, where)
        state = _read_state(directory, config)
    elif kind == gpt2.MODEL_TYPE:
        config = gpt2.config_from_gpt2(raw, where)
        state = gpt2.state_from_gpt2(_read_state(directory, config), config)
    else:
        raise UserError(f"{directory} holds a model of type {kind!r}: read are {MODEL_TYPE!r} and {gpt2.MODEL_TYPE!r}")
    tie_head_(config, state)
    model = build(config, state, str(directory / WEIGHTS_NAME))
    model.name = directory.resolve().name
    return model.eval()


def _read_state(directory: Path, config: ModelConfig) -> dict[str, Tensor]:
    """The tensors of all weights files. config: what it is by now, which the files' checksums of it must fit."""
    state: dict[str, Tensor] = {}
    for path in _weight_files(directory):
        tensors, metadata = _read_safetensors(path)
        check_sum(tensors, metadata, path)
        check_config(config, metadata, directory)
        twice = sorted(set(state) & set(tensors))
        if twice:
            raise UserError(f"{path}: {twice[0]} is in another file too")
        state |= tensors
    return state


def model_config(raw: dict[str, Any], where: str) -> ModelConfig:
    """Our config in a Hugging Face one, whose other keys are that library's. Raises UserError for a bad value."""
    missing = [name for name in ("vocab_size", "n_ctx", "n_layer", "d_model", "d_head") if name not in raw]
    if missing:
        raise UserError(f"{where} has no {missing[0]}")
    return ModelConfig.from_dict({name: raw[name] for name in _FIELDS if name in raw})


def _weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a folder; names from an index must be plain names of files in it."""
    if (directory / WEIGHTS_NAME).exists() or not (directory / INDEX_NAME).exists():
        return [directory / WEIGHTS_NAME]
    try:
        names = set(read_json(directory / INDEX_NAME, "index")["weight_map"].values())
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory / INDEX_NAME} is damaged: {error}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{directory / INDEX_NAME} names {name!r}, which is no weights file of this folder")
    return [directory / name for name in sorted(names)]


def stamp(directory: Path, config: ModelConfig) -> None:
    """Write checksums of the tensors and of the config into the header of a folder's weights, so that damage
    is noticed. Weights that were split over several files stay as they are."""
    from safetensors.torch import save_file

    path = directory / WEIGHTS_NAME
    if path.exists():
        tensors, metadata = _read_safetensors(path)
        sums = {CHECKSUM: checksum(tensors), CONFIG_SUM: config_sum(config)}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={**metadata, **sums})


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a file. Raises UserError when it is missing or damaged."""
    from safetensors import SafetensorError

    try:
        return read_safetensors(path)
    except FileNotFoundError as error:
        raise UserError(f"no weights at {path}") from error
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
