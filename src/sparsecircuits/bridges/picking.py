"""Which circuit a prompt needs, by a rule that costs next to nothing: a sparse classifier of the residual stream."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer, rows_at
from sparsecircuits.tasks import PairBatch

FALL_BACK = -1
PENALTY = 1.5e-3
"""On the sum of the classifier's absolute weights: larger, and fewer of them are not zero."""
SURE = 0.3
"""Probability that the likeliest circuit needs to run."""
SLACK = 0.5
"""How far below the least score of its known prompts one may score and still be a circuit's, in standard deviations of
their scores."""
STEPS = 300


class Rule(Protocol):
    """Picks a circuit for each prompt."""

    @property
    def weights(self) -> int:
        """Numbers that the rule multiplies with; its share of what a prompt costs."""

    @property
    def boundary(self) -> int:
        """The model runs whole up to this boundary of the residual stream, for the rule to read."""

    def __call__(self, model: SparseTransformer, batch: PairBatch) -> Int[Tensor, " n"]:
        """The place of a circuit for each prompt, or FALL_BACK for the whole model."""


@dataclass(frozen=True)
class SparseClassifier:
    """The likeliest circuit, or FALL_BACK where a task without one is likelier, where nothing is likely, and where a
    prompt scores less than any known one of the circuit did.

    Multinomial logistic regression on the residual stream at the prompt's last token and its mean over the prompt.
    Almost all of its weights are zero (an L1 penalty), so that it costs a prompt hardly anything.
    """

    boundary: int
    weight: Float[Tensor, "features groups"]
    bias: Float[Tensor, " groups"]
    least: Float[Tensor, " circuits"]
    """The smallest score with which a prompt is a circuit's."""

    @property
    def weights(self) -> int:
        """Numbers that a prompt is multiplied, shifted and compared with."""
        return int(self.weight.count_nonzero()) + self.bias.numel() + self.least.numel()

    @classmethod
    @torch.no_grad()
    def learn(
        cls,
        model: SparseTransformer,
        known: Sequence[PairBatch],
        more: Sequence[PairBatch],
        others: Sequence[PairBatch] = (),
        *,
        boundary: int = 0,
        penalty: float = PENALTY,
    ) -> "SparseClassifier":
        """Learn from each circuit's prompts. more: other prompts of the same circuits, which only say how little one
        may score: of other templates, as what will come is. others: prompts that no circuit is for, a group each."""
        groups = [features(model, batch, boundary) for batch in (*known, *others)]
        labels = torch.cat([torch.full((len(x),), place) for place, x in enumerate(groups)]).to(model.device)
        # Each group counts alike, however many prompts it has.
        shares = torch.cat([torch.full((len(x),), 1 / len(x)) for x in groups]).to(groups[0]) / len(groups)
        weight, bias = _sparse_regression(torch.cat(groups), labels, shares, penalty)
        least = []
        for place, batch in enumerate(more):
            scores = torch.cat([groups[place], features(model, batch, boundary)]) @ weight[:, place] + bias[place]
            least.append(scores.min() - SLACK * scores.std())
        return cls(boundary, weight, bias, torch.stack(least))

    def __call__(self, model: SparseTransformer, batch: PairBatch) -> Int[Tensor, " n"]:
        """The likeliest circuit, if it is likely enough and scores enough, or FALL_BACK."""
        scores = features(model, batch, self.boundary) @ self.weight + self.bias
        likely, place = scores.softmax(dim=1).max(dim=1)
        circuits = len(self.least)
        own = place.clamp(max=circuits - 1)
        enough = scores.gather(1, own[:, None])[:, 0] >= self.least[own]
        return torch.where((place < circuits) & (likely >= SURE) & enough, place, FALL_BACK).cpu()


@torch.no_grad()
def features(model: SparseTransformer, batch: PairBatch, boundary: int) -> Float[Tensor, "n twice_d"]:
    """The residual stream at a boundary at each prompt's last token, and its mean over the prompt, in float64."""
    ids, last = (torch.from_numpy(x).to(model.device) for x in (batch.tokens, batch.last))
    real = torch.from_numpy(batch.real).to(model.device)[..., None]
    x, positions = model.embed(ids)
    x = model.between(x, 0, boundary, positions)
    mean = (x * real).sum(dim=1) / real.sum(dim=1)
    return torch.cat((rows_at(x, last)[:, 0], mean), dim=1).double()


def _sparse_regression(
    x: Float[Tensor, "n features"], labels: Int[Tensor, " n"], shares: Float[Tensor, " n"], penalty: float
) -> tuple[Float[Tensor, "features groups"], Float[Tensor, " groups"]]:
    """(weight, bias) of the multinomial logistic regression with an L1 penalty on what features weigh once they are
    scaled alike, by accelerated proximal gradient steps (FISTA: Beck and Teboulle 2009). shares: how much each row
    counts, 1 in all."""
    mean, spread = x.mean(dim=0), x.std(dim=0)
    spread = spread + 1e-3 * spread.mean() + 1e-9
    x = (x - mean) / spread
    targets = F.one_hot(labels).to(x)
    step = 1 / (0.5 * torch.linalg.matrix_norm(x * shares.sqrt()[:, None], ord=2) ** 2 + 0.5)
    weight = x.new_zeros(x.shape[1], targets.shape[1])
    bias = x.new_zeros(targets.shape[1])
    ahead, ahead_bias, pace = weight, bias, 1.0
    for _ in range(STEPS):
        error = ((x @ ahead + ahead_bias).softmax(dim=1) - targets) * shares[:, None]
        moved = ahead - step * (x.T @ error)
        new = moved.sign() * (moved.abs() - step * penalty).clamp(min=0)
        new_bias = ahead_bias - step * error.sum(dim=0)
        faster = (1 + math.sqrt(1 + 4 * pace * pace)) / 2
        ahead, ahead_bias = (
            new + (pace - 1) / faster * (new - weight),
            new_bias + (pace - 1) / faster * (new_bias - bias),
        )
        weight, bias, pace = new, new_bias, faster
    weight = weight / spread[:, None]
    return weight, bias - mean @ weight
