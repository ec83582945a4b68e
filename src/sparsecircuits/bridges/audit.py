"""What surgery did to a model: every task, the loss on text, and how far its predictions moved."""

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
import torch
import torch.nn.functional as F

from sparsecircuits.data import validation_batches
from sparsecircuits.errors import UserError
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer, count_parameters
from sparsecircuits.nodes.task_score import score_on_task
from sparsecircuits.tasks import get_task, list_tasks

PAIRS, TOKENS = 256, 65_536


class TaskChange(TypedDict):
    """A task's loss in nats on held-out prompts, raw and calibrated on training pairs, before and after."""

    task: str
    loss_before: float
    loss_after: float
    calibrated_before: float
    calibrated_after: float
    accuracy_before: float
    accuracy_after: float


class Audit(TypedDict):
    """What an edit changed. Losses are in nats, of text in nats a token; kl is that of the edited model's predictions
    from the model's, KL(before ‖ after), over the same tokens."""

    model_before: str
    model_after: str
    nonzeros_before: int
    nonzeros_after: int
    tokens: int
    val_loss_before: float
    val_loss_after: float
    kl: float
    tasks: list[TaskChange]
    skipped: list[dict[str, str]]


def audit(
    before: SparseTransformer,
    after: SparseTransformer,
    tokens: np.ndarray,
    *,
    n_pairs: int = PAIRS,
    max_tokens: int = TOKENS,
    report: Callable[[float, str], None] | None = None,
) -> Audit:
    """Compare two models of one tokenizer on validation tokens and on the twenty tasks; a task that the tokenizer
    cannot express is skipped with the reason."""
    tasks: list[TaskChange] = []
    skipped: list[dict[str, str]] = []
    unbound = list_tasks()
    for place, task in enumerate(unbound):
        if report is not None:
            report(place / (len(unbound) + 1), task.name)
        try:
            bound = get_task(task.name, before.tokenizer)
        except UserError as error:
            skipped.append({"task": task.name, "skipped": str(error)})
            continue
        old, new = (score_on_task(model, bound, "held_out", n_pairs, 0) for model in (before, after))
        tasks.append(
            {
                "task": task.name,
                "loss_before": old["loss"],
                "loss_after": new["loss"],
                "calibrated_before": old["loss_calibrated"],
                "calibrated_after": new["loss_calibrated"],
                "accuracy_before": old["accuracy"],
                "accuracy_after": new["accuracy"],
            }
        )
    if report is not None:
        report(len(unbound) / (len(unbound) + 1), "text")
    losses, count = compared_on_text(before, after, tokens, max_tokens)
    return {
        "model_before": content_hash(before),
        "model_after": content_hash(after),
        "nonzeros_before": count_parameters(before)[1],
        "nonzeros_after": count_parameters(after)[1],
        "tokens": count,
        "val_loss_before": losses[0],
        "val_loss_after": losses[1],
        "kl": losses[2],
        "tasks": tasks,
        "skipped": skipped,
    }


@torch.no_grad()
def compared_on_text(
    before: SparseTransformer, after: SparseTransformer, tokens: np.ndarray, max_tokens: int
) -> tuple[tuple[float, float, float], int]:
    """((loss before, loss after, KL(before ‖ after)) in nats a token, tokens read)."""
    totals, count = torch.zeros(3, dtype=torch.float64), 0
    for inputs, targets in validation_batches(tokens, before.config.n_ctx, 16, max_tokens):
        ids, wanted = torch.from_numpy(inputs).to(before.device), torch.from_numpy(targets).to(before.device).flatten()
        old, new = (model(ids).float().flatten(0, 1).log_softmax(dim=-1) for model in (before, after))
        sums = [F.nll_loss(old, wanted, reduction="sum"), F.nll_loss(new, wanted, reduction="sum")]
        sums.append(F.kl_div(new, old, reduction="sum", log_target=True))
        totals += torch.stack(sums).double().cpu()
        count += targets.size
    loss_before, loss_after, kl = (totals / count).tolist()
    return (loss_before, loss_after, kl), count


def mean_change(changes: Sequence[TaskChange], but: Sequence[str] = ()) -> float | None:
    """Mean rise of the raw loss over the tasks that are not among `but`, in nats; None where there is none."""
    rises = [change["loss_after"] - change["loss_before"] for change in changes if change["task"] not in but]
    return sum(rises) / len(rises) if rises else None
