"""Every task: its pairs parse, its splits are disjoint, its length tells nothing, its answers are tokens."""

import ast

import numpy as np
import pytest

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer
from sparsecircuits.tasks import SPLITS, Pair, Task
from sparsecircuits.tasks.quotes import closing_quotes
from sparsecircuits.tasks.words import CONTEXT, NAMES

TASKS = [task.name for task in sc.list_tasks()]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_a_thousand_pairs_parse_with_the_right_answer(name, split):
    task = sc.get_task(name)
    for pair in task.pairs(split, 1000):
        ast.parse(pair.left + task.answers[0] + pair.left_rest)
        ast.parse(pair.right + task.answers[1] + pair.right_rest)
    task.batch(split, 1000)  # raises unless each answer is the very next token


@pytest.mark.parametrize("name", TASKS)
def test_no_prompt_is_shared_between_splits_or_sides(name):
    task = sc.get_task(name)
    seen = {}
    for split in SPLITS:
        for pair in task.pairs(split, 1000):
            for side, prompt in enumerate(pair.prompts):
                assert seen.setdefault(prompt, (split, side)) == (split, side)


def test_names_and_context_lines_are_disjoint():
    for pools in (NAMES, CONTEXT):
        words = [word for split in SPLITS for word in pools[split]]
        assert len(words) == len(set(words))


@pytest.mark.parametrize("name", TASKS)
def test_length_does_not_give_the_answer_away(name):
    batch = sc.get_task(name).batch("held_out", 1000)
    best = max(
        max(np.mean((batch.last >= cut) == batch.correct), np.mean((batch.last < cut) == batch.correct))
        for cut in range(int(batch.last.max()) + 2)
    )
    assert best < 0.6


@pytest.mark.parametrize("name", TASKS)
def test_the_sides_of_a_pair_differ_in_one_token(name):
    task = sc.get_task(name)
    for pair in task.pairs("validation", 50):
        left, right = (task.tokenizer.encode(prompt) for prompt in pair.prompts)
        if len(left) == len(right):
            assert sum(a != b for a, b in zip(left, right, strict=True)) == 1
        else:
            longer, shorter = (left, right) if len(left) > len(right) else (right, left)
            assert any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))


def test_deterministic_by_seed():
    task = sc.get_task("single_double_quote")
    assert task.pairs("train", 20, seed=3) == task.pairs("train", 20, seed=3)
    assert task.pairs("train", 20, seed=3) != task.pairs("train", 20, seed=4)
    assert len(set(task.pairs("train", 500))) == 500


def test_answers_that_are_not_one_token_are_refused():
    bad = Task("bad", "", ("==> ", ")"), lambda rng, split: Pair("a", "b"))
    with pytest.raises(sc.UserError, match="task bad cannot run with this tokenizer"):
        bad.bind(Tokenizer.default())


def test_an_answer_that_merges_with_what_follows_is_refused():
    merging = Task("merging", "", ("')", '")'), lambda rng, split: Pair("print('a", 'print("a', "\n", "\n"))
    with pytest.raises(sc.UserError, match="does not stand alone"):
        merging.bind(Tokenizer.default()).batch("train", 1)


def test_mistakes_are_named():
    with pytest.raises(sc.UserError, match="no task 'x'; there are single_double_quote"):
        sc.get_task("x")
    task = sc.get_task("if_equals")
    with pytest.raises(sc.UserError, match="no split 'test'"):
        task.pairs("test")
    with pytest.raises(sc.UserError, match="only 1 different pairs"):
        Task("one", "", ("a", "b"), lambda rng, split: Pair("a", "b")).pairs("train", 2)


def test_closing_quotes_in_real_code():
    tokenizer = Tokenizer.default()
    code = "a = f('one two') + g(\"it's\")\nb('', \"x\")\nc('open\n')\nd('back\\'slash')\n"
    tokens = [tokenizer.token(i) for i in tokenizer.encode(code)]
    found = [(tokens[place], kind) for place, kind in closing_quotes(tokens)]
    assert [kind for _, kind in found] == [0, 1]
    assert found[0][0].startswith("')")
    assert found[1][0].startswith('")')
