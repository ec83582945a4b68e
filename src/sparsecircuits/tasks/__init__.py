"""Binary next-token tasks: pairs of prompts whose right answers are opposite (Gao et al. 2025, section 2.2).

One module per family; `get_task` finds a task by name and checks it against a tokenizer.
"""

from typing import TYPE_CHECKING

from sparsecircuits.errors import UserError
from sparsecircuits.tasks.accumulators import SET_OR_STRING, SET_OR_STRING_FIXEDVARNAME
from sparsecircuits.tasks.base import SPLITS, Pair, PairBatch, Task
from sparsecircuits.tasks.brackets import BRACKET_BRACE, BRACKET_COUNTING
from sparsecircuits.tasks.comparisons import IF_EQUALS, VAR_IF
from sparsecircuits.tasks.conditions import ELSE_ELIF, IF_TERNARY
from sparsecircuits.tasks.definitions import CLASS_INIT, FINAL_KWARG, LAMBDA_FUNC
from sparsecircuits.tasks.files import WITH_AS, WITH_OPEN
from sparsecircuits.tasks.fstrings import FSTRING_BRACE
from sparsecircuits.tasks.indentation import INDENT_FOR, WHILE_RETURN_TRUE
from sparsecircuits.tasks.loops import ENUMERATE_RANGE, FOR_WHILE
from sparsecircuits.tasks.quotes import SINGLE_DOUBLE_QUOTE
from sparsecircuits.tasks.swaps import VAR_SWAP

if TYPE_CHECKING:
    from sparsecircuits.data.tokenizer import Tokenizer

__all__ = ["SPLITS", "Pair", "PairBatch", "Task", "get_task", "list_tasks"]

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
    )
}


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
