"""A scale and a shift per answer, fitted on training pairs: whatever runs is compared calibrated alike."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.task_loss import all_candidate_logits, correct_of, task_loss
from sparsecircuits.tasks import PairBatch, Task

LARGEST_SCALE = 3.0  # of a calibration, about: beyond it a circuit is a faint trace of what the model does
PULL = 1e-4  # of the standardised scale towards 1
MOST_STEPS, FLAT, LARGEST_STEP = 100, 1e-9, 5.0  # Newton's: slopes below FLAT end them, e^5 is far for a scale
SMALLEST_DAMPING, LARGEST_DAMPING = 1e-4, 1e6
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
    """Scale and per-candidate shift that minimise the loss: what 16 LBFGS steps (Gao et al. 2025, appendix) come near
    to. For two numbers Newton's steps are few and cost a twentieth.

    The margin between the answers is standardised first, so that the steps suffice at any scale. The scale
    is kept positive: calibration cannot turn an answer around. Beyond `LARGEST_SCALE` it is held back: a scale of
    100 would make a faithful-looking circuit of any trace that happens to separate the prompts at hand.
    """
    margins = (logits[:, 0] - logits[:, 1]).detach().double()
    spread = margins.std().item()
    if not torch.isfinite(margins).all():
        return Calibration()
    mean = margins.mean().item()
    if not spread > 0:  # it says the same of all prompts, so half of each pair is right: both answers alike is best
        return Calibration(1.0, (-mean / 2, mean / 2))
    standard = (margins.cpu().numpy() - mean) / spread
    log_scale, offset = _smallest(_Loss(standard, 1.0 - 2.0 * correct.cpu().numpy(), math.log(spread * LARGEST_SCALE)))
    scale = math.exp(log_scale) / spread
    shift = offset - scale * mean
    if not (math.isfinite(scale) and math.isfinite(shift)):
        return Calibration()
    return Calibration(scale, (shift / 2, -shift / 2))


@dataclass(frozen=True)
class _Loss:
    """The loss of standardised margins by the logarithm of their scale, and an offset. sign: 1 where the first answer
    is right, else -1. ceiling: the log of the scale beyond which it is held back."""

    standard: Float[np.ndarray, " n"]
    sign: Float[np.ndarray, " n"]
    ceiling: float

    def __call__(self, log_scale: float, offset: float) -> float:
        over = max(log_scale - self.ceiling, 0.0)
        loss = float(np.logaddexp(0.0, -self._right(log_scale, offset)).mean())
        # The slight pull keeps the standardised scale near 1 where the loss says nothing about it.
        return loss + PULL * log_scale**2 + over**2

    def _right(self, log_scale: float, offset: float) -> Float[np.ndarray, " n"]:
        return self.sign * (math.exp(log_scale) * self.standard + offset)

    def slopes(self, log_scale: float, offset: float) -> tuple[float, float, float, float, float]:
        """By log_scale, by offset, and the second derivatives: of each alone, and of both."""
        scaled, over = math.exp(log_scale) * self.standard, max(log_scale - self.ceiling, 0.0)
        wrong = np.exp(-np.logaddexp(0.0, self._right(log_scale, offset)))
        pushed, weight = wrong * self.sign, wrong * (1.0 - wrong)
        by_scale = -float((pushed * scaled).mean())
        return (
            by_scale + 2 * PULL * log_scale + 2 * over,
            -float(pushed.mean()),
            float((weight * scaled * scaled).mean()) + by_scale + 2 * PULL + 2 * (over > 0),
            float(weight.mean()),
            float((weight * scaled).mean()),
        )


def _smallest(loss: _Loss) -> tuple[float, float]:
    """Where the loss is smallest, by Newton's steps from (0, 0); damped where one would not lower it."""
    place, least, damping = (0.0, 0.0), loss(0.0, 0.0), 0.0
    for _ in range(MOST_STEPS):
        one, two, one_one, two_two, one_two = loss.slopes(*place)
        if abs(one) + abs(two) < FLAT:
            break
        while damping <= LARGEST_DAMPING:
            first, second = one_one + damping, two_two + damping
            curved = first * second - one_two**2
            if first > 0 and curved > 0:
                step = (one_two * two - second * one) / curved, (one_two * one - first * two) / curved
                there = place[0] + step[0], place[1] + step[1]
                if abs(step[0]) < LARGEST_STEP and (lower := loss(*there)) <= least:
                    break
            damping = max(2 * damping, SMALLEST_DAMPING)
        else:
            break
        place, least, damping = there, lower, damping / 8 if damping > SMALLEST_DAMPING else 0.0
    return place


def training_pairs(task: Task, n: int = CALIBRATION_PAIRS) -> PairBatch:
    """What calibrations are fitted on: n training pairs, or as many as a task of one's own has."""
    return task.encode(task.draw(CALIBRATION_SPLIT, n, CALIBRATION_SEED))


def fitted(model: SparseTransformer, batch: PairBatch, gating: Gating | None = None) -> Calibration:
    """The calibration of the model, or of what a gating leaves of it, on training pairs."""
    return calibrate(all_candidate_logits(model, batch, gating), correct_of(batch, model.device))
