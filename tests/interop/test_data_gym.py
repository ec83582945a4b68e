"""`vocab.bpe` and `encoder.json`: tiktoken is the oracle, on the shipped tokenizer and on trained ones."""

import json
import random
import tempfile
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Raw

import sparsecircuits as sc
from sparsecircuits.data.tinypython import generate_file
from sparsecircuits.data.tokenizer import END_OF_TEXT, PATTERN, Tokenizer
from sparsecircuits.interop.data_gym import load_data_gym, save_data_gym


def oracle(directory: Path) -> tiktoken.Encoding:
    ranks = data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(directory / "vocab.bpe"), encoder_json_file=str(directory / "encoder.json")
    )
    return tiktoken.Encoding("x", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)})


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shipped")
    save_data_gym(Tokenizer.default(), directory)
    return directory, load_data_gym(directory), oracle(directory)


def test_the_shipped_tokenizer_comes_back(shipped, tmp_path):
    directory, read, _ = shipped
    assert read.eot_id == 2047
    assert read.vocab_size == 2048
    assert read.content_hash == Tokenizer.default().content_hash
    save_data_gym(read, tmp_path)
    for name in ("vocab.bpe", "encoder.json"):
        assert (tmp_path / name).read_bytes() == (directory / name).read_bytes()


ANY_TEXT = (
    st.text()
    | st.text(alphabet=" \n\r\t'\"()[]{}/:=.,x12aeE_\u00a0é\u3000中🙂")
    | st.integers(0, 10**6).map(generate_file)
)


@given(ANY_TEXT)
@settings(max_examples=200, deadline=None)
def test_agrees_with_tiktoken(shipped, text):
    _, read, reference = shipped
    ids = read.encode(text)
    assert ids == reference.encode_ordinary(text)
    assert read.decode(ids) == text


def test_agrees_with_tiktoken_on_ten_thousand_texts(shipped):
    _, read, reference = shipped
    chance = random.Random(0)
    source = Path(random.__file__).read_text()
    alphabets = [source, " \n\t", "0123456789.eE", "".join(map(chr, range(32, 0x2FF))), "ab'\"éß中\r\n\u2028"]
    texts = []
    for n in range(10_000):
        if n % 2:
            start = chance.randrange(len(source))
            texts.append(source[start : start + chance.randrange(200)])
        else:
            letters = chance.choice(alphabets)
            texts.append("".join(chance.choice(letters) for _ in range(chance.randrange(40))))
    assert read.encode_batch(texts) == [reference.encode_ordinary(text) for text in texts]


@given(st.lists(ANY_TEXT, min_size=1, max_size=8), st.integers(0, 60), st.lists(ANY_TEXT, max_size=8))
@settings(max_examples=40, deadline=None)
def test_any_trained_vocabulary_round_trips_and_agrees(corpus, merges, texts):
    raw = Raw(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=256 + merges, initial_alphabet=alphabet, show_progress=False)
    )
    content = json.loads(raw.to_str())
    merged = [tuple(merge) for merge in content["model"]["merges"]]
    order = [chr(b) for b in [*range(33, 127), *range(161, 173), *range(174, 256)]] + [chr(256 + i) for i in range(68)]
    vocabulary = {token: i for i, token in enumerate([*order, *(a + b for a, b in merged)])}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "encoder.json").write_text(json.dumps(vocabulary))
        lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merged), ""]
        (path / "vocab.bpe").write_text("\n".join(lines), encoding="utf-8")
        read, reference = load_data_gym(path), oracle(path)
        for text in (*corpus, *texts):
            assert read.encode(text) == reference.encode_ordinary(text)
        save_data_gym(read, path / "again")
        assert (path / "again" / "vocab.bpe").read_bytes() == (path / "vocab.bpe").read_bytes()


def test_damage_is_named(shipped, tmp_path):
    directory, _, _ = shipped
    merges = (directory / "vocab.bpe").read_text()
    vocabulary = json.loads((directory / "encoder.json").read_text())

    def fails(merge_text, vocabulary_text, words):
        (tmp_path / "vocab.bpe").write_text(merge_text)
        (tmp_path / "encoder.json").write_text(vocabulary_text)
        with pytest.raises(sc.UserError, match=words):
            load_data_gym(tmp_path)

    good = json.dumps(vocabulary)
    fails(merges.removeprefix("#"), good, "#version")
    fails(merges + "a b c\n", good, "two tokens")
    fails(merges + "zq qz\n", good, "no earlier line")
    fails("\n".join(merges.splitlines()[:-1]), good, "do not fit")
    fails(merges, "{", "not valid JSON")
    fails(merges, '{"a": "b"}', "token")
    fails(merges, json.dumps({**vocabulary, "!": 1}), "do not fit")
    fails(merges, json.dumps({**vocabulary, END_OF_TEXT: 3}), "expected 2047")
    (tmp_path / "encoder.json").unlink()
    with pytest.raises(sc.UserError, match="no vocabulary"):
        load_data_gym(tmp_path)
