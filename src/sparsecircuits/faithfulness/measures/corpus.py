"""Real code: models and circuits tried on the places where code that people wrote asks a task's question."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.data import Tokenizer
from sparsecircuits.errors import UserError
from sparsecircuits.faithfulness.measures.context import Tried, tried
from sparsecircuits.faithfulness.measures.runs import by_length, final_logits
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import Calibration
from sparsecircuits.tasks import PairBatch, Task
from sparsecircuits.tasks.realcode import Contexts, Places, find_places
from sparsecircuits.tasks.realcode.cue import best_cue, shifted_accuracy

MOST_PER_ANSWER = 100


class Transfer(BaseModel):
    """Model and circuit on places of real code, as many of each answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    pattern: str
    """What counts as a place."""
    files: int
    places: tuple[int, int]
    """How many were found of each answer, before they were evened out."""
    result: Tried
    cue: str | None = None
    """The token whose presence says most about the answer, on one half of the places."""
    cue_accuracy: float | None = None
    """Of that rule, on the other half, balanced over both answers."""


class PlacesOfTask(TypedDict):
    """A task, and the places of each answer in some code."""

    name: str
    answers: list[str]
    what: str
    """What counts as a place."""
    places: list[int]


class ScoreOnPlaces(PlacesOfTask):
    """How well a model chooses there: shares of places, by answer and balanced over both (see `score_on_corpus`)."""

    scored: list[int]
    accuracies: list[float]
    balanced_accuracy: float
    balanced_accuracy_of_classes: float
    balanced_accuracy_shifted: float | None
    cue: str | None
    cue_says: str | None
    cue_accuracy: float | None


class TooFewPlaces(PlacesOfTask):
    """Why a task was not scored."""

    skipped: str


class ScoresOnCorpus(TypedDict):
    """A model on all tasks in a folder's code."""

    folder: str
    files: int
    tasks: list[ScoreOnPlaces | TooFewPlaces]


def transfer(
    bound: Bound,
    task: Task,
    whole: Calibration,
    folder: str | Path,
    *,
    most: int = MOST_PER_ANSWER,
    seed: int = 0,
) -> Transfer:
    """Find the places of a folder's Python that ask the task's question, and try model and circuit on them.

    What a place is says the task's finder (`sparsecircuits.tasks.realcode`); for tasks of one's own, wherever the
    code goes on with one of the two answers. As many of each answer, up to `most`, drawn evenly; what stands before
    a place, up to the model's context, is the prompt. whole: the whole model's calibration.

    Raises UserError for a folder without Python, or without a place of each answer.
    """
    model = bound.model
    tokenizer = model.tokenizer or Tokenizer.default()
    places, files = _places(folder, [task], tokenizer, model.config.n_ctx)
    found = places[task.name]
    n = min(most, *found.counts)
    if not n:
        raise UserError(
            f"{folder} holds no place for each answer of {task.name}: {' and '.join(map(repr, task.answers))}"
        )
    sides = found.contexts(model.config.n_ctx, (n, n))
    cue = best_cue(sides, _names(tokenizer))
    return Transfer(
        folder=str(folder),
        pattern=found.what,
        files=files,
        places=found.counts,
        result=tried(bound, whole, by_length(as_pairs(sides, task)), "real code", seed),
        cue=cue.token if cue else None,
        cue_accuracy=cue.accuracy if cue else None,
    )


def score_on_corpus(
    model: SparseTransformer, tasks: Sequence[Task], folder: str | Path, most: int = 256
) -> ScoresOnCorpus:
    """The whole model on the places of each task in a folder's Python, up to `most` of each answer, drawn evenly.

    Per task: how many places of each answer there are; accuracy of each answer and balanced (their mean) when the
    model chooses between the two answers; balanced when it chooses between all tokens that count as one and all that
    count as the other (their total probability: `:` and `:\\n`, say), also without its bias (`shifted_accuracy`); and
    the cue's shortcut. A task without a place of each answer has the reason in "skipped".

    tasks: bound to the model's tokenizer. Raises UserError when the folder has no Python, or no task has places.
    """
    tokenizer, n_ctx = model.tokenizer or Tokenizer.default(), model.config.n_ctx
    found, files = _places(folder, tasks, tokenizer, n_ctx)
    rows = [_scored(model, task, found[task.name], tokenizer, most) for task in tasks]
    if all("skipped" in row for row in rows):
        raise UserError(f"{folder}: no place for each answer of {', '.join(task.name for task in tasks)}")
    return {"folder": str(folder), "files": files, "tasks": rows}


def _scored(
    model: SparseTransformer, task: Task, places: Places, tokenizer: Tokenizer, most: int
) -> ScoreOnPlaces | TooFewPlaces:
    row: PlacesOfTask = {
        "name": task.name,
        "answers": list(task.answers),
        "what": places.what,
        "places": list(places.counts),
    }
    if not all(places.counts):
        return {
            **row,
            "skipped": f"{places.counts[0]} and {places.counts[1]} places: there must be some of each answer",
        }
    sides = places.contexts(model.config.n_ctx, (most, most))
    batch = _prompts(sides, task.answer_ids)
    logits = final_logits(model, batch)
    two, classes = (
        _margins(a, b, batch)
        for a, b in (logits[:, list(task.answer_ids)].T, [logits[:, ids].logsumexp(dim=-1) for ids in places.ids])
    )
    each, of_classes = _accuracies(two), _accuracies(classes)
    cue = best_cue(sides, _names(tokenizer))
    return {
        **row,
        "scored": [len(side) for side in sides],
        "accuracies": each,
        "balanced_accuracy": sum(each) / 2,
        "balanced_accuracy_of_classes": sum(of_classes) / 2,
        "balanced_accuracy_shifted": shifted_accuracy(classes),
        "cue": cue.token if cue else None,
        "cue_says": task.answers[cue.answer] if cue else None,
        "cue_accuracy": cue.accuracy if cue else None,
    }


def _margins(first: Tensor, second: Tensor, batch: PairBatch) -> tuple[np.ndarray, np.ndarray]:
    """How far the second answer is preferred, at the places of the first and of the second."""
    margins = (second - first).numpy()
    return margins[batch.correct == 0], margins[batch.correct == 1]


def _accuracies(margins: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """Share of each answer's places where it is preferred; half a point where both are equal."""
    return [float(np.where(m == 0, 0.5, m > 0).mean()) for m in (-margins[0], margins[1])]


def _places(
    folder: str | Path, tasks: Sequence[Task], tokenizer: Tokenizer, n_ctx: int
) -> tuple[dict[str, Places], int]:
    """The places in a folder, and how many files it has."""
    from sparsecircuits.data.corpora import read_folder

    texts = [file.text for file in read_folder(folder).files]
    return find_places(texts, tasks, tokenizer, n_ctx), len(texts)


def _names(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.token(i) for i in range(tokenizer.vocab_size)]


def as_pairs(sides: tuple[Contexts, Contexts], task: Task) -> PairBatch:
    """As many contexts of each answer, short with short, as a batch whose rows alternate."""
    even = [sorted(side, key=len) for side in sides]
    rows = np.arange(2 * len(even[0])).reshape(2, -1).T.flatten()
    batch = _prompts((even[0], even[1]), task.answer_ids)
    return dataclasses.replace(batch, over_class=task.loss == "class").take(rows)


def _prompts(sides: tuple[Contexts, Contexts], answers: tuple[int, int]) -> PairBatch:
    """Contexts as a batch: those of the first answer, then those of the second."""
    rows = [*sides[0], *sides[1]]
    last = np.array([len(row) - 1 for row in rows])
    tokens = np.zeros((len(rows), int(last.max()) + 1), dtype=np.int64)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
    return PairBatch(tokens, last, np.repeat([0, 1], [len(side) for side in sides]), answers)
