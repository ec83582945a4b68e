"""The text that a command reads."""

from typing import TYPE_CHECKING

from sparsecircuits.errors import UserError

if TYPE_CHECKING:
    from sparsecircuits.data import TokenData
    from sparsecircuits.models.transformer import SparseTransformer


def text_of(model: "SparseTransformer", data: str | None) -> tuple[str, "TokenData"]:
    """A corpus, by default the one that a model was trained on, and its tokens. Raises UserError where it is
    unknown."""
    from sparsecircuits.data import Tokenizer, prepare_tokens

    data = data or model.corpus
    if data is None:
        raise UserError("the model does not say what text it was trained on: give --data")
    return data, prepare_tokens(data, model.tokenizer or Tokenizer.default())
