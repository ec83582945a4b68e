"""A scale and a shift per answer, fitted on training pairs: whatever runs is compared calibrated alike."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.task_loss import all_candidate_logits, correct_of, task_loss
from sparsecircuits.tasks import PairBatch, Task

LARGEST_SCALE = 3.0  # of a calibration, about: beyond it a circuit is a faint trace of what the model does
CALIBRATION_SPLIT, CALIBRATION_PAIRS, CALIBRATION_SEED = "train", 128, 0


@dataclass(frozen=True)
class Calibration:
    """Candidate logits become scale * logits + shift. The shift is per candidate: a common one would cancel
    in the softmax."""

    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def __call__(self, logits: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """Calibrated logits."""
        return self.scale * logits + torch.tensor(self.shift, dtype=logits.dtype, device=logits.device)


def unbiased(model: SparseTransformer, batch: PairBatch, target: float) -> Calibration:
    """What gates are learned through: nothing where the whole model's raw answers hold a target loss on training
    prompts, else the calibration that they need. Otherwise gates would be learned to mend the model's bias."""
    logits, correct = all_candidate_logits(model, batch), correct_of(batch, model.device)
    return Calibration() if task_loss(logits, correct).item() <= target else calibrate(logits, correct)


def calibrate(logits: Float[Tensor, "n 2"], correct: Int[Tensor, " n"]) -> Calibration:
    """Scale and per-candidate shift that minimise the loss: 16 LBFGS steps (Gao et al. 2025, appendix).

    The margin between the answers is standardised first, so that the steps suffice at any scale. The scale
    is kept positive: calibration cannot turn an answer around. Beyond `LARGEST_SCALE` it is held back: a scale of
    100 would make a faithful-looking circuit of any trace that happens to separate the prompts at hand.
    """
    margin = (logits[:, 0] - logits[:, 1]).detach().double()
    spread = margin.std()
    if not torch.isfinite(margin).all():
        return Calibration()
    if not spread > 0:  # it says the same of all prompts, so half of each pair is right: both answers alike is best
        middle = margin.mean().item() / 2
        return Calibration(1.0, (-middle, middle))
    standard, sign = (margin - margin.mean()) / spread, 1.0 - 2.0 * correct
    ceiling = spread.log() + math.log(LARGEST_SCALE)
    log_scale = torch.zeros((), dtype=torch.float64, device=logits.device, requires_grad=True)
    offset = torch.zeros((), dtype=torch.float64, device=logits.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_scale, offset], max_iter=16, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.softplus(-sign * (log_scale.exp() * standard + offset)).mean()
        # The slight pull keeps the standardised scale near 1 where the loss says nothing about it.
        loss = loss + 1e-4 * log_scale.square() + (log_scale - ceiling).clamp(min=0).square()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    scale = (log_scale.exp() / spread).item()
    shift = (offset - log_scale.exp() * margin.mean() / spread).item()
    if not (math.isfinite(scale) and math.isfinite(shift)):
        return Calibration()
    return Calibration(scale, (shift / 2, -shift / 2))


def training_pairs(task: Task, n: int = CALIBRATION_PAIRS) -> PairBatch:
    """What calibrations are fitted on: n training pairs, or as many as a task of one's own has."""
    return task.encode(task.draw(CALIBRATION_SPLIT, n, CALIBRATION_SEED))


def fitted(model: SparseTransformer, batch: PairBatch, gating: Gating | None = None) -> Calibration:
    """The calibration of the model, or of what a gating leaves of it, on training pairs."""
    return calibrate(all_candidate_logits(model, batch, gating), correct_of(batch, model.device))
