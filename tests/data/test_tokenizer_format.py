"""What a `tokenizer.json` may not be: each is refused in one line, before the library could crash on it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsecircuits.data.tokenizer import SHIPPED, Tokenizer
from sparsecircuits.errors import UserError

GOOD = SHIPPED.read_text(encoding="utf-8")
ADDED = {"id": 2048, "content": "<|more|>", "single_word": False, "lstrip": False, "rstrip": False}
ADDED |= {"normalized": False, "special": True}
TEMPLATE = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": []}


def at(*keys: Any, value: Any) -> Callable[[dict], None]:
    """Set the value at a path of keys."""

    def change(raw: Any) -> None:
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = value

    return change


SPLIT = ("pre_tokenizer", "pretokenizers", 0)
PADDING = {"strategy": "BatchLongest", "direction": "Right", "pad_id": 2047, "pad_type_id": 0, "pad_token": "x"}
BAD: dict[str, tuple[Callable[[dict], Any], str]] = {
    "normalizer": (at("normalizer", value={"type": "Lowercase"}), "has a normalizer"),
    "truncation": (at("truncation", value={"max_length": 4}), "has truncation.*transformers leaves it"),
    "padding": (at("padding", value=PADDING), "has padding.*transformers leaves it"),
    "something new": (at("rewriter", value={"type": "New"}), "has a rewriter"),
    "no pre_tokenizer": (at("pre_tokenizer", value=None), "pre_tokenizer"),
    "bytes alone": (at("pre_tokenizer", value={"type": "ByteLevel", "use_regex": False}), "pre_tokenizer"),
    "prefix space": (at("pre_tokenizer", "pretokenizers", 1, "add_prefix_space", value=True), "pre_tokenizer"),
    "second split": (at("pre_tokenizer", "pretokenizers", 1, "use_regex", value=True), "pre_tokenizer"),
    "split removes": (at(*SPLIT, "behavior", value="Removed"), "pre_tokenizer"),
    "split inverted": (at(*SPLIT, "invert", value=True), "pre_tokenizer"),
    "pattern a number": (at(*SPLIT, "pattern", value={"Regex": 3}), "pre_tokenizer"),
    "pattern broken": (at(*SPLIT, "pattern", value={"Regex": "(["}), "not a tokenizer file"),
    "no decoder": (at("decoder", value=None), "decoder"),
    "another decoder": (at("decoder", value={"type": "Metaspace"}), "decoder"),
    "bytes processed": (at("post_processor", value={"type": "ByteLevel"}), "post_processor"),
    "a template that adds": (
        at("post_processor", value={**TEMPLATE, "single": [{"SpecialToken": {"id": "x", "type_id": 0}}]}),
        "post_processor",
    ),
    "another model": (at("model", "type", value="WordPiece"), "WordPiece"),
    "byte_fallback": (at("model", "byte_fallback", value=True), "byte_fallback"),
    "dropout": (at("model", "dropout", value=0.5), "dropout"),
    "ignore_merges": (at("model", "ignore_merges", value=True), "ignore_merges"),
    "unk_token": (at("model", "unk_token", value="!"), "unk_token"),
    "word suffix": (at("model", "end_of_word_suffix", value="</w>"), "end_of_word_suffix"),
    "id beyond": (at("model", "vocab", "!", value=2**32 - 1), "0 to 2047"),
    "id far beyond": (at("model", "vocab", "!", value=10**30), "0 to 2047"),
    "id negative": (at("model", "vocab", "!", value=-1), "0 to 2047"),
    "id twice": (at("model", "vocab", "!", value=1), "0 to 2047"),
    "id a truth value": (at("model", "vocab", '"', value=True), "does not map"),
    "id a float": (at("model", "vocab", '"', value=1.0), "does not map"),
    "vocabulary a list": (at("model", "vocab", value=["!"]), "does not map"),
    "merges a number": (at("model", "merges", value=3), "merges"),
    "merge of three": (at("model", "merges", 0, value=["a", "b", "c"]), "merges"),
    "merge of nothing": (at("model", "merges", 0, value=["", "a"]), "merges"),
    "merge of the unknown": (at("model", "merges", 0, value=["zq", "qz"]), "not a tokenizer file"),
    "a byte missing": (lambda raw: raw["model"]["vocab"].pop("A"), "lacks the byte 65"),
    "added far away": (lambda raw: raw["added_tokens"].append({**ADDED, "id": 5000}), "5000 is beyond"),
    "added twice": (lambda raw: raw["added_tokens"].append(raw["added_tokens"][0]), "twice"),
    "added over another": (lambda raw: raw["added_tokens"].append({**ADDED, "id": 5}), "each once"),
    "added of two ids": (lambda raw: raw["added_tokens"].append({**ADDED, "content": "!"}), "another id"),
    "added to text": (lambda raw: raw["added_tokens"].append({**ADDED, "special": False}), "how text is read"),
    "added greedily": (lambda raw: raw["added_tokens"].append({**ADDED, "lstrip": True}), "how text is read"),
    "added empty": (lambda raw: raw["added_tokens"].append({**ADDED, "content": ""}), "no content"),
    "added a text": (at("added_tokens", value="x"), "no list"),
    "no end of text": (at("added_tokens", value=[]), "endoftext"),
    "no model": (at("model", value=None), "no object with a model"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_in_one_line(name: str, tmp_path: Path) -> None:
    change, words = BAD[name]
    raw = json.loads(GOOD)
    change(raw)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(UserError, match=words) as refused:
        Tokenizer.load(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", "[" * 5000, '{"model": {}, "model": {}}', '{"model": 1' + "0" * 9999]
)
def test_no_object_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_layout_and_what_transformers_adds_keep_the_hash(tmp_path: Path) -> None:
    raw = json.loads(GOOD)
    raw["post_processor"] = {**TEMPLATE, "special_tokens": {}}
    raw["model"]["merges"] = [" ".join(merge) for merge in raw["model"]["merges"]]  # as older versions write them
    del raw["truncation"], raw["model"]["byte_fallback"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw, indent=3), encoding="utf-8")
    assert Tokenizer.load(tmp_path / "tokenizer.json").content_hash == Tokenizer.default().content_hash


def test_other_splits_and_merges_have_other_hashes(tmp_path: Path) -> None:
    seen = {Tokenizer.default().content_hash}
    for change in (
        at(*SPLIT, "pattern", value={"Regex": r"\p{L}+|\s+"}),
        lambda raw: raw["model"]["merges"].pop(),
        lambda raw: raw["model"]["vocab"].update({"!": 1, '"': 0}),
    ):
        raw = json.loads(GOOD)
        change(raw)
        (tmp_path / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
        seen.add(Tokenizer.load(tmp_path / "tokenizer.json").content_hash)
    assert len(seen) == 4
