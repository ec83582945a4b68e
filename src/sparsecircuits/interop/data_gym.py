"""The tokenizer files of the released models, read and written: GPT-2's `vocab.bpe` and `encoder.json`.

`vocab.bpe` lists the merges in order; `encoder.json` maps each token, spelled in byte-level BPE's printable
stand-ins, to its id: 256 bytes first, then one token per merge. The end-of-text token has the id after them.
"""

import json
from pathlib import Path
from typing import Any

from sparsecircuits.data.tokenizer import END_OF_TEXT, PATTERN, Tokenizer
from sparsecircuits.data.tokenizer_format import BYTES
from sparsecircuits.errors import UserError
from sparsecircuits.files import read_json, read_text, write_text

MERGES_NAME, VOCABULARY_NAME = "vocab.bpe", "encoder.json"
_HEADER = "#version: 0.2"
_SPECIAL = (END_OF_TEXT, "<|startoftext|>")


def load_data_gym(directory: str | Path) -> Tokenizer:
    """Read `vocab.bpe` and `encoder.json` of a folder. Raises UserError when either is missing, damaged, or
    does not fit the other."""
    directory = Path(directory)
    merges = _read_merges(directory / MERGES_NAME)
    vocabulary = _read_vocabulary(directory / VOCABULARY_NAME)
    end_of_text = vocabulary.pop(END_OF_TEXT, None)
    for special in _SPECIAL:
        vocabulary.pop(special, None)
    _check(merges, vocabulary, str(directory))
    if end_of_text not in (None, len(vocabulary)):
        raise UserError(f"{directory}: {END_OF_TEXT} has the id {end_of_text}, expected {len(vocabulary)}")

    from tokenizers import AddedToken, Regex
    from tokenizers import Tokenizer as Raw
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    raw = Raw(BPE(vocab=vocabulary, merges=merges))
    # The library's type stubs lack what the classes accept.
    raw.pre_tokenizer = Sequence(  # type: ignore[assignment]
        [Split(Regex(PATTERN), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    raw.decoder = ByteLevelDecoder()  # type: ignore[assignment]
    raw.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return Tokenizer(raw)


def save_data_gym(tokenizer: Tokenizer, directory: str | Path) -> None:
    """Write `vocab.bpe` and `encoder.json` into a folder; `load_data_gym` reads the same tokenizer back.

    Raises UserError for a tokenizer whose split or id order the format cannot express.
    """
    directory = Path(directory)
    content = tokenizer.to_dict()
    vocabulary, merges = _expressible(content)
    _check(merges, vocabulary, "the tokenizer")
    lines = [_HEADER, *(f"{left} {right}" for left, right in merges), ""]
    write_text(directory / MERGES_NAME, "\n".join(lines))
    write_text(directory / VOCABULARY_NAME, json.dumps({**vocabulary, END_OF_TEXT: tokenizer.eot_id}))


def _read_merges(path: Path) -> list[tuple[str, str]]:
    lines = read_text(path, "merges").split("\n")
    if not lines or not lines[0].startswith("#version"):
        raise UserError(f"{path} does not begin with a #version line")
    merges = []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        left, space, right = line.partition(" ")
        if not (left and space and right) or " " in right:
            raise UserError(f"{path}, line {number}: expected two tokens with a space between, got {line!r}")
        merges.append((left, right))
    return merges


def _read_vocabulary(path: Path) -> dict[str, int]:
    vocabulary = read_json(path, "vocabulary")
    if not isinstance(vocabulary, dict) or not all(type(i) is int for i in vocabulary.values()):
        raise UserError(f"{path} does not map tokens to ids")
    return vocabulary


def _check(merges: list[tuple[str, str]], vocabulary: dict[str, int], where: str) -> None:
    """Whether ids are what the merges say: the bytes (printable ones first, ascending), then one token per merge."""
    expected = [*BYTES, *(left + right for left, right in merges)]
    known: set[str] = set(BYTES)
    for left, right in merges:
        if left not in known or right not in known:
            raise UserError(f"{where}: the merge {left!r} {right!r} uses a token that no earlier line makes")
        known.add(left + right)
    if len(known) != len(expected):
        raise UserError(f"{where}: two merges make the same token")
    if vocabulary != {token: i for i, token in enumerate(expected)}:
        raise UserError(f"{where}: {VOCABULARY_NAME} and {MERGES_NAME} do not fit: ids must follow the merges")


def _expressible(content: dict[str, Any]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = content["model"]
    split = json.dumps(content.get("pre_tokenizer"), ensure_ascii=False)
    if model.get("type") != "BPE" or json.dumps(PATTERN, ensure_ascii=False) not in split:
        raise UserError("this tokenizer is no byte-level BPE with the released split: the format cannot hold it")
    vocabulary = {token: i for token, i in model["vocab"].items() if token not in _SPECIAL}
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    return vocabulary, merges  # type: ignore[return-value]
