"""The native format: `config.json` beside `model.safetensors`, stored at the size of its nonzeros.

A tensor whose nonzeros take less room as (index, value) than the dense array is stored as two tensors
`<name>.indices` (flat, int32 or int64, ascending) and `<name>.values`; the shape is in the header. Negative
zeros (a masked negative weight) are kept, so that a round trip is exact to the bit: few of them among the
values, many as one bit per entry in `<name>.negative_zeros`. A large dense table that was rounded for it
(`byte_rows`) is stored as `<name>.codes`, a byte an entry, and `<name>.rows`.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sparsecircuits.errors import UserError
from sparsecircuits.files import atomic_path, parse_json, read_json, write_text
from sparsecircuits.models.byte_rows import from_bytes, to_bytes
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.runs import CONFIG_NAME, MEANS_NAME, TOKENIZER_NAME, WEIGHTS_NAME

FORMAT = "sparsecircuits-1"
CHECKSUM, CONFIG_SUM = "sha256", "config_sha256"
"""Keys of the weights' header: their checksum, and that of the config that they were saved with."""
MEANS_OF = "model"
"""Key of the means' header: the content hash of the model whose they are."""
TOKENIZER_SUM = "tokenizer_sha256"
"""Key of config.json: the content hash of the tokenizer beside it."""


def pack(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Dense tensors -> (tensors to store, shapes of those stored in parts)."""
    packed: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in state.items():
        flat = tensor.detach().cpu().contiguous().flatten()
        if flat.numel() < 1024 or int(flat.count_nonzero()) * 2 >= flat.numel():
            small = to_bytes(flat.view(tensor.shape))
            if small is None:
                packed[name] = flat.view(tensor.shape).clone()
            else:
                packed[f"{name}.codes"], packed[f"{name}.rows"] = small
                shapes[name] = list(tensor.shape)
            continue
        stored = flat != 0
        negative_zeros = ~stored & flat.signbit()
        if 64 * int(negative_zeros.count_nonzero()) <= flat.numel():
            stored |= negative_zeros
        else:
            packed[f"{name}.negative_zeros"] = torch.from_numpy(np.packbits(negative_zeros.numpy()))
        indices = stored.nonzero().flatten()
        packed[f"{name}.values"] = flat[indices]
        packed[f"{name}.indices"] = indices.to(torch.int32 if flat.numel() < 2**31 else torch.int64)
        shapes[name] = list(tensor.shape)
    return packed, shapes


def unpack(packed: dict[str, Tensor], shapes: dict[str, list[int]], where: str) -> dict[str, Tensor]:
    """The inverse of `pack`. Raises UserError for parts that do not fit each other or the shape."""
    state = {}
    for name, shape in shapes.items():
        if name in packed:
            raise UserError(f"{where}: {name} is stored twice")
        if f"{name}.codes" in packed:
            state[name] = _from_bytes(packed, name, shape, where)
            continue
        stored = _stored(packed, name, shape, where)
        size = int(torch.tensor(shape).prod())
        try:
            dense = torch.zeros(size, dtype=stored.values.dtype)
        except RuntimeError as error:
            raise UserError(f"{where}: {name} of shape {tuple(shape)} does not fit into memory") from error
        bits = packed.pop(f"{name}.negative_zeros", None)
        if bits is not None:
            if bits.dtype != torch.uint8 or bits.numel() != -(-size // 8):
                raise UserError(f"{where}: {name} has negative zeros that do not fit its shape {tuple(shape)}")
            dense[torch.from_numpy(np.unpackbits(bits.numpy(), count=size)).bool()] = -0.0
        state[name] = dense.index_copy_(0, stored.indices, stored.values).view(shape)
    return {**packed, **state}


@dataclass(frozen=True)
class Stored:
    """A tensor as its nonzeros stand in a file: flat places in ascending order, and values."""

    shape: tuple[int, ...]
    indices: Int[Tensor, " nonzeros"]
    values: Float[Tensor, " nonzeros"]

    def dense(self) -> Tensor:
        """The tensor itself."""
        flat = torch.zeros(math.prod(self.shape), dtype=self.values.dtype)
        return flat.index_copy_(0, self.indices, self.values).view(self.shape)


def _stored(packed: dict[str, Tensor], name: str, shape: list[int], where: str) -> Stored:
    """Take a tensor's parts from among all. Raises UserError for parts that do not fit each other or the shape."""
    values, indices = packed.pop(f"{name}.values", None), packed.pop(f"{name}.indices", None)
    if values is None or indices is None or values.shape != indices.shape or values.dim() != 1:
        raise UserError(f"{where}: {name} is incomplete")
    if indices.is_floating_point():
        raise UserError(f"{where}: {name} has indices that are not integers")
    size, indices = int(torch.tensor(shape).prod()), indices.long()
    if indices.numel() and (int(indices[0]) < 0 or int(indices[-1]) >= size or not bool((indices.diff() > 0).all())):
        raise UserError(f"{where}: {name} has indices outside its shape {tuple(shape)}")
    return Stored(tuple(shape), indices, values)


def unpack_sparsely(packed: dict[str, Tensor], shapes: dict[str, list[int]], where: str) -> dict[str, Tensor | Stored]:
    """`unpack`, but what is stored as its nonzeros stays that."""
    state: dict[str, Tensor | Stored] = {}
    for name, shape in shapes.items():
        if f"{name}.values" in packed:
            packed.pop(f"{name}.negative_zeros", None)  # products do not see them
            state[name] = _stored(packed, name, shape, where)
    rest = {name: shape for name, shape in shapes.items() if name not in state}
    return {**unpack(packed, rest, where), **state}


def _from_bytes(packed: dict[str, Tensor], name: str, shape: list[int], where: str) -> Tensor:
    codes, rows = packed.pop(f"{name}.codes"), packed.pop(f"{name}.rows", None)
    if rows is None or list(codes.shape) != shape or list(rows.shape) != [*shape[:1], 2]:
        raise UserError(f"{where}: {name} is incomplete, or its parts do not fit its shape {tuple(shape)}")
    if codes.dtype != torch.uint8 or rows.dtype != torch.float32:
        raise UserError(f"{where}: {name} is stored in types that are not ours")
    return from_bytes(codes, rows)


def checksum(tensors: dict[str, Tensor]) -> str:
    """Hex SHA-256 of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_sum(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    """Raise UserError when the header's checksum is not that of the tensors, or went missing. Files that were
    written without any are taken as they are."""
    expected = metadata.get(CHECKSUM, "" if CONFIG_SUM in metadata else None)
    if expected is not None and expected != checksum(tensors):
        raise UserError(f"{path} is damaged: its tensors are not those that were saved (checksum)")


def save_tensors(path: Path, state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors to one safetensors file, sparsely where that is smaller, atomically."""
    packed, shapes = pack(state)
    header = {"format": FORMAT, "sparse_shapes": json.dumps(shapes), CHECKSUM: checksum(packed), **(metadata or {})}
    with atomic_path(path) as temporary:
        save_file(packed, temporary, metadata=header)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) as they stand in a file; raises what the library raises, and ValueError for a tensor
    that the header names twice."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = file.metadata() or {}
    with open(path, "rb") as raw:
        parse_json(raw.read(int.from_bytes(raw.read(8), "little")).decode())
    return tensors, metadata


def load_tensors(path: Path, what: str = "weights") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save_tensors` wrote: (dense tensors, metadata). Raises UserError for a damaged file."""
    packed, shapes, metadata = _load_packed(path, what)
    return unpack(packed, shapes, str(path)), metadata


def _load_packed(path: Path, what: str) -> tuple[dict[str, Tensor], dict[str, list[int]], dict[str, str]]:
    """(tensors as they are stored, shapes of those stored in parts, metadata)."""
    try:
        packed, metadata = read_safetensors(path)
        shapes = parse_json(metadata.get("sparse_shapes", "{}"))
        _check_shapes(shapes)
    except FileNotFoundError as error:
        raise UserError(f"no {what} at {path}") from error
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} was not written by sparsecircuits, or by another version of its format")
    check_sum(packed, metadata, path)
    return packed, shapes, metadata


def _check_shapes(shapes: object) -> None:
    if not isinstance(shapes, dict):
        raise ValueError("the header's shapes are not an object")
    for name, shape in shapes.items():
        sizes = isinstance(shape, list) and all(isinstance(n, int) and 0 < n < 2**31 for n in shape)
        if not sizes or len(shape) > 2 or torch.tensor(shape).prod() > 2**33:
            raise ValueError(f"{name} has the shape {shape}")


def save_native(model: SparseTransformer, directory: Path, about: dict | None = None) -> None:
    """Write config, tokenizer and weights of a model into a run directory. about: more keys of config.json."""
    directory = Path(directory)
    about = dict(about or {})
    if model.tokenizer is not None:
        about[TOKENIZER_SUM] = model.tokenizer.content_hash
        model.tokenizer.save(directory / TOKENIZER_NAME)
    write_config(model.config, directory, about)
    save_tensors(directory / WEIGHTS_NAME, model.state_dict(), {CONFIG_SUM: config_sum(model.config)})


def write_config(config: ModelConfig, directory: Path, about: dict | None = None) -> None:
    """Write config.json: the model's config and, beside it, the keys of `about`."""
    text = json.dumps({"model": config.to_dict(), **(about or {})}, indent=1)
    write_text(Path(directory) / CONFIG_NAME, text + "\n")


def read_config(path: Path) -> dict:
    """The JSON object of a run's config.json."""
    raw = read_json(path, "model config")
    if not isinstance(raw, dict) or "model" not in raw:
        raise UserError(f"{path} is no sparsecircuits config: it has no 'model'")
    return raw


def load_native(directory: Path) -> SparseTransformer:
    """Load a run directory. Raises UserError for anything missing, damaged or contradictory."""
    raw = read_config(directory / CONFIG_NAME)
    config = ModelConfig.from_dict(raw["model"])
    state, metadata = load_tensors(directory / WEIGHTS_NAME)
    model = build(config, state, str(directory / WEIGHTS_NAME))
    check_config(config, metadata, directory)
    model.name, model.folder = directory.resolve().name, directory
    trained = raw.get("train")
    model.corpus = trained.get("data") if isinstance(trained, dict) else None
    return model.eval()


def load_native_sparsely(directory: Path) -> tuple[ModelConfig, dict[str, Tensor | Stored]]:
    """The config and weights of a run directory; what is stored as its nonzeros stays that, no dense matrix is made.
    Raises UserError as `load_native` does."""
    path = directory / WEIGHTS_NAME
    config = ModelConfig.from_dict(read_config(directory / CONFIG_NAME)["model"])
    packed, shapes, metadata = _load_packed(path, "weights")
    state = unpack_sparsely(packed, shapes, str(path))
    expected = shell(config, len(state), str(path)).state_dict()
    _check_names(expected, state, str(path))
    for name, target in expected.items():
        part = state[name]
        if tuple(part.shape) != tuple(target.shape):
            raise UserError(f"{path}: {name} has shape {tuple(part.shape)}, the config says {tuple(target.shape)}")
        values = part.values if isinstance(part, Stored) else part
        if not values.is_floating_point() or not bool(torch.isfinite(values).all()):
            raise UserError(f"{path}: {name} holds values that are not finite numbers")
    check_config(config, metadata, directory)
    return config, state


def save_means(model: SparseTransformer, means: Tensor, directory: Path) -> None:
    """Write the means of all nodes [nodes] beside the model."""
    save_tensors(Path(directory) / MEANS_NAME, {"means": means}, {MEANS_OF: content_hash(model)})


def load_means(model: SparseTransformer) -> Tensor | None:
    """The means [nodes] beside the model, or None where there are none, or those of other weights than the model has
    by now. Raises UserError for a damaged file."""
    path = None if model.folder is None else model.folder / MEANS_NAME
    if path is None or not path.exists():
        return None
    state, metadata = load_tensors(path, "means")
    if metadata.get(MEANS_OF) != content_hash(model):
        return None
    means = state.get("means")
    if means is None or means.dim() != 1 or not means.is_floating_point() or not bool(means.isfinite().all()):
        raise UserError(f"{path} holds no list of finite means")
    return means.float()


def config_sum(config: ModelConfig) -> str:
    """Hex SHA-256 of an architecture, however it is spelled."""
    return hashlib.sha256(json.dumps(config.identity(), sort_keys=True).encode()).hexdigest()


def check_config(config: ModelConfig, metadata: dict[str, str], directory: Path) -> None:
    """Raise UserError when the weights' header says that they were saved with another config."""
    if metadata.get(CONFIG_SUM) not in (None, config_sum(config)):
        raise UserError(
            f"{directory / CONFIG_NAME} was changed, or is not that of the weights beside it: they were saved with "
            "another config"
        )


def tie_head_(config: ModelConfig, state: dict[str, Tensor]) -> None:
    """Give a model whose unembedding is its embedding the one that its file leaves out."""
    if config.tied_unembed and "wte.weight" in state:
        state.setdefault("lm_head.weight", state["wte.weight"])


def build(config: ModelConfig, state: dict[str, Tensor], where: str) -> SparseTransformer:
    """A model that holds these tensors. The file is checked against the config before any memory is taken
    for the model, so that a config of absurd sizes is a UserError like any other fault."""
    model = shell(config, len(state), where)
    fill_state(model, state, where)
    return model


def shell(config: ModelConfig, tensors: int, where: str) -> SparseTransformer:
    """A model without memory for its weights (on the meta device). tensors: how many there are to fill it. Raises
    UserError for a config of absurd sizes."""
    if config.n_layer > tensors:
        raise UserError(f"{where} holds {tensors} tensors, too few for the config's {config.n_layer} layers")
    try:
        with torch.device("meta"), _Unfilled():
            return SparseTransformer(config)
    except (RuntimeError, OverflowError, TypeError) as error:
        raise UserError(f"{where}: the config's sizes are impossible ({str(error).splitlines()[0]})") from error


class _Unfilled(TorchFunctionMode):
    """Initial values are not drawn. Those of the meta device would be drawn by PyTorch's references in Python, which
    import its compiler: seconds, for values that nobody reads."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == torch.nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _check_names(expected: Iterable[str], state: Iterable[str], where: str) -> None:
    """Raise UserError for a tensor that is missing, or one too many."""
    missing, extra = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing:
        raise UserError(f"{where}: tensor {missing[0]} is missing")
    if extra:
        raise UserError(f"{where}: unexpected tensor {extra[0]}")


def fill_state(model: SparseTransformer, state: dict[str, Tensor], where: str) -> None:
    """Put tensors into a model, as float32, after checking names, shapes and finiteness (UserError: the first
    fault). A model without storage (on the meta device) takes over the tensors, any other one copies them."""
    expected = model.state_dict()
    for name, target in expected.items():
        if name not in state:
            raise UserError(f"{where}: tensor {name} is missing")
        tensor = state[name]
        if tensor.shape != target.shape:
            raise UserError(f"{where}: {name} has shape {tuple(tensor.shape)}, the config says {tuple(target.shape)}")
        if tensor.layout != torch.strided or tensor.device.type == "meta" or not tensor.is_floating_point():
            raise UserError(f"{where}: {name} is no plain tensor of floating-point numbers")
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise UserError(f"{where}: {name} claims more numbers than the file holds")
    extra = sorted(set(state) - set(expected))
    if extra:
        raise UserError(f"{where}: unexpected tensor {extra[0]}")
    tied = model.config.tied_unembed
    if tied and not torch.equal(state["lm_head.weight"], state["wte.weight"]):
        raise UserError(f"{where}: the config ties lm_head.weight to wte.weight, but the two differ")
    plain = {name: state[name].detach().to(torch.float32).contiguous() for name in expected}
    for name, tensor in plain.items():
        # A sum costs less than a mask; where it overflows, the mask decides.
        if not bool(torch.isfinite(tensor.sum())) and not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{where}: {name} holds values that are not finite numbers")
    adopt = model.device.type == "meta"
    model.load_state_dict(plain, assign=adopt)
    if adopt and tied:
        model.lm_head.weight = model.wte.weight


def content_hash(model: SparseTransformer) -> str:
    """Hex digest of the config and every weight: the identity that circuits are tied to."""
    digest = hashlib.sha256(json.dumps(model.config.identity(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().to(torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
