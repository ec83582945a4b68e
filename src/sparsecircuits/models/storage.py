"""The native format: `config.json` beside `model.safetensors`, stored at the size of its nonzeros.

A tensor whose nonzeros take less room as (index, value) than the dense array is stored as two tensors
`<name>.indices` (flat, int32 or int64, ascending) and `<name>.values`; the shape is in the header.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparsecircuits.errors import UserError
from sparsecircuits.files import atomic_path, read_text, write_text
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.transformer import SparseTransformer

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
FORMAT = "sparsecircuits-1"


def pack(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Dense tensors -> (tensors to store, shapes of those stored sparsely)."""
    packed: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in state.items():
        flat = tensor.detach().cpu().contiguous().flatten()
        if flat.numel() < 1024 or int(flat.count_nonzero()) * 2 >= flat.numel():
            packed[name] = flat.view(tensor.shape).clone()
            continue
        indices = flat.nonzero().flatten()
        packed[f"{name}.values"] = flat[indices]
        packed[f"{name}.indices"] = indices.to(torch.int32 if flat.numel() < 2**31 else torch.int64)
        shapes[name] = list(tensor.shape)
    return packed, shapes


def unpack(packed: dict[str, Tensor], shapes: dict[str, list[int]], where: str) -> dict[str, Tensor]:
    """The inverse of `pack`. Raises UserError for indices out of range, repeated or unsorted."""
    state = {}
    for name, shape in shapes.items():
        values, indices = packed.pop(f"{name}.values", None), packed.pop(f"{name}.indices", None)
        if values is None or indices is None or values.shape != indices.shape or values.dim() != 1:
            raise UserError(f"{where}: {name} is incomplete")
        if indices.is_floating_point():
            raise UserError(f"{where}: {name} has indices that are not integers")
        size, indices = int(torch.tensor(shape).prod()), indices.long()
        if indices.numel() and (
            int(indices[0]) < 0 or int(indices[-1]) >= size or not bool((indices.diff() > 0).all())
        ):
            raise UserError(f"{where}: {name} has indices outside its shape {tuple(shape)}")
        state[name] = torch.zeros(size, dtype=values.dtype).index_copy_(0, indices, values).view(shape)
    return {**packed, **state}


def save_tensors(path: Path, state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors to one safetensors file, sparsely where that is smaller, atomically."""
    packed, shapes = pack(state)
    header = {"format": FORMAT, "sparse_shapes": json.dumps(shapes), **(metadata or {})}
    with atomic_path(path) as temporary:
        save_file(packed, temporary, metadata=header)


def load_tensors(path: Path, what: str = "weights") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save_tensors` wrote: (dense tensors, metadata). Raises UserError for a damaged file."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        shapes = json.loads(metadata.get("sparse_shapes", "{}"))
        _check_shapes(shapes)
    except FileNotFoundError as error:
        raise UserError(f"no {what} at {path}") from error
    except (SafetensorError, OSError, json.JSONDecodeError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} was not written by sparsecircuits, or by another version of its format")
    return unpack(packed, shapes, str(path)), metadata


def _check_shapes(shapes: object) -> None:
    if not isinstance(shapes, dict):
        raise ValueError("the header's shapes are not an object")
    for name, shape in shapes.items():
        sizes = isinstance(shape, list) and all(isinstance(n, int) and 0 < n < 2**31 for n in shape)
        if not sizes or len(shape) > 2 or torch.tensor(shape).prod() > 2**33:
            raise ValueError(f"{name} has the shape {shape}")


def save_native(model: SparseTransformer, directory: Path, about: dict | None = None) -> None:
    """Write weights, tokenizer and config of a model into a run directory. about: more keys of config.json."""
    directory = Path(directory)
    write_config(model.config, directory, about)
    save_tensors(directory / WEIGHTS_NAME, model.state_dict())
    if model.tokenizer is not None:
        model.tokenizer.save(directory / "tokenizer.json")


def write_config(config: ModelConfig, directory: Path, about: dict | None = None) -> None:
    """Write config.json: the model's config and, beside it, the keys of `about`."""
    text = json.dumps({"model": config.to_dict(), **(about or {})}, indent=1)
    write_text(Path(directory) / CONFIG_NAME, text + "\n")


def read_config(path: Path) -> dict:
    """The JSON object of a run's config.json."""
    try:
        raw = json.loads(read_text(path, "model config"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(raw, dict) or "model" not in raw:
        raise UserError(f"{path} is no sparsecircuits config: it has no 'model'")
    return raw


def load_native(directory: Path) -> SparseTransformer:
    """Load a run directory. Raises UserError for anything missing, damaged or contradictory."""
    raw = read_config(directory / CONFIG_NAME)
    model = SparseTransformer(ModelConfig.from_dict(raw["model"]))
    state, _ = load_tensors(directory / WEIGHTS_NAME)
    fill_state(model, state, str(directory / WEIGHTS_NAME))
    model.name = directory.resolve().name
    trained = raw.get("train")
    model.corpus = trained.get("data") if isinstance(trained, dict) else None
    return model.eval()


def fill_state(model: SparseTransformer, state: dict[str, Tensor], where: str) -> None:
    """Copy tensors into a model after checking names, shapes and finiteness (UserError: the first fault)."""
    expected = model.state_dict()
    for name, target in expected.items():
        if name not in state:
            raise UserError(f"{where}: tensor {name} is missing")
        tensor = state[name]
        if tensor.shape != target.shape:
            raise UserError(f"{where}: {name} has shape {tuple(tensor.shape)}, the config says {tuple(target.shape)}")
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{where}: {name} holds values that are not finite numbers")
    extra = sorted(set(state) - set(expected))
    if extra:
        raise UserError(f"{where}: unexpected tensor {extra[0]}")
    model.load_state_dict({name: state[name].to(torch.float32) for name in expected})


def content_hash(model: SparseTransformer) -> str:
    """Hex digest of the config and every weight: the identity that circuits are tied to."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().to(torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
