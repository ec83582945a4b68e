"""The task loss: cross-entropy over the two candidate tokens at the last position."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.tasks import PairBatch

EVALUATION_ROWS = 256  # prompts a forward pass at most, to bound memory


@dataclass(frozen=True)
class Calibration:
    """Candidate logits become scale * logits + shift. The shift is per candidate: a common one would cancel
    in the softmax."""

    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def __call__(self, logits: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """Calibrated logits."""
        return self.scale * logits + torch.tensor(self.shift, dtype=logits.dtype, device=logits.device)


def candidate_logits(model: SparseTransformer, batch: PairBatch) -> Float[Tensor, "n 2"]:
    """Logits of the two answers after each prompt, in one forward pass; differentiable."""
    device = model.device
    tokens, last = torch.from_numpy(batch.tokens).to(device), torch.from_numpy(batch.last).to(device)
    return model(tokens, last_only=last)[:, list(batch.answers)].float()


@torch.no_grad()
def all_candidate_logits(model: SparseTransformer, batch: PairBatch) -> Float[Tensor, "n 2"]:
    """As `candidate_logits` for any number of prompts: in chunks of similar length, in the given order."""
    order = batch.last.argsort(kind="stable")
    ordered = PairBatch(batch.tokens[order], batch.last[order], batch.correct[order], batch.answers)
    chunks = [
        candidate_logits(model, ordered.rows(start, min(start + EVALUATION_ROWS, len(order))))
        for start in range(0, len(order), EVALUATION_ROWS)
    ]
    logits = torch.cat(chunks)
    return torch.empty_like(logits).index_copy_(0, torch.from_numpy(order).to(logits.device), logits)


def correct_of(batch: PairBatch, device: torch.device | str = "cpu") -> Int[Tensor, "n"]:
    """Which answer is right, per prompt."""
    return torch.from_numpy(batch.correct).to(device)


def task_loss(logits: Float[Tensor, "n 2"], correct: Int[Tensor, "n"]) -> Float[Tensor, ""]:
    """Binary cross-entropy in nats, mean over prompts (so the average over both prompts of each pair).

    Chance is ln 2. The released files store the sum over a pair, twice this.
    """
    return F.cross_entropy(logits, correct)


def accuracy(logits: Float[Tensor, "n 2"], correct: Int[Tensor, "n"]) -> float:
    """Share of prompts whose right answer has the larger logit."""
    return (logits.argmax(dim=-1) == correct).float().mean().item()


def calibrate(logits: Float[Tensor, "n 2"], correct: Int[Tensor, "n"]) -> Calibration:
    """Scale and per-candidate shift that minimise the loss: 16 LBFGS steps (Gao et al. 2025, appendix).

    The scale is kept positive, so that calibration cannot turn an answer around.
    """
    logits = logits.detach().double()
    log_scale = torch.zeros((), dtype=torch.float64, device=logits.device, requires_grad=True)
    offset = torch.zeros((), dtype=torch.float64, device=logits.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_scale, offset], max_iter=16, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        shift = torch.stack((offset, -offset))
        # The slight pull keeps the scale finite when the two classes are perfectly separable.
        loss = task_loss(log_scale.exp() * logits + shift, correct) + 1e-4 * log_scale.square()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    scale, shift = log_scale.exp().item(), offset.item()
    if not torch.isfinite(torch.tensor([scale, shift])).all():
        return Calibration()
    return Calibration(scale, (shift, -shift))
