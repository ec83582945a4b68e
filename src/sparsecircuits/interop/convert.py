"""`convert`: a model from any format that we read into any that we write, every tensor bit-equal; and
published circuits into our JSON."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from sparsecircuits.errors import UserError, no_such
from sparsecircuits.files import atomic_folder
from sparsecircuits.interop.loading import load_model
from sparsecircuits.locks import LOCK_NAME, locked

if TYPE_CHECKING:
    from torch import Tensor

    from sparsecircuits.circuits.circuit import Circuit
    from sparsecircuits.models.transformer import SparseTransformer

Format = Literal["native", "openai", "hf"]


def save_model(model: "SparseTransformer", directory: str | Path, to: Format) -> None:
    """Write a model as a native run directory, a released ("openai") directory or a Hugging Face directory.

    Raises UserError for a folder that holds something already or that another process writes just now, and for an
    architecture or a tokenizer that the format cannot express.
    """
    if to not in get_args(Format):
        raise UserError(no_such("no format", to, get_args(Format)))
    directory = Path(directory)
    target = directory.resolve()
    # Whoever writes a folder sweeps what was left of it first, and would sweep what another is writing.
    with locked(target.with_name(f".{target.name}{LOCK_NAME}"), f"a conversion into {directory}"):
        if directory.is_file() or (directory.is_dir() and any(directory.iterdir())):
            raise UserError(f"{directory} is not empty: give a new folder")
        with atomic_folder(target) as temporary:  # whole or not there: what failed can be tried again
            _write(model, temporary, to)


def _write(model: "SparseTransformer", directory: Path, to: Format) -> None:
    if to == "native":
        from sparsecircuits.models.storage import save_native

        save_native(model, directory, {"train": {"data": model.corpus}} if model.corpus else None)
    elif to == "openai":
        from sparsecircuits.interop.released import save_released

        save_released(model, directory)
    else:
        from sparsecircuits.interop.huggingface_export import save_hf

        save_hf(model, directory)


def convert(source: str | Path, destination: str | Path, to: Format) -> "SparseTransformer":
    """Read a model (all that `load_model` takes) and write it in another format; returns the model."""
    model = load_model(source)
    save_model(model, destination, to)
    return model


def convert_circuit(
    source: str | Path,
    destination: str | Path,
    to: Format = "native",
    model: str | Path | None = None,
    data: str | None = None,
) -> "Circuit":
    """Read a published circuit (`viz_data.pt`), write it as a circuit's JSON and return it.

    model: path or name of the model that it was found in. data: a corpus (as `train` names it) whose means
    nodes outside are frozen at; by default the one that the model was trained on, if it says which.
    """
    from sparsecircuits.interop.published import read_published

    if to != "native":
        raise UserError("a circuit can be written as native alone: --to native")
    destination = Path(destination)
    if destination.exists():
        raise UserError(f"{destination} is there already: give a new name")
    if model is None:
        if data is not None:
            raise UserError("--data needs --model: means are those of a model's activations")
        circuit = read_published(source)
    else:
        found_in = load_model(model)
        circuit = read_published(source, found_in, _means(found_in, data))
    circuit.save(destination)
    return circuit


def _means(model: "SparseTransformer", data: str | None) -> "Tensor | None":
    from sparsecircuits.data import Tokenizer, prepare_tokens
    from sparsecircuits.nodes.ablation_values import pretraining_means

    corpus = data or model.corpus
    if corpus is None:
        return None
    return pretraining_means(model, prepare_tokens(corpus, model.tokenizer or Tokenizer.default()).train)
