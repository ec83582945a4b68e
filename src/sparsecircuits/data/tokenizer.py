"""The tokenizer: byte-level BPE of 2048 tokens, split as the published models split.

The shipped file was trained by `python -m sparsecircuits.data.train_tokenizer`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecircuits.data.tokenizer_format import BYTES, canonical_hash, check, identity
from sparsecircuits.errors import UserError
from sparsecircuits.files import read_json, write_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RawTokenizer

PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Where text is split before merging; no token crosses such a boundary."""
END_OF_TEXT = "<|endoftext|>"
VOCAB_SIZE = 2048
SHIPPED = Path(__file__).with_name("tokenizer.json")


class Tokenizer:
    """Text to token ids and back. Source text is never read as a special token, whatever it spells."""

    def __init__(self, raw: RawTokenizer) -> None:
        """Wrap a Hugging Face tokenizer. Raises UserError if it has no end-of-text token."""
        self._raw = raw
        raw.encode_special_tokens = True
        raw.no_padding()
        raw.no_truncation()
        eot = raw.token_to_id(END_OF_TEXT)
        if eot is None:
            raise UserError(f"the tokenizer has no {END_OF_TEXT} token")
        self.eot_id: int = eot
        self.vocab_size: int = raw.get_vocab_size(with_added_tokens=True)

    @classmethod
    def default(cls) -> Tokenizer:
        """The shipped tokenizer (one shared object)."""
        return _shipped()

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a `tokenizer.json`. Raises UserError if it is missing or broken, or what it says is not byte-level
        BPE with ids from 0 on that leaves texts as they are."""
        from tokenizers import Tokenizer as Raw

        content = read_json(Path(path), "tokenizer")
        check(content, str(path))
        try:
            raw = Raw.from_str(json.dumps(content))
        except BaseException as error:  # the library raises a bare Exception, and its panics are not even that
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise UserError(f"{path} is not a tokenizer file: {str(error).splitlines()[0]}") from error
        return cls(raw)

    def save(self, path: str | Path) -> Path:
        """Write `tokenizer.json` atomically; loading it gives the same content hash."""
        return write_text(Path(path), self._raw.to_str(pretty=False))

    def to_dict(self) -> dict[str, Any]:
        """The content of `tokenizer.json`."""
        return json.loads(self._raw.to_str())

    @functools.cached_property
    def content_hash(self) -> str:
        """Hex SHA-256 of what decides the ids of a text: equal for equal tokenizers, however the file was laid out
        and whichever version of the library wrote it."""
        return canonical_hash(identity(self.to_dict()))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; nothing is added."""
        return self._raw.encode(_valid(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Token ids of many texts, encoded in parallel."""
        encodings = self._raw.encode_batch_fast([_valid(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, end-of-text included; bytes that are no UTF-8 become U+FFFD.

        Raises UserError for an id outside the vocabulary.
        """
        return b"".join(map(self._piece, ids)).decode("utf-8", "replace")

    def token(self, token_id: int) -> str:
        """The text of one token, for display. Raises UserError for an id outside the vocabulary."""
        return self._piece(token_id).decode("utf-8", "replace")

    def single_token(self, text: str) -> int:
        """The id of a text that is one token; else raises UserError that names the text and its pieces."""
        ids = self.encode(text)
        if len(ids) != 1:
            pieces = " + ".join(repr(self.token(i)) for i in ids) or "nothing"
            raise UserError(f"{text!r} is not a single token of this tokenizer (it is {pieces})")
        return ids[0]

    def starts(self, ids: Sequence[int]) -> np.ndarray:
        """The first byte of each token in the text of the ids, and the text's length: int64 [len(ids) + 1].

        Raises UserError for an id outside the vocabulary.
        """
        return np.cumsum([0, *(len(self._piece(i)) for i in ids)], dtype=np.int64)

    def _piece(self, token_id: int) -> bytes:
        pieces = self._pieces
        if not 0 <= token_id < len(pieces):
            raise UserError(f"token id {token_id} is outside the vocabulary of {self.vocab_size}")
        return pieces[token_id]

    @functools.cached_property
    def _pieces(self) -> list[bytes]:
        """The bytes of every token."""
        special = set(self._raw.get_added_tokens_decoder())
        pieces = []
        for i in range(self.vocab_size):
            text = self._raw.id_to_token(i) or ""
            spelled = i not in special and all(character in BYTES for character in text)
            pieces.append(bytes(BYTES[character] for character in text) if spelled else text.encode())
        return pieces

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return _from_json, (self._raw.to_str(),)


def _from_json(text: str) -> Tokenizer:
    from tokenizers import Tokenizer as Raw

    return Tokenizer(Raw.from_str(text))


def _valid(text: str) -> str:
    """Lone surrogates, which no UTF-8 can hold, become U+FFFD."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


@functools.cache
def _shipped() -> Tokenizer:
    return Tokenizer.load(SHIPPED)
