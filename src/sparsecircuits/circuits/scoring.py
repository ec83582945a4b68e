"""How well a model does a task."""

from typing import Any

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.pruning.objective import accuracy, all_candidate_logits, correct_of, task_loss
from sparsecircuits.tasks import Task


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
