"""`load_model`: one door for every kind of model directory; it picks the reader by what is there."""

from pathlib import Path
from typing import TYPE_CHECKING

from sparsecircuits.errors import UserError
from sparsecircuits.interop import released
from sparsecircuits.models import storage

if TYPE_CHECKING:
    from sparsecircuits.models.transformer import SparseTransformer


def load_model(path: str | Path, device: str = "cpu") -> "SparseTransformer":
    """Load a model for inference: a run directory of ours, or a released checkpoint directory.

    The tokenizer of a run directory is attached as `model.tokenizer`. Raises UserError when nothing that
    can be loaded is there, or when it is damaged. Loading never executes code.
    """
    directory = Path(path).expanduser()
    if not directory.exists():
        raise UserError(f"no model at {path}: give a run directory (one with {storage.CONFIG_NAME})")
    if directory.is_file():
        directory = directory.parent
    if (directory / storage.CONFIG_NAME).exists():
        model = storage.load_native(directory)
    elif (directory / released.CONFIG_NAME).exists():
        model = released.load_released(directory)
    else:
        raise UserError(f"{path} holds no model: neither {storage.CONFIG_NAME} nor {released.CONFIG_NAME} is there")
    if (directory / "tokenizer.json").exists():
        from sparsecircuits.data.tokenizer import Tokenizer

        model.tokenizer = Tokenizer.load(directory / "tokenizer.json")
        if model.tokenizer.vocab_size > model.config.vocab_size:
            raise UserError(
                f"{directory / 'tokenizer.json'} has {model.tokenizer.vocab_size} tokens, "
                f"the model knows {model.config.vocab_size}"
            )
    return model.to(device)
