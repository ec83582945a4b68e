"""The rules that must not solve a task are as good as they can be, and found where they are planted."""

import json

import numpy as np
import pytest

import sparsecircuits as sc
from sparsecircuits.cli import main
from sparsecircuits.data import Tokenizer
from sparsecircuits.tasks import SPLITS, Pair, Task
from sparsecircuits.tasks.shortcuts import BESIDE, LAST_TOKENS, shortcuts

NAMES = {split: [f"{letter}{i}" for i in range(40)] for split, letter in zip(SPLITS, "abc", strict=True)}


def planted(left, right):
    """A task whose prompts are noise around a cue."""

    def sample(rng, split):
        before, after = (" ".join(rng.sample(NAMES[split], 4)) for _ in range(2))
        shared = {"x": rng.randint(0, 5) * " [", "y": rng.randint(0, 5) * " ["}
        return Pair(*(f"{before} {cue.format(**shared)} {after}" for cue in (left, right)), " 1", " 1")

    return Task("planted", "", (" if", " else"), sample).bind(Tokenizer.default())


def test_a_token_that_says_it_is_found():
    found = shortcuts(planted("for", "while"), 64)
    assert (found.token, found.bag) == (1.0, 1.0)
    assert found.by_token in (" for", " while")
    assert max(found.last[0], found.last[1]) < 0.6
    assert found.best[1] == 1.0


def test_the_last_tokens_are_found():
    task = planted("x", "y")
    ends = Task("ends", "", task.answers, lambda rng, s: Pair(*(task.sample(rng, s).left + e for e in (" a=", " b="))))
    found = shortcuts(ends.bind(Tokenizer.default()), 64)
    assert found.last[2] == 1.0
    assert found.last[0] == 0.5


def test_a_difference_of_counts_is_found_by_the_bag_alone():
    def sample(rng, split):
        shared = rng.randint(1, 9) * " [ [ ] ]" + rng.randint(1, 9) * " ( )"
        return Pair(shared + " [ (", shared + " ( [ ]", " 1", " 1")

    found = shortcuts(Task("counts", "", (" if", " else"), sample).bind(Tokenizer.default()), 64)
    assert found.token < 0.8
    assert found.bag > 0.95


def test_nothing_is_found_where_order_alone_tells():
    def sample(rng, split):
        a, b = rng.sample(NAMES[split], 2)
        return Pair(f"{a} {b} =", f"{b} {a} =", " 1", " 1")

    found = shortcuts(Task("order", "", (" if", " else"), sample).bind(Tokenizer.default()), 128)
    assert found.token == found.count == found.bag == 0.5


def test_deterministic():
    task = sc.get_task("var_if")
    assert shortcuts(task, 64) == shortcuts(task, 64)


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["tasks", "--shortcuts", *arguments])
    return ended.value.code


def test_the_table_and_its_json(tmp_path, capsys):
    path = tmp_path / "own.jsonl"
    rows = [{"left": f"x = f({i}", "right": f"x = g[{i}", "left_rest": " + 1", "right_rest": " + 1"} for i in range(20)]
    lines = [{"name": "closing", "answers": [")", "]"]}, *rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run("--task-file", str(path), "--json")
    (record,) = json.loads(capsys.readouterr().out)["tasks"]
    assert record["name"] == "closing"
    assert record["token"] == record["best"] == 1.0
    run("else_elif", "--n", "16")
    out = capsys.readouterr().out
    assert "else_elif" in out
    assert "yes" in out


def test_the_shortcuts_need_no_model(tmp_path, capsys):
    assert run("--model", str(tmp_path)) == 1
    assert "leave --model out" in capsys.readouterr().err


def test_lists_of_exceptions_name_tasks():
    assert set(LAST_TOKENS) < set(BESIDE)
    assert np.isin(["else_elif", "while_return_true", "lambda_func"], LAST_TOKENS).all()
