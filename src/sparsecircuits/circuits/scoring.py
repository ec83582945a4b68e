"""How well a model does a task: on its prompts, and on code that people wrote."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsecircuits.data import Tokenizer
from sparsecircuits.errors import UserError
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.pruning.objective import accuracy, all_candidate_logits, correct_of, task_loss
from sparsecircuits.tasks import Task
from sparsecircuits.tasks.quotes import closing_quotes

MOST_PER_KIND = 2_000


def score_on_task(model: SparseTransformer, task: Task, split: str, n: int, seed: int) -> dict[str, Any]:
    """Binary cross-entropy and accuracy of the whole model on a task's prompts."""
    batch = task.batch(split, n, seed)
    logits, correct = all_candidate_logits(model, batch), correct_of(batch, model.device)
    return {
        "name": task.name,
        "description": task.description,
        "answers": list(task.answers),
        "split": split,
        "pairs": len(batch.last) // 2,
        "loss": task_loss(logits, correct).item(),
        "accuracy": accuracy(logits, correct),
    }


def score_on_corpus(model: SparseTransformer, folder: str | Path) -> dict[str, Any]:
    """Closing quotes of calls in the Python files under a folder: which quote does the model close with?

    Every place counts where a one-line string that a call opened is closed (see `closing_quotes`), up to
    2,000 of each kind, drawn evenly; the model reads up to its whole context before it. Its choice is
    between all tokens that begin with `')` and all that begin with `")` (their total probability), so that
    closers which have swallowed a line end count too. Balanced accuracy is the mean of both kinds'.

    Raises UserError when the folder has no Python or fewer than one closing quote of each kind.
    """
    from sparsecircuits.data.corpora import read_folder

    tokenizer = model.tokenizer or Tokenizer.default()
    files = read_folder(folder).files
    places = _closing_places([file.text for file in files], tokenizer, model.config.n_ctx)
    if not all(places):
        raise UserError(f"{folder}: no calls that close a string of each kind, single and double")
    classes = [_tokens_beginning(tokenizer, quote + ")") for quote in "'\""]
    right = [np.mean([side == kind for side in _choices(model, places[kind], classes)]) for kind in (0, 1)]
    return {
        "folder": str(folder),
        "files": len(files),
        "single_quotes": len(places[0]),
        "double_quotes": len(places[1]),
        "accuracy_single": float(right[0]),
        "accuracy_double": float(right[1]),
        "balanced_accuracy": float(np.mean(right)),
    }


def _closing_places(texts: list[str], tokenizer: Tokenizer, n_ctx: int) -> tuple[list, list]:
    """Contexts (token ids that end right before the closing token) of single and of double quotes."""
    names = [tokenizer.token(i) for i in range(tokenizer.vocab_size)]
    places: tuple[list, list] = ([], [])
    for ids in tokenizer.encode_batch(texts):
        for position, kind in closing_quotes([names[i] for i in ids]):
            places[kind].append(ids[max(0, position - n_ctx) : position])
    return tuple(_evenly(kind, MOST_PER_KIND) for kind in places)  # type: ignore[return-value]


def _evenly(items: list, most: int) -> list:
    if len(items) <= most:
        return items
    return [items[i * len(items) // most] for i in range(most)]


def _tokens_beginning(tokenizer: Tokenizer, start: str) -> Tensor:
    return torch.tensor([i for i in range(tokenizer.vocab_size) if tokenizer.token(i).startswith(start)])


@torch.no_grad()
def _choices(model: SparseTransformer, contexts: list[list[int]], classes: list[Tensor]) -> list[int]:
    """0 or 1 per context: the class of tokens with the larger total probability."""
    chosen = []
    ordered = sorted(contexts, key=len)
    for start in range(0, len(ordered), 64):
        rows = ordered[start : start + 64]
        tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for place, row in enumerate(rows):
            tokens[place, : len(row)] = torch.tensor(row)
        last = torch.tensor([len(row) - 1 for row in rows])
        logits = model(tokens.to(model.device), last_only=last.to(model.device)).float().cpu()
        totals = torch.stack([logits[:, ids].logsumexp(dim=-1) for ids in classes], dim=-1)
        chosen += totals.argmax(dim=-1).tolist()
    return chosen
