"""Transfer: a circuit that was found on templates, tried on code that people wrote."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.circuits.measures.context import Tried, tried
from sparsecircuits.circuits.measures.runs import by_length
from sparsecircuits.data import Tokenizer
from sparsecircuits.errors import UserError
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.tasks import PairBatch, Task
from sparsecircuits.tasks.quotes import SINGLE_DOUBLE_QUOTE, closing_quotes

MOST_PER_ANSWER = 100


class Transfer(BaseModel):
    """Model and circuit on places of real code."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    pattern: str
    """What counts as a place."""
    files: int
    places: tuple[int, int]
    """How many were found of each answer, before they were evened out."""
    result: Tried


def transfer(
    model: SparseTransformer,
    circuit: Circuit,
    task: Task,
    folder: str | Path,
    *,
    most: int = MOST_PER_ANSWER,
    seed: int = 0,
) -> Transfer:
    """Find the places of a folder's Python that match the task's pattern, and try model and circuit on them.

    For single_double_quote a place is where a one-line string that a call opened is closed; for other tasks,
    wherever the code goes on with one of the two answers. As many of each answer, up to `most`, drawn evenly; what
    stands before a place, up to the model's context, is the prompt.

    Raises UserError for a folder without Python, or without a place of each answer.
    """
    from sparsecircuits.data.corpora import read_folder

    tokenizer = model.tokenizer or Tokenizer.default()
    files = read_folder(folder).files
    quotes = task.name == SINGLE_DOUBLE_QUOTE.name
    places = real_places(tokenizer.encode_batch([f.text for f in files]), task, tokenizer, model.config.n_ctx, quotes)
    if not all(places):
        raise UserError(
            f"{folder} holds no place for each answer of {task.name}: {' and '.join(map(repr, task.answers))}"
        )
    batch = by_length(as_pairs(places, task.answer_ids, most))
    return Transfer(
        folder=str(folder),
        pattern="one-line strings that a call opened" if quotes else "code that goes on with one of the answers",
        files=len(files),
        places=(len(places[0]), len(places[1])),
        result=tried(model, circuit, batch, "real code", seed),
    )


def real_places(
    encoded: Iterable[list[int]], task: Task, tokenizer: Tokenizer, n_ctx: int, quotes: bool
) -> tuple[list[list[int]], list[list[int]]]:
    """Contexts (token ids) that end right before the first answer, and before the second."""
    answers = task.answer_ids
    places: tuple[list[list[int]], list[list[int]]] = ([], [])
    for ids in encoded:
        if quotes:
            names = [tokenizer.token(i) for i in ids]
            at = [position for position, _ in closing_quotes(names)]
        else:
            at = list(range(1, len(ids)))
        for position in at:
            if ids[position] in answers:
                places[answers.index(ids[position])].append(ids[max(0, position - n_ctx) : position])
    return places


def as_pairs(places: tuple[list[list[int]], list[list[int]]], answers: tuple[int, int], most: int) -> PairBatch:
    """As many contexts of each answer, short with short, as a batch whose rows alternate."""
    n = min(most, len(places[0]), len(places[1]))
    even = [sorted((side[i * len(side) // n] for i in range(n)), key=len) for side in places]
    rows = [row for pair in zip(*even, strict=True) for row in pair]
    last = np.array([len(row) - 1 for row in rows])
    tokens = np.zeros((len(rows), int(last.max()) + 1), dtype=np.int64)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
    return PairBatch(tokens, last, np.tile([0, 1], n), answers)
