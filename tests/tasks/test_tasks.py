"""Every task: its pairs parse, its splits are disjoint, its length tells nothing, its answers are tokens."""

import ast
import difflib
import functools
import importlib
import pkgutil
import random

import numpy as np
import pytest

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer
from sparsecircuits.tasks import SPLITS, Pair, Task, statements
from sparsecircuits.tasks.distractors import fill
from sparsecircuits.tasks.shortcuts import BESIDE, LAST_TOKENS, shortcuts


@functools.cache
def pairs_of(name, split):
    """A thousand pairs, drawn once for all tests."""
    return sc.get_task(name).pairs(split, 1000)


@functools.cache
def batch_of(name, split):
    return sc.get_task(name).encode(pairs_of(name, split))


TASKS = [task.name for task in sc.list_tasks(beside=True)]


def test_there_are_twenty_and_one_beside_them():
    assert len(TASKS) == len(set(TASKS)) == 21
    assert {*TASKS} - {task.name for task in sc.list_tasks()} == {"while_true_colon"}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_a_thousand_pairs_parse_with_the_right_answer(name, split):
    task = sc.get_task(name)
    for pair in pairs_of(name, split):
        ast.parse(pair.left + task.answers[0] + pair.left_rest)
        ast.parse(pair.right + task.answers[1] + pair.right_rest)
    batch_of(name, split)  # raises unless each answer is the very next token


@pytest.mark.parametrize("name", TASKS)
def test_no_prompt_is_shared_between_splits_or_sides(name):
    seen = {}
    for split in SPLITS:
        for pair in pairs_of(name, split):
            for side, prompt in enumerate(pair.prompts):
                assert seen.setdefault(prompt, (split, side)) == (split, side)


def split_tables():
    """Every module-level table by split in the task modules: templates, names, context lines."""
    for module in pkgutil.iter_modules(sc.tasks.__path__):
        for name, value in vars(importlib.import_module(f"sparsecircuits.tasks.{module.name}")).items():
            if isinstance(value, dict) and set(value) == set(SPLITS):
                yield f"{module.name}.{name}", value


def test_templates_names_and_context_lines_are_disjoint():
    tables = dict(split_tables())
    assert len(tables) > 15
    del tables["words.WORDS"]  # what messages say: "for" and "read" stand in any
    for name, table in tables.items():
        rows = [row for split in SPLITS for row in dict.fromkeys(table[split])]
        assert len(rows) == len(set(rows)), name


@pytest.mark.parametrize("name", TASKS)
def test_length_does_not_give_the_answer_away(name):
    for split in SPLITS:
        batch = batch_of(name, split)
        cuts = np.arange(batch.last.max() + 2)[:, None]
        agreement = ((batch.last >= cuts) == batch.correct).mean(axis=1)
        assert max(agreement.max(), 1 - agreement.min()) < 0.6


@pytest.mark.parametrize("name", TASKS)
def test_the_sides_of_a_pair_differ_in_few_tokens(name):
    task = sc.get_task(name)
    for pair in task.pairs("held_out", 50):
        left, right = (task.tokenizer.encode(prompt) for prompt in pair.prompts)
        blocks = difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
        changed = sum(max(i1 - i0, j1 - j0) for tag, i0, i1, j0, j1 in blocks if tag != "equal")
        assert 1 <= changed <= 3


@pytest.mark.parametrize("name", TASKS)
def test_prompts_fit_a_context_of_128(name):
    lengths = [batch_of(name, split).last + 1 for split in SPLITS]
    assert max(length.max() for length in lengths) < 126
    assert min(length.max() for length in lengths) > 110  # … and nearly fill it
    assert all(np.median(length) > 60 for length in lengths)


@pytest.mark.parametrize("name", TASKS)
def test_no_shortcut_decides(name):
    found = shortcuts(sc.get_task(name), 256, fitted=256)
    if name not in LAST_TOKENS:
        assert max(found.token, found.count) <= 0.7
        assert found.bag <= 0.75
    if name not in BESIDE:
        assert max(found.last) <= 0.7


@pytest.mark.parametrize("name", TASKS)
def test_both_prompts_have_the_same_context(name):
    """Whole or cut, the cues before the line under test are the same for both; without them the task is easy."""
    plain = sc.get_task(f"{name}.plain")
    assert plain.name == f"{name}.plain"
    assert plain.batch("held_out", 200).last.mean() < batch_of(name, "held_out").last.mean()


def inner_tables():
    for name, value in vars(statements).items():
        if isinstance(value, dict) and set(value) == set(SPLITS):
            yield name, {split: [line for side in value[split] for line in side] for split in SPLITS}


def test_statements_are_disjoint_and_parse():
    rng = random.Random(0)
    for name, table in inner_tables():
        lines = [line for split in SPLITS for line in dict.fromkeys(table[split])]
        assert len(lines) == len(set(lines)), name
        for split in SPLITS:
            for line in table[split]:
                assert line.count("|") == 1, line
                ast.parse(fill(line, rng, split, way="read").replace("|", ""))


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
