"""What a `tokenizer.json` may be: byte-level BPE whose ids are 0 to n - 1 and that changes no text.

The library reads much more: normalizers, byte fallback, texts that are cut or padded, ids with holes. None of it
is a tokenizer that a model here was trained with, and some of it crashes the library, so the file is checked
before the library sees it.
"""

import hashlib
import json
from typing import Any

from sparsecircuits.errors import UserError

_TOP = {"version", "added_tokens", "pre_tokenizer", "post_processor", "decoder", "model"}
_MODEL = {"type", "vocab", "merges"}
_IDLE_MODEL = {"fuse_unk"}  # says something of unknown tokens alone, of which there are none
_ADDED_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


def byte_characters() -> dict[str, int]:
    """The printable stand-ins of byte-level BPE, to bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    table = {chr(byte): byte for byte in plain}
    table.update({chr(256 + i): byte for i, byte in enumerate(rest)})
    return table


BYTES = byte_characters()


def check(content: Any, where: str) -> None:
    """Raise UserError for the first thing in a `tokenizer.json` that no model here is trained with."""
    fault = _fault(content)
    if fault is not None:
        raise UserError(f"{where} is not a tokenizer file that can be used: {fault}")


def identity(content: dict[str, Any]) -> dict[str, Any]:
    """What decides the ids of a text, in a `tokenizer.json` that `check` passed: equal for equal tokenizers,
    whichever version of the library wrote them and whatever it added for transformers."""
    model = content["model"]
    return {
        "vocab": model["vocab"],
        "merges": [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]],
        "added": {token["content"]: token["id"] for token in content["added_tokens"]},
        "split": content["pre_tokenizer"]["pretokenizers"][0]["pattern"],
    }


def canonical_hash(value: Any) -> str:
    """Hex SHA-256 of a JSON value, however its text was laid out."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _fault(content: Any) -> str | None:
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        return "it is no object with a model"
    for name in sorted(set(content) - _TOP):
        if content[name]:
            return f"it has {_article(name)}; such a file must have null there{_HINTS.get(name, '')}"
    faults = (
        _model_fault(content["model"]),
        _added_fault(content.get("added_tokens")),
        _split_fault(content.get("pre_tokenizer")),
        _decoder_fault(content.get("decoder")),
        _post_processor_fault(content.get("post_processor")),
    )
    return next((fault for fault in faults if fault is not None), None) or _ids_fault(content)


_BY_TRANSFORMERS = " (transformers leaves it behind when a tokenizer is saved after use with that setting)"
_HINTS = {"padding": _BY_TRANSFORMERS, "truncation": _BY_TRANSFORMERS}


def _article(name: str) -> str:
    return name if name in ("padding", "truncation") else f"a {name}"


def _model_fault(model: dict[str, Any]) -> str | None:
    if model.get("type", "BPE") != "BPE":
        return f"its model is {model['type']!r}, expected 'BPE'"
    for name in sorted(set(model) - _MODEL - _IDLE_MODEL):
        if model[name]:
            return f"its model has {name}"
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
        return "its vocabulary does not map tokens to ids"
    if not isinstance(merges, list) or not all(map(_is_merge, merges)):
        return "its merges are not pairs of tokens"
    lacking = sorted(set(BYTES) - set(vocab))
    return f"its vocabulary lacks the byte {BYTES[lacking[0]]}" if lacking else None


def _is_merge(merge: Any) -> bool:
    pair = merge.split(" ") if isinstance(merge, str) else merge
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) and part for part in pair)


def _added_fault(added: Any) -> str | None:
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        return "its added tokens are no list of objects"
    for token in added:
        if not isinstance(token.get("content"), str) or type(token.get("id")) is not int or not token["content"]:
            return "an added token has no content or no id"
        if token.get("special") is not True or any(token.get(flag) for flag in _ADDED_FLAGS):
            return f"the added token {token['content']!r} changes how text is read: it must be special, without flags"
    return None


def _split_fault(pre_tokenizer: Any) -> str | None:
    """Whether texts are split by one pattern and then spelled in bytes."""
    try:
        split, byte_level = pre_tokenizer["pretokenizers"]
        pattern = split["pattern"]
        good = (
            (pre_tokenizer["type"], split["type"], byte_level["type"]) == ("Sequence", "Split", "ByteLevel")
            and (split["behavior"], split["invert"]) == ("Isolated", False)
            and (byte_level["add_prefix_space"], byte_level["use_regex"]) == (False, False)
            and list(pattern) in (["Regex"], ["String"])
            and isinstance(next(iter(pattern.values())), str)
        )
    except (TypeError, KeyError, ValueError):
        good = False
    return None if good else "its pre_tokenizer is not a split by a pattern, then into bytes"


def _decoder_fault(decoder: Any) -> str | None:
    good = isinstance(decoder, dict) and decoder.get("type") == "ByteLevel"
    return None if good else "its decoder is not that of bytes"


def _post_processor_fault(post_processor: Any) -> str | None:
    """Templates that add nothing are what transformers writes for none."""
    try:
        pieces = [*post_processor["single"], *post_processor["pair"]] if post_processor is not None else []
        idle = all(list(piece) == ["Sequence"] for piece in pieces)
        good = post_processor is None or (post_processor["type"] == "TemplateProcessing" and idle)
    except (TypeError, KeyError):
        good = False
    return None if good else "its post_processor adds or changes tokens"


def _ids_fault(content: dict[str, Any]) -> str | None:
    """Whether ids are 0 to n - 1, each for one token."""
    ids = dict(content["model"]["vocab"])
    for token in content["added_tokens"]:
        if ids.setdefault(token["content"], token["id"]) != token["id"]:
            return f"the added token {token['content']!r} has another id in the vocabulary"
    if len(content["added_tokens"]) != len({token["content"] for token in content["added_tokens"]}):
        return "an added token is there twice"
    wrong = next((i for place, i in enumerate(sorted(ids.values())) if i != place), None)
    return None if wrong is None else f"ids must be 0 to {len(ids) - 1}, each once: {wrong} is beyond, or there twice"
