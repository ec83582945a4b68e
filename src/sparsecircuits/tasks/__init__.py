"""Binary next-token tasks: pairs of prompts whose right answers are opposite (Gao et al. 2025, section 2.2).

One module per family; `get_task` finds a task by name and checks it against a tokenizer.
"""

from typing import TYPE_CHECKING

from sparsecircuits.errors import UserError
from sparsecircuits.tasks.base import SPLITS, Pair, PairBatch, Task
from sparsecircuits.tasks.brackets import BRACKET_COUNTING
from sparsecircuits.tasks.comparisons import IF_EQUALS
from sparsecircuits.tasks.quotes import SINGLE_DOUBLE_QUOTE

if TYPE_CHECKING:
    from sparsecircuits.data.tokenizer import Tokenizer

__all__ = ["SPLITS", "Pair", "PairBatch", "Task", "get_task", "list_tasks"]

_TASKS = {task.name: task for task in (SINGLE_DOUBLE_QUOTE, BRACKET_COUNTING, IF_EQUALS)}


def list_tasks() -> list[Task]:
    """All tasks, unbound (no tokenizer)."""
    return list(_TASKS.values())


def get_task(name: str, tokenizer: "Tokenizer | None" = None) -> Task:
    """A task by name, bound to a tokenizer (by default the shipped one).

    Raises UserError for an unknown name, or when an answer is not one token of the tokenizer.
    """
    if name not in _TASKS:
        raise UserError(f"no task {name!r}; there are {', '.join(_TASKS)}")
    if tokenizer is None:
        from sparsecircuits.data.tokenizer import Tokenizer

        tokenizer = Tokenizer.default()
    return _TASKS[name].bind(tokenizer)
