"""`convert`: a model from any format that we read into any that we write, every tensor bit-equal."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from sparsecircuits.errors import UserError
from sparsecircuits.interop.loading import load_model

if TYPE_CHECKING:
    from sparsecircuits.models.transformer import SparseTransformer

Format = Literal["native", "openai", "hf"]


def save_model(model: "SparseTransformer", directory: str | Path, to: Format) -> None:
    """Write a model as a native run directory, a released ("openai") directory or a Hugging Face directory.

    Raises UserError for a folder that holds something already, and for an architecture or a tokenizer that
    the format cannot express.
    """
    if to not in get_args(Format):
        raise UserError(f"no format {to!r}; there are {', '.join(get_args(Format))}")
    directory = Path(directory)
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir())):
        raise UserError(f"{directory} is not empty: give a new folder")
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
