"""`load_model`: one door for every kind of model directory; it picks the reader by what is there."""

from pathlib import Path
from typing import TYPE_CHECKING

from sparsecircuits.errors import UserError
from sparsecircuits.files import expanded, read_json
from sparsecircuits.interop import data_gym, released
from sparsecircuits.interop.huggingface_files import is_hf, load_hf
from sparsecircuits.interop.names import fetch, is_name
from sparsecircuits.interop.pretrained import folder_of, is_pretrained
from sparsecircuits.models import storage
from sparsecircuits.runs import CONFIG_NAME, RELEASED_CONFIG, TOKENIZER_NAME

if TYPE_CHECKING:
    from sparsecircuits.data.tokenizer import Tokenizer
    from sparsecircuits.inference.runtime import Dtype, SparseRuntime
    from sparsecircuits.models.transformer import SparseTransformer


def require_model(path: str | Path) -> None:
    """Raise UserError if a path is neither on disk nor a name that could be downloaded: for checks before long work."""
    if is_pretrained(path):
        folder_of(str(path))
    elif not expanded(path).exists() and not is_name(str(path)):
        raise UserError(f"no model at {path}: give a run directory (one with {CONFIG_NAME})")


def load_model(path: str | Path, device: str = "cpu") -> "SparseTransformer":
    """Load a model for inference: a run directory of ours, a released checkpoint directory, a Hugging Face
    directory that `convert` made, `pretrained:NAME` for one that ships with the package, a released name
    (`csp_yolo2`), or `hf:OWNER/NAME` on the Hugging Face Hub.

    The last two are downloaded once into the cache. The tokenizer beside the weights is attached as
    `model.tokenizer`. Raises UserError when nothing that can be loaded is there, or when it is damaged.
    Loading never executes code.
    """
    directory = _directory(path)
    if directory.is_file():
        directory = directory.parent
    model = _read(directory)
    model.tokenizer = load_tokenizer(directory)
    _check_tokenizer(model.tokenizer, directory)
    if model.tokenizer is not None and model.tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"the tokenizer in {directory} has {model.tokenizer.vocab_size} tokens, "
            f"the model knows {model.config.vocab_size}"
        )
    return model.to(device)


def load_sparse(path: str | Path, *, dtype: "Dtype" = "float32", threads: int | None = None) -> "SparseRuntime":
    """A runtime over the nonzeros of what `load_model` loads. From a run directory of ours no dense matrix is made of
    those that are stored as their nonzeros. Raises UserError as `load_model` does."""
    from sparsecircuits.inference.runtime import SparseRuntime, compile_sparse
    from sparsecircuits.plans.plan import Plan

    directory = _directory(path)
    directory = directory.parent if directory.is_file() else directory
    if is_hf(directory) or not (directory / CONFIG_NAME).exists():
        return compile_sparse(load_model(path), dtype=dtype, threads=threads)
    config, weights = storage.load_native_sparsely(directory)
    runtime = SparseRuntime(Plan.of_weights(config, weights), dtype=dtype, threads=threads)
    runtime.tokenizer, runtime.name = load_tokenizer(directory), directory.resolve().name
    _check_tokenizer(runtime.tokenizer, directory)
    return runtime


def _directory(path: str | Path) -> Path:
    if is_pretrained(path):
        return folder_of(str(path))
    require_model(path)
    directory = expanded(path)
    return directory if directory.exists() else fetch(str(path))


def _read(directory: Path) -> "SparseTransformer":
    if is_hf(directory):
        return load_hf(directory)
    if (directory / CONFIG_NAME).exists():
        return storage.load_native(directory)
    if (directory / RELEASED_CONFIG).exists():
        return released.load_released(directory)
    raise UserError(f"{directory} holds no model: neither {CONFIG_NAME} nor {RELEASED_CONFIG} is there")


def _check_tokenizer(tokenizer: "Tokenizer | None", directory: Path) -> None:
    """Raise UserError when the tokenizer of a folder is not the one that its config.json names by hash."""
    from sparsecircuits.data.tokenizer_format import canonical_hash

    path = directory / CONFIG_NAME
    raw = read_json(path, "model config") if path.exists() else {}
    named, data = raw.get(storage.TOKENIZER_SUM), raw.get("data")
    if named is None and isinstance(data, dict):
        named = data.get("tokenizer")  # what the model's text was encoded with
    if named is None:
        return
    if tokenizer is None:
        if storage.TOKENIZER_SUM in raw and not is_hf(directory):
            raise UserError(f"no tokenizer at {directory / TOKENIZER_NAME}, although {path} names one")
        return  # `save_pretrained` of a model alone writes none
    found = [tokenizer.content_hash]
    if (directory / TOKENIZER_NAME).exists():  # earlier versions took the hash of all that the file says
        found.append(canonical_hash(read_json(directory / TOKENIZER_NAME, "tokenizer")))
    if named not in found:
        raise UserError(
            f"the tokenizer in {directory} is not the one that the model was trained with (its hash is not that in "
            f"{CONFIG_NAME})"
        )


def load_tokenizer(directory: str | Path) -> "Tokenizer | None":
    """The tokenizer in a folder: `tokenizer.json`, or `vocab.bpe` with `encoder.json`; None when there is none."""
    from sparsecircuits.data.tokenizer import Tokenizer

    directory = Path(directory)
    if (directory / TOKENIZER_NAME).exists():
        return Tokenizer.load(directory / TOKENIZER_NAME)
    if (directory / data_gym.MERGES_NAME).exists():
        return data_gym.load_data_gym(directory)
    return None
