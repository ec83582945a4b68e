"""How the task loss depends on gates, to first order: the cheap stand-in for leaving out one at a time."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import Calibration
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.task_loss import candidate_logits, correct_of, task_loss
from sparsecircuits.tasks import PairBatch


def first_order_rises(
    model: SparseTransformer,
    batches: Iterable[PairBatch],
    gates: Float[Tensor, " size"],
    gating: Callable[[Tensor], Gating],
    calibration: Calibration | None = None,
) -> Float[Tensor, " size"]:
    """-d loss / d gate [size] at `gates`, the mean over the batches: about how much the loss rises when a gate that is
    on closes. gating(gates): what runs with these gates; calibration: of the logits, by default none."""
    total, n = torch.zeros(gates.numel()), 0
    calibration = calibration or Calibration()
    for batch in batches:
        at = gates.detach().to(model.device, torch.float32, copy=True).requires_grad_()
        with torch.enable_grad():
            logits = calibration(candidate_logits(model, batch, gating(at)))
            (slope,) = torch.autograd.grad(task_loss(logits, correct_of(batch, model.device)), at)
        total, n = total - slope.cpu(), n + 1
    return total / n
