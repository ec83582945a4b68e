"""Binary next-token tasks: pairs of prompts whose right answers are opposite (Gao et al. 2025, section 2.2).

One module per family; `get_task` finds a task by name and checks it against a tokenizer.
"""

import dataclasses
from typing import TYPE_CHECKING

from sparsecircuits.errors import UserError, no_such
from sparsecircuits.runs import TASK_FILE
from sparsecircuits.tasks.accumulators import SET_OR_STRING, SET_OR_STRING_FIXEDVARNAME
from sparsecircuits.tasks.base import SPLITS, Pair, PairBatch, Task
from sparsecircuits.tasks.brackets import BRACKET_BRACE, BRACKET_COUNTING
from sparsecircuits.tasks.comparisons import IF_EQUALS, VAR_IF
from sparsecircuits.tasks.conditions import ELSE_ELIF, IF_TERNARY
from sparsecircuits.tasks.definitions import CLASS_INIT, FINAL_KWARG, LAMBDA_FUNC
from sparsecircuits.tasks.distractors import Composed
from sparsecircuits.tasks.endings import WHILE_TRUE_COLON
from sparsecircuits.tasks.files import WITH_AS, WITH_OPEN
from sparsecircuits.tasks.fstrings import FSTRING_BRACE
from sparsecircuits.tasks.indentation import INDENT_FOR, WHILE_RETURN_TRUE
from sparsecircuits.tasks.loops import ENUMERATE_RANGE, FOR_WHILE
from sparsecircuits.tasks.own import load_task_file, write_task_file
from sparsecircuits.tasks.quotes import SINGLE_DOUBLE_QUOTE
from sparsecircuits.tasks.swaps import VAR_SWAP

if TYPE_CHECKING:
    from pathlib import Path

    from sparsecircuits.data.tokenizer import Tokenizer

__all__ = [
    "SPLITS",
    "Pair",
    "PairBatch",
    "Task",
    "get_task",
    "list_tasks",
    "load_task_file",
    "own_task",
    "task_of_circuit",
    "write_task_file",
]

"""The pairs of a task of one's own, beside the circuit that was found for it."""

PLAIN = ".plain"
"""Behind a task's name: the same without distractors before the line under test."""

_TASKS = {
    task.name: task
    for task in (
        SINGLE_DOUBLE_QUOTE,
        FINAL_KWARG,
        SET_OR_STRING,
        SET_OR_STRING_FIXEDVARNAME,
        CLASS_INIT,
        WITH_AS,
        BRACKET_BRACE,
        WITH_OPEN,
        BRACKET_COUNTING,
        FOR_WHILE,
        ELSE_ELIF,
        FSTRING_BRACE,
        IF_TERNARY,
        VAR_SWAP,
        INDENT_FOR,
        LAMBDA_FUNC,
        IF_EQUALS,
        ENUMERATE_RANGE,
        VAR_IF,
        WHILE_RETURN_TRUE,
        WHILE_TRUE_COLON,
    )
}
_BESIDE = (WHILE_TRUE_COLON.name,)


def list_tasks(*, beside: bool = False) -> list[Task]:
    """The paper's twenty tasks, unbound (no tokenizer); with `beside` also those that are not among them."""
    return [task for task in _TASKS.values() if beside or task.name not in _BESIDE]


def get_task(name: str, tokenizer: "Tokenizer | None" = None) -> Task:
    """A task by name, bound to a tokenizer (by default the shipped one). NAME.plain is a shipped task without
    distractors: what these cost a circuit is the difference.

    Raises UserError for an unknown name, or when an answer is not one token of the tokenizer.
    """
    task = _TASKS.get(name.removesuffix(PLAIN))
    if task is None:
        raise UserError(no_such("no task", name, _TASKS))
    if name.endswith(PLAIN) and isinstance(task.sample, Composed):
        task = dataclasses.replace(task, name=name, sample=task.sample.plain)
    return task.bind(tokenizer or _default_tokenizer())


def own_task(path: "str | Path", tokenizer: "Tokenizer | None" = None) -> Task:
    """The task of a task file (see `load_task_file`), bound to a tokenizer (by default the shipped one).

    Raises UserError, with the line, for what is wrong with the file, for a name that is taken, and for a pair
    that the tokenizer cannot express.
    """
    task = load_task_file(path)
    if task.name in _TASKS:
        raise UserError(f"{path}: the name {task.name} is taken by a shipped task: choose another")
    return task.bind(tokenizer or _default_tokenizer())


def task_of_circuit(name: str, folder: "Path", tokenizer: "Tokenizer | None" = None) -> Task:
    """The task that a circuit in `folder` was found for: a shipped one, or the task file beside it.

    That file is data only: nothing in it is executed.
    """
    if name.removesuffix(PLAIN) not in _TASKS and (folder / TASK_FILE).exists():
        return own_task(folder / TASK_FILE, tokenizer)
    return get_task(name, tokenizer)


def _default_tokenizer() -> "Tokenizer":
    from sparsecircuits.data.tokenizer import Tokenizer

    return Tokenizer.default()
