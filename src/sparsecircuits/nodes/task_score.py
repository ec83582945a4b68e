"""How well a model does a task."""

from typing import TypedDict

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import fitted, training_pairs
from sparsecircuits.nodes.task_loss import accuracy, all_candidate_logits, correct_of, in_order, task_loss
from sparsecircuits.tasks import Task


class TaskScore(TypedDict):
    """How well a model does a task on the prompts of one split; losses in nats, chance is ln 2."""

    name: str
    description: str
    answers: list[str]
    split: str
    pairs: int
    loss: float
    loss_calibrated: float
    order: float
    accuracy: float


def score_on_task(model: SparseTransformer, task: Task, split: str, n: int, seed: int) -> TaskScore:
    """Loss of the whole model on a task's prompts, raw and calibrated on training pairs as circuits are; share of
    prompts that it answers rightly, and of pairs that it puts in the right order."""
    batch = task.batch(split, n, seed)
    logits, correct = all_candidate_logits(model, batch), correct_of(batch, model.device)
    return {
        "name": task.name,
        "description": task.description,
        "answers": list(task.answers),
        "split": split,
        "pairs": len(batch.last) // 2,
        "loss": task_loss(logits, correct).item(),
        "loss_calibrated": task_loss(fitted(model, training_pairs(task))(logits), correct).item(),
        "order": in_order(logits, correct),
        "accuracy": accuracy(logits, correct),
    }
