"""Tasks of one's own: files of pairs and Python functions, and what is refused, with its line."""

import json

import pytest

import sparsecircuits as sc
from sparsecircuits.runs import TASK_FILE
from sparsecircuits.tasks import task_of_circuit
from sparsecircuits.tasks.own import load_task_file

HEAD = {"name": "closing", "description": "close a call or a list", "answers": [")", "]"]}


def rows(n=10):
    return [{"left": f"x = f({i}", "right": f"x = g[{i}", "left_rest": " + 1", "right_rest": " + 1"} for i in range(n)]


def write(path, lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_a_file_of_pairs_is_a_task(tmp_path):
    task = sc.own_task(write(tmp_path / "any.jsonl", [HEAD, *rows(), ""]))
    assert (task.name, task.description, task.answers) == ("closing", "close a call or a list", (")", "]"))
    assert [len(task.pairs(split, 100)) for split in sc.tasks.SPLITS] == [6, 2, 2]
    assert len(task.pairs("train", 3)) == 3
    assert task.pairs("train", 6, seed=1) != task.pairs("train", 6, seed=2)
    assert task.batch("train", 64).tokens.shape[0] == 12


def test_lines_may_name_their_split_and_answers(tmp_path):
    lines = [{**row, "answers": [")", "]"], "split": sc.tasks.SPLITS[i % 3]} for i, row in enumerate(rows(9))]
    task = sc.own_task(write(tmp_path / "brackets.jsonl", lines))
    assert task.name == "brackets"
    assert {pair.left for pair in task.pairs("held_out", 9)} == {f"x = f({i}" for i in (2, 5, 8)}


BROKEN = {
    "line 3: no JSON": [HEAD, rows()[0], '{"left": "x'],
    "line 2: must be a JSON object": [HEAD, "[1, 2]"],
    "line 2: unknown field 'wrong'": [HEAD, {**rows()[0], "wrong": "x"}],
    "line 2: right is missing": [HEAD, {"left": "x = f(3"}],
    "line 2: left must be text": [HEAD, {"left": 3, "right": "x"}],
    "line 4: left and right are the same prompt": [HEAD, *rows(2), {"left": "x = f(a", "right": "x = f(a"}],
    "line 4: its left prompt stands in line 2 already": [HEAD, *rows(2), {"left": "x = f(0", "right": "y"}],
    "line 2: no split 'test'": [HEAD, {**rows()[0], "split": "test"}],
    "line 3: answers differ from those of line 1": [HEAD, rows()[0], {**rows()[1], "answers": ["a", "b"]}],
    "line 1: answers must be two texts": [{**HEAD, "answers": [")"]}, *rows()],
    "line 1: both answers are": [{**HEAD, "answers": [")", ")"]}, *rows()],
    "line 1: the name '../x'": [{**HEAD, "name": "../x"}, *rows()],
    "line 1: the answers are missing": rows(),
    "no pair of split validation": [HEAD, *rows(2)],
    r"line 1: task closing cannot run with this tokenizer: '\)\) ' is not a single token": [
        {**HEAD, "answers": ["]", ")) "]},
        *rows(),
    ],
    "line 3: task closing: after .* does not stand alone": [
        HEAD,
        rows()[0],
        {**rows()[1], "left_rest": "\n"},
        *rows()[2:],
    ],
    "the name if_equals is taken": [{**HEAD, "name": "if_equals"}, *rows()],
}


@pytest.mark.parametrize("words", BROKEN)
def test_what_is_wrong_is_told_with_its_line(tmp_path, words):
    with pytest.raises(sc.UserError, match=words):
        sc.own_task(write(tmp_path / "own.jsonl", BROKEN[words]))


def test_only_line_feeds_end_lines(tmp_path):
    marks = "\u2028\u2029\x85\x1c\x0c"
    pairs = [{**row, "left": f"# {marks}\n{row['left']}", "right": f"# {marks}\n{row['right']}"} for row in rows()]
    text = "".join(json.dumps(row, ensure_ascii=False).replace("\\u001c", "\x1c") + "\n" for row in [HEAD, *pairs])
    text = text.replace("\x1c", "").replace("\\f", "")  # control characters that JSON must escape
    plain, windows = tmp_path / "plain.jsonl", tmp_path / "windows.jsonl"
    plain.write_text(text, encoding="utf-8", newline="\n")
    windows.write_text("\ufeff" + text, encoding="utf-8", newline="\r\n")
    tasks = [load_task_file(path) for path in (plain, windows)]
    assert tasks[0].pool == tasks[1].pool
    assert "\u2028\u2029\x85" in tasks[0].pairs("train", 1)[0].left
    windows.write_text("\ufeff" + text + "{", encoding="utf-8", newline="\r\n")
    with pytest.raises(sc.UserError, match="line 12: no JSON"):
        load_task_file(windows)


def test_numbers_too_long_and_brackets_too_deep_are_told_with_their_line(tmp_path):
    for value in ("9" * 5000, "[" * 100_000 + "]" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000):
        line = json.dumps(rows()[0])[:-1] + f', "left_rest": {value}}}'
        with pytest.raises(sc.UserError, match="line 2: no JSON"):
            sc.own_task(write(tmp_path / "own.jsonl", [HEAD, line]))
    with pytest.raises(sc.UserError, match="line 2: no JSON: the key 'left' is there twice"):
        sc.own_task(write(tmp_path / "own.jsonl", [HEAD, '{"left": "a", "left": "b", "right": "c"}']))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(sc.UserError, match="no task file at"):
        sc.own_task(tmp_path / "none.jsonl")
    with pytest.raises(sc.UserError, match=r"ends in \.jsonl"):
        sc.own_task(tmp_path / "pairs.csv")


PROGRAM = """
from sparsecircuits import Pair, Task

def sample(rng, split):
    name = rng.choice({"train": "abc", "validation": "def", "held_out": "ghi"}[split])
    number = rng.randint(0, 99)
    return Pair(f"{name} = f({number}", f"{name} = g[{number}", " + 1", " + 1")

TASK = Task("mine", "close it", (")", "]"), sample)
"""


def test_a_python_function_is_a_task(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PROGRAM)
    task = sc.own_task(path)
    assert task.name == "mine"
    assert len(task.pairs("train", 200)) == 200
    assert task.batch("held_out", 16).tokens.shape[0] == 32


def test_a_python_file_without_a_task_or_with_a_mistake_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    for text, words in (("x = 1\n", "makes 0 tasks"), ("1 / 0\n", "fails: ZeroDivisionError"), ("def\n", "SyntaxErr")):
        path.write_text(text)
        with pytest.raises(sc.UserError, match=words):
            load_task_file(path)


def test_the_file_beside_a_circuit_gives_the_same_pairs(tmp_path):
    task = sc.own_task(write(tmp_path / "named_by_its_file.jsonl", [{"answers": [")", "]"]}, *rows(40)]))
    sc.write_task_file(task, tmp_path / TASK_FILE)
    again = task_of_circuit("named_by_its_file", tmp_path)
    for split in sc.tasks.SPLITS:
        assert again.pairs(split, 5, seed=3) == task.pairs(split, 5, seed=3)
    assert task_of_circuit("if_equals", tmp_path).name == "if_equals"


def test_a_shipped_task_written_and_read_is_as_good(tmp_path):
    text = sc.write_task_file(sc.get_task("var_swap"), tmp_path / "swap.jsonl", 20).read_text()
    (tmp_path / "swap.jsonl").write_text(text.replace('"var_swap"', '"swap"', 1))
    task = sc.own_task(tmp_path / "swap.jsonl")
    assert set(task.pairs("held_out", 99)) == set(sc.get_task("var_swap").draw("held_out", 20))
