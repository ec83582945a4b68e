"""Which circuit a prompt needs, by a rule that costs next to nothing: a few channels of the residual stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer, rows_at
from sparsecircuits.tasks import PairBatch

FALL_BACK = -1
SHRINKAGE = 0.1
"""Share of the covariance that is replaced by its diagonal: few prompts do not tell how channels go together."""
SLACK = 1.1
"""How much further off than the furthest known prompt of a circuit one may be and still be its."""


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
class NearestMean:
    """The circuit whose known prompts are nearest on average; FALL_BACK where those of another task are nearer, or
    where the circuit's are further off than any known one was.

    Linear discriminants (Fisher, Rao): distances are measured in the few directions in which groups of prompts differ
    for their spread within, over the channels that tell them apart best.
    """

    boundary: int
    channels: Int[Tensor, " m"]
    directions: Float[Tensor, "m d"]
    means: Float[Tensor, "groups d"]
    reach: Float[Tensor, " circuits"]

    @property
    def weights(self) -> int:
        """Numbers that a prompt is multiplied and compared with."""
        return self.directions.numel() + self.means.numel()

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
        channels: int = 128,
    ) -> "NearestMean":
        """Learn from each circuit's prompts. more: other prompts of the same circuits, which only say how far off one
        may be: of other templates, as what will come is. others: prompts that no circuit is for, a group each."""
        each = [features(model, batch, boundary) for batch in (*known, *others)]
        best = _separating(each, channels)
        each = [x[:, best] for x in each]
        means = torch.stack([x.mean(dim=0) for x in each])
        around = torch.cat([x - mean for x, mean in zip(each, means, strict=True)])
        covariance = around.T @ around / len(around)
        diagonal = torch.diag(covariance.diagonal())
        floor = 1e-3 * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)
        values, vectors = torch.linalg.eigh((1 - SHRINKAGE) * covariance + SHRINKAGE * diagonal + floor)
        whitening = vectors @ torch.diag(values.rsqrt()) @ vectors.T
        between = torch.linalg.svd((means - means.mean(dim=0)) @ whitening, full_matrices=False).Vh
        directions = whitening @ between[: max(1, len(means) - 1)].T
        rule = cls(boundary, best, directions, means @ directions, torch.full((len(known),), torch.inf).to(means))
        reach = []
        for place, batches in enumerate(zip(known, more, strict=True)):
            seen = torch.cat([rule._distances(features(model, batch, boundary))[:, place] for batch in batches])
            reach.append(SLACK * seen.max())
        return cls(boundary, best, directions, rule.means, torch.stack(reach))

    def __call__(self, model: SparseTransformer, batch: PairBatch) -> Int[Tensor, " n"]:
        """The nearest circuit, if it is nearest of all groups and within reach, or FALL_BACK."""
        nearest, place = self._distances(features(model, batch, self.boundary)).min(dim=1)
        circuits = len(self.reach)
        fits = (place < circuits) & (nearest <= self.reach[place.clamp(max=circuits - 1)])
        return torch.where(fits, place, FALL_BACK).cpu()

    def _distances(self, x: Float[Tensor, "n all"]) -> Float[Tensor, "n groups"]:
        return torch.cdist(x[:, self.channels] @ self.directions, self.means)


@torch.no_grad()
def features(model: SparseTransformer, batch: PairBatch, boundary: int) -> Float[Tensor, "n twice_d"]:
    """The residual stream at a boundary at each prompt's last token, and its mean over the prompt, in float64."""
    ids, last = (torch.from_numpy(x).to(model.device) for x in (batch.tokens, batch.last))
    real = torch.from_numpy(batch.real).to(model.device)[..., None]
    x, positions = model.embed(ids)
    x = model.between(x, 0, boundary, positions)
    mean = (x * real).sum(dim=1) / real.sum(dim=1)
    return torch.cat((rows_at(x, last)[:, 0], mean), dim=1).double()


def _separating(each: Sequence[Float[Tensor, "n all"]], most: int) -> Int[Tensor, " m"]:
    """The features whose means differ most between groups, for their spread within."""
    means = torch.stack([x.mean(dim=0) for x in each])
    within = torch.stack([x.var(dim=0, correction=0) for x in each]).mean(dim=0)
    score = means.var(dim=0, correction=0) / (within + 1e-3 * within.mean() + 1e-12)
    return score.topk(min(most, score.numel())).indices.sort().values
