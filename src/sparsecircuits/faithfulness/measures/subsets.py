"""Subset ablation: what becomes of the task when a part of what lies outside the circuit is ablated, and the rest runs.

Ablating all of it at once lets nodes cancel each other: two that push the answer in opposite directions stand for
nothing together, and for much when one of them is left. A circuit that is all that matters stays, whatever subset is
ablated, between its own loss and the whole model's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.faithfulness.measures.estimate import Estimate, estimate
from sparsecircuits.faithfulness.measures.runs import ablated_as, final_logits, first_pairs, losses_of
from sparsecircuits.faithfulness.measures.sufficiency import AblationName
from sparsecircuits.nodes.calibration import calibrate
from sparsecircuits.nodes.donors import Donors, Matched
from sparsecircuits.nodes.task_loss import correct_of, pick_answers
from sparsecircuits.pruning.mixtures import SHARES, Mixture, random_subset, worst_subset
from sparsecircuits.tasks import PairBatch

ASCENT_PAIRS = 32
"""Training pairs that the worst subset is looked for on."""


class RandomSubsets(BaseModel):
    """Random subsets of one size; the losses of the draws, one subset each for all prompts, in nats."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float
    losses: tuple[float, ...]

    @property
    def worst(self) -> float:
        """The largest loss."""
        return max(self.losses)


class WorstSubset(BaseModel):
    """The worst subset of at most as many nodes and edges as the circuit has nodes that gradient ascent found on
    training prompts.

    See `pruning.mixtures.worst_subset`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ablated: int
    """Nodes and edges that it ablates, of `outside`."""
    outside: int
    loss_found: float
    """On the training prompts that it was found on, in nats."""
    loss: Estimate
    """On the card's prompts."""
    steps: int
    """Of the ascent, from each of its starts."""


class SubsetAblation(BaseModel):
    """Losses in nats between the whole model's, where nothing is ablated, and the circuit's, where all that lies
    outside is. Each subset's run is calibrated on the same training pairs, and so are circuit and model here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ablation: AblationName
    full: float
    circuit: float
    random: tuple[RandomSubsets, ...]
    adversarial: WorstSubset | None
    """None where no steps were taken."""

    @property
    def bound(self) -> float:
        """The larger of the circuit's loss and the model's: no subset should be worse."""
        return max(self.full, self.circuit)

    @property
    def worst_random(self) -> RandomSubsets:
        """The subsets of the size that has the worst draw."""
        return max(self.random, key=lambda subsets: subsets.worst)

    @property
    def worst(self) -> float | None:
        """The largest loss of all subsets; None where that of the adversarial one is not defined."""
        if self.adversarial is None:
            return self.worst_random.worst
        found = self.adversarial.loss.value
        return None if found is None else max(found, self.worst_random.worst)


@dataclass(frozen=True)
class _Prompts:
    """Prompts, and for resample ablation the donors of what is ablated on them."""

    batch: PairBatch
    donors: Donors | None

    @classmethod
    def of(cls, batch: PairBatch, ablation: AblationName, seed: int) -> "_Prompts":
        if ablation == "resample_pair":
            return cls(batch, Donors.pairs(batch))
        return cls(batch, Matched.of(batch).draw(seed) if ablation == "resample_random" else None)


def _mixture(bound: Bound, ablation: AblationName) -> Mixture:
    alone = ablated_as(bound.alone, "zero") if ablation == "zero" else bound.alone
    return Mixture(bound.model, alone, bound.kept, bound.removed)


def _answers(mixture: Mixture, on: Float[Tensor, " size"], prompts: _Prompts) -> Float[Tensor, "n 2"]:
    """Logits of the answers, not calibrated."""
    return pick_answers(
        final_logits(mixture.model, prompts.batch, mixture.gating(on), donors=prompts.donors), prompts.batch
    )


def _losses(mixture: Mixture, on: Float[Tensor, " size"], learn: _Prompts, test: _Prompts) -> Float[Tensor, " n"]:
    """Losses per prompt of `test`, calibrated on `learn`."""
    fair = calibrate(_answers(mixture, on, learn), correct_of(learn.batch))
    return losses_of(fair(_answers(mixture, on, test)), test.batch)


def constants_of(bound: Bound) -> AblationName:
    """The constants that a circuit's nodes can be ablated at: its means where it has them, otherwise zeros."""
    return "mean" if bound.circuit.ablation == "mean" else "zero"


def subset_ablation(
    bound: Bound,
    learn: PairBatch,
    batch: PairBatch,
    ablation: AblationName,
    *,
    draws: int = 4,
    steps: int = 0,
    seed: int = 0,
) -> SubsetAblation:
    """Ablate random subsets, and with `steps` the worst that can be found, of what lies outside the circuit.

    As authors of parameter decomposition do (stochastic and adversarial ablation): one ablation of everything hides
    what cancels. Each subset is one choice for all prompts; the circuit's nodes and edges
    always run. learn: training pairs, for the calibrations and the ascent. draws: random subsets of each size.
    steps: of the ascent, from each of its starts. Losses >= 0; `SubsetAblation.bound` is what a faithful
    circuit keeps to.
    """
    mixture, generator = _mixture(bound, ablation), torch.Generator().manual_seed(seed)
    known, test = _Prompts.of(learn, ablation, seed), _Prompts.of(batch, ablation, seed)

    few = _Prompts.of(first_pairs(learn, ASCENT_PAIRS), ablation, seed)

    def loss(on: Tensor) -> Float[Tensor, " n"]:
        return _losses(mixture, on, known, test)

    found = []
    for share in SHARES:
        drawn = [random_subset(mixture.size, share, generator) for _ in range(draws)]
        found.append(RandomSubsets(share=share, losses=tuple(loss(on).mean().item() for on in drawn)))
    return SubsetAblation(
        ablation=ablation,
        full=loss(torch.ones(mixture.size)).mean().item(),
        circuit=loss(torch.zeros(mixture.size)).mean().item(),
        random=tuple(found),
        adversarial=_adversarial(bound, mixture, few, loss, steps, seed) if steps else None,
    )


def _adversarial(
    bound: Bound,
    mixture: Mixture,
    learn: _Prompts,
    loss: Callable[[Float[Tensor, " size"]], Float[Tensor, " n"]],
    steps: int,
    seed: int,
) -> WorstSubset:
    most = min(len(bound.circuit.nodes), mixture.size)
    generator = torch.Generator().manual_seed(seed)
    gates, found = worst_subset(mixture, learn.batch, most, steps, generator, learn.donors)
    return WorstSubset(
        ablated=mixture.size - int(gates.sum()),
        outside=mixture.size,
        loss_found=found,
        loss=estimate(loss(gates), seed=seed),
        steps=steps,
    )
