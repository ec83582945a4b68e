"""The tokenizer: exact round trips, the published split, and every task's answer as one token in context."""

import json
import pickle
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.data.tinypython import generate_file
from sparsecircuits.data.tokenizer import END_OF_TEXT, PATTERN, SHIPPED, Tokenizer
from sparsecircuits.data.train_tokenizer import train
from sparsecircuits.errors import UserError

TOKENIZER = Tokenizer.default()

# (what comes before, the answer, what comes after)
IN_CONTEXT = [
    *[
        (before, quote + ")", after)
        for quote in "'\""
        for before in (
            f"print({quote}no value found",
            f"x = foo.bar({quote}left",
            f"log.info({quote}a line",
        )
        for after in (" + x", " and y", " or z", " in names", " if a else b", "")
    ],
    *[(f"    print({quote}found", quote + ")\n", "    x = 3\n") for quote in "'\""],
    *[("print", "(" + quote, "hello" + quote + ")") for quote in "'\""],
    *[("text = str", "(" + quote, "") for quote in "'\""],
    ("def f(a, b=None, c", "=None", "):\n"),
    ("def f(a, b=None, c", "=None", ", d=None):\n"),
    ("def f(a, b=3, c", "=", "4):\n"),
    ("def f(a, b, c", "):\n", "    pass\n"),
    ("    current", ".add", "(x)"),
    ("    current", " +=", " x"),
    ('    seen = set()\n    text = ""\n    text', " +=", ' "a"'),
    ("        self.x =", " x", "\n"),
    ("        self.name =", " name", "\n"),
    ("        self.size =", " size", "\n"),
    ("with open(f)", " as", " g:"),
    ("with handle", " as", " g:"),
    ("with open(path, 'r')", " as", " f:\n"),
    ("f = handle", "\n", "g = 3\n"),
    ("x = {3", ":", " 4}"),
    ("x = {name", ":", " 4}"),
    ('x = {"a"', ":", ""),
    ("x = [3", ",", " 4]"),
    ("x = [name", ",", " 4]"),
    ("with open(path, '", "r", "') as f"),
    ("with open(path, '", "w", "') as f"),
    ('with open(path, "', "r", '") as f'),
    ('with open(path, "', "w", '") as f'),
    ("x = [1, 2, 3", "]\n", "y = 3\n"),
    ("x = [1, 2, 3", "]", " + y\n"),
    ("x = [[1, 2], [3, 4", "]]\n", "y = 3\n"),
    ("x = [[1, 2], [3, 4", "]]", " + y\n"),
    ("x = [[a], [b, c", "]]", ""),
    ("x = [[1, 2", "],", " [3]]"),
    ("for x", " in", " xs:\n"),
    ("for item", " in", " items:\n"),
    ("while x", ":", " x = 3"),
    ("while x", ":\n", "    x = 3"),
    ("    else", ":\n", "        x"),
    ("    else", ":", " x = 3"),
    ("    elif", " x", " == 3:\n"),
    ('print(f"total', " {", 'x}")'),
    ('print(f"', "{", "x"),
    ('print(f"value {', "x", "}"),
    ("if x", ":\n", "    y = 3\n"),
    ("if x", ":", " y = 3\n"),
    ("y = a if x", " else", " b\n"),
    ("x, y = y,", " x", "\n"),
    ("a, b = b,", " a", "\n"),
    *[(f"{' ' * (n - 4)}for x in xs:\n", " " * (n - 1), " print(x)\n") for n in (4, 8, 12, 16)],
    *[(f"{' ' * n}while True:\n", " " * (n + 3), " x = 3\n") for n in (0, 4, 8, 12)],
    *[(f"{' ' * n}return True\n", " " * (n - 5), " x = 3\n") for n in (8, 12, 16)],
    ("f = lambda x", ":", " x + 1\n"),
    ("def f", "(", "threshold):\n"),
    ("def load_value", "(", ""),
    ("if x", " ==", " 3:\n"),
    ("    while count", " ==", " 3:\n"),
    ("x", " =", " 3\n"),
    ("for i, x in", " enumerate", "(xs):\n"),
    ("for i in", " range", "(3):\n"),
    ("if x == True", ":\n", "    y\n"),
    ("x = True", "\n", "y = 3\n"),
]


@pytest.mark.parametrize(("before", "answer", "after"), IN_CONTEXT)
def test_answers_are_single_tokens_where_they_stand(before: str, answer: str, after: str) -> None:
    alone = TOKENIZER.encode(before)
    whole = TOKENIZER.encode(before + answer + after)
    if before == 'x = {"a"':  # the quote and the colon are one token, as in the published split
        assert TOKENIZER.token(whole[-1]) == '":'
        return
    if before == 'print(f"':  # the opener takes the brace
        assert TOKENIZER.token(whole[len(TOKENIZER.encode("print(f"))]) == '"{'
        return
    assert whole[: len(alone)] == alone
    assert whole[len(alone)] == TOKENIZER.single_token(answer)


@pytest.mark.parametrize(
    "name", [*"xyabcnki", "name", "value", "item", "size", "count", "index", "data", "key", "path", "text"]
)
def test_usual_names_are_single_tokens(name: str) -> None:
    TOKENIZER.single_token(" " + name)


def test_runs_of_spaces_are_single_tokens() -> None:
    for count in (2, 3, 4, 7, 8, 11, 15):
        TOKENIZER.single_token(" " * count)


@settings(deadline=None, max_examples=300)
@given(st.text() | st.text(alphabet=" \n\r\t'\"()[]:=xé中🎉<|endoftext|>"))
def test_round_trip(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.eot_id not in ids


def test_lone_surrogates_do_not_stop_it() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud800b")).startswith("a\ufffd")


def test_special_text_is_ordinary_text() -> None:
    text = f'END = "{END_OF_TEXT}"'
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.eot_id == 2047
    assert TOKENIZER.eot_id not in ids
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.decode([TOKENIZER.eot_id]) == END_OF_TEXT


def test_batch_equals_one_by_one() -> None:
    texts = [generate_file(seed) for seed in range(5)] + [""]
    assert TOKENIZER.encode_batch(texts) == [TOKENIZER.encode(text) for text in texts]


def _reference() -> tiktoken.Encoding:
    """The same vocabulary in tiktoken: ranks are the merges' order, read off the shipped file."""
    model = json.loads(SHIPPED.read_text())["model"]
    pieces = TOKENIZER._pieces
    single = {piece: i for i, piece in enumerate(pieces) if len(piece) == 1}
    ranks = {bytes([byte]): byte for byte in range(256)}
    ids = {byte: single[bytes([byte])] for byte in range(256)}
    for order, (left, right) in enumerate(model["merges"]):
        token = TOKENIZER._pieces[model["vocab"][left + right]]
        ranks[token] = 256 + order
        ids[256 + order] = model["vocab"][left + right]
    encoding = tiktoken.Encoding("reference", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    encoding.ids = ids
    return encoding


REFERENCE = _reference()


@settings(deadline=None, max_examples=150)
@given(st.text() | st.integers(0, 10**6).map(generate_file) | st.text(alphabet=" \n\r\t'\"()[]/:=x12\u00a0é"))
def test_agrees_with_tiktoken(text: str) -> None:
    ids = [REFERENCE.ids[i] for i in REFERENCE.encode_ordinary(text)]
    assert TOKENIZER.encode(text) == ids


def test_vocabulary() -> None:
    assert TOKENIZER.vocab_size == 2048
    assert {bytes([byte]) for byte in range(256)} <= set(TOKENIZER._pieces)
    assert len(set(TOKENIZER._pieces)) == 2048
    assert TOKENIZER.token(TOKENIZER.single_token(" return")) == " return"


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="photosynthesis"):
        TOKENIZER.single_token("photosynthesis")
    for bad in (-1, 2048):
        with pytest.raises(UserError, match="outside"):
            TOKENIZER.decode([bad])
    with pytest.raises(UserError, match="no tokenizer"):
        Tokenizer.load(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_text('{"model": 3')
    with pytest.raises(UserError, match="not valid JSON"):
        Tokenizer.load(tmp_path / "bad.json")


def test_save_load_pickle_keep_the_hash(tmp_path: Path) -> None:
    saved = Tokenizer.load(TOKENIZER.save(tmp_path / "tokenizer.json"))
    assert saved.content_hash == TOKENIZER.content_hash == pickle.loads(pickle.dumps(saved)).content_hash
    assert saved.encode("x = [1]\n") == TOKENIZER.encode("x = [1]\n")
    assert Tokenizer.default() is TOKENIZER


def test_training_is_deterministic_and_sized() -> None:
    texts = [generate_file(seed) for seed in range(60)]
    first, second = train(texts, 400), train(texts, 400)
    assert first.content_hash == second.content_hash
    assert (first.vocab_size, first.eot_id) == (400, 399)
