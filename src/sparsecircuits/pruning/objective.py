"""The task loss: cross-entropy over the two candidate tokens at the last position."""

import contextlib
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.pruning.gating import Gating
from sparsecircuits.tasks import PairBatch

LARGEST_SCALE = 3.0  # of a calibration, about: beyond it a circuit is a faint trace of what the model does
EVALUATION_ROWS = 64  # prompts a forward pass at most, to bound memory


@dataclass(frozen=True)
class Calibration:
    """Candidate logits become scale * logits + shift. The shift is per candidate: a common one would cancel
    in the softmax."""

    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def __call__(self, logits: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """Calibrated logits."""
        return self.scale * logits + torch.tensor(self.shift, dtype=logits.dtype, device=logits.device)


def candidate_logits(
    model: SparseTransformer, batch: PairBatch, gating: Gating | None = None, narrow: bool = True
) -> Float[Tensor, "n 2"]:
    """Logits of the two answers after each prompt, in one forward pass; differentiable.

    narrow: the last layer's sites show the last position alone, [2N, 1, width] (see the model).
    """
    device = model.device
    tokens, last = torch.from_numpy(batch.tokens).to(device), torch.from_numpy(batch.last).to(device)
    with gating.over(model, batch) if gating is not None else contextlib.nullcontext():
        logits = model(tokens, last_only=last, narrow=narrow)
    return pick_answers(logits, batch).float()


def pick_answers(logits: Float[Tensor, "n vocab"], batch: PairBatch) -> Float[Tensor, "n 2"]:
    """Logits of the two answers. Over a class the second is that of all tokens but the first together, so that the
    cross-entropy of the two is -log p and -log(1 - p) over the whole vocabulary."""
    if not batch.over_class:
        return logits[:, list(batch.answers)]
    first = torch.tensor(batch.answers[0], device=logits.device)
    rest = logits.float().index_fill(1, first[None], -torch.inf).logsumexp(dim=1)
    return torch.stack([logits[:, batch.answers[0]].float(), rest], dim=1)


@torch.no_grad()
def all_candidate_logits(
    model: SparseTransformer, batch: PairBatch, gating: Gating | None = None
) -> Float[Tensor, "n 2"]:
    """As `candidate_logits` for any number of pairs: in chunks of similar length, in the given order."""
    order, chunks = in_chunks(batch)
    logits = torch.cat([candidate_logits(model, chunk, gating) for chunk in chunks])
    return torch.empty_like(logits).index_copy_(0, torch.from_numpy(order).to(logits.device), logits)


def in_chunks(batch: PairBatch) -> tuple[Int[np.ndarray, " n"], list[PairBatch]]:
    """A batch cut into chunks of similar length, both sides of a pair together; and which rows they hold."""
    order = length_order(batch)
    ordered, step = batch.take(order), max(2, EVALUATION_ROWS - EVALUATION_ROWS % 2)
    starts = range(0, len(order), step)
    return order, [ordered.rows(start, min(start + step, len(order))) for start in starts]


def length_order(batch: PairBatch) -> Int[np.ndarray, " n"]:
    """Rows from the shortest pair to the longest, both sides of a pair together."""
    longest = batch.last.reshape(-1, 2).max(axis=1)
    return (2 * longest.argsort(kind="stable")[:, None] + [0, 1]).flatten()


def correct_of(batch: PairBatch, device: torch.device | str = "cpu") -> Int[Tensor, " n"]:
    """Which answer is right, per prompt."""
    return torch.from_numpy(batch.correct).to(device)


def task_loss(logits: Float[Tensor, "n 2"], correct: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Binary cross-entropy in nats, mean over prompts (so the average over both prompts of each pair).

    Chance is ln 2. The released files store the sum over a pair, twice this.
    """
    return F.cross_entropy(logits, correct)


def accuracy(logits: Float[Tensor, "n 2"], correct: Int[Tensor, " n"]) -> float:
    """Share of prompts whose right answer has the larger logit."""
    return (logits.argmax(dim=-1) == correct).float().mean().item()


ORDER_TIE = 1e-5  # margins nearer than this, relative to their size, are equal: rounding orders nothing


def in_order(logits: Float[Tensor, "n 2"], correct: Int[Tensor, " n"]) -> float:
    """Share of pairs whose two prompts stand in the right order: the margin of the first answer over the second is
    larger where the first is right. A tie counts as half. No bias of the answers, and no calibration, can change it.
    """
    margin = (logits[:, 0] - logits[:, 1]).double().reshape(-1, 2)
    gap = (margin[:, 0] - margin[:, 1]) * (1 - 2 * correct[::2].double())
    gap = torch.where(gap.abs() <= ORDER_TIE * (1 + margin.abs().amax(dim=1)), 0.0, gap)
    return ((1 + gap.sign()) / 2).mean().item()


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
