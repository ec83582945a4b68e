"""Subset ablation: what becomes of the task when a part of what lies outside the circuit is ablated, and the rest runs.

Ablating all of it at once lets nodes cancel each other: two that push the answer in opposite directions stand for
nothing together, and for much when one of them is left. A circuit that is all that matters stays, whatever subset is
ablated, between its own loss and the whole model's.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

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
from sparsecircuits.nodes.edges import EdgeGates
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.task_loss import candidate_logits, correct_of, pick_answers, task_loss
from sparsecircuits.pruning.learned_gates import frozen_weights, heaviside
from sparsecircuits.tasks import PairBatch

SHARES = (0.1, 0.5, 0.9)
"""Of what lies outside the circuit, how much a random subset ablates."""
STARTS = 3
"""Of the ascent."""
ASCENT_PAIRS = 32
"""Training pairs that the worst subset is looked for on."""
RATE, TEMPERATURE = 0.2, 1.0
"""Of the ascent: how far a gate's τ moves in a step; and how soft its step function is backwards."""


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

    With a gate on each of thousands of nodes an ascent breaks whatever it likes; a circuit is refuted by a few.
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


@dataclass(frozen=True)
class _Mixture:
    """The model between whole and circuit, by gates on what lies outside: its nodes, then the edges between the
    circuit's nodes that the circuit lacks."""

    bound: Bound
    ablation: AblationName

    @property
    def nodes(self) -> int:
        return int((~self.bound.kept).sum())

    @property
    def size(self) -> int:
        return self.nodes + len(self.bound.removed)

    def gating(self, on: Float[Tensor, " size"], donors: Donors | None) -> Gating:
        """What runs with gates on what lies outside, differentiable in them."""
        bound, nodes = self.bound, self.nodes
        outside = (~bound.kept).nonzero().flatten().to(on.device)
        gates = bound.kept.to(on.device, torch.float32).index_add(0, outside, on[:nodes])
        edges = EdgeGates(bound.removed, on[nodes:]) if len(bound.removed) else None
        mixed = replace(bound.alone, gates=gates, edges=edges)
        if donors is not None:
            return replace(mixed, ablation="resample", donors=donors)
        return ablated_as(mixed, "zero") if self.ablation == "zero" else mixed

    def answers(self, on: Float[Tensor, " size"], prompts: _Prompts) -> Float[Tensor, "n 2"]:
        """Logits of the answers, not calibrated."""
        gating = self.gating(on, None)
        logits = final_logits(self.bound.model, prompts.batch, gating, donors=prompts.donors)
        return pick_answers(logits, prompts.batch)

    def losses(self, on: Float[Tensor, " size"], learn: _Prompts, test: _Prompts) -> Float[Tensor, " n"]:
        """Losses per prompt of `test`, calibrated on `learn`."""
        fair = calibrate(self.answers(on, learn), correct_of(learn.batch))
        return losses_of(fair(self.answers(on, test)), test.batch)


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
    mixture, generator = _Mixture(bound, ablation), torch.Generator().manual_seed(seed)
    known, test = _Prompts.of(learn, ablation, seed), _Prompts.of(batch, ablation, seed)

    def loss(on: Tensor) -> Float[Tensor, " n"]:
        return mixture.losses(on, known, test)

    found = []
    for share in SHARES:
        drawn = [_random_subset(mixture, share, generator) for _ in range(draws)]
        found.append(RandomSubsets(share=share, losses=tuple(loss(on).mean().item() for on in drawn)))
    return SubsetAblation(
        ablation=ablation,
        full=loss(torch.ones(mixture.size)).mean().item(),
        circuit=loss(torch.zeros(mixture.size)).mean().item(),
        random=tuple(found),
        adversarial=_adversarial(mixture, learn, loss, steps, seed) if steps else None,
    )


def _adversarial(
    mixture: _Mixture,
    learn: PairBatch,
    loss: Callable[[Float[Tensor, " size"]], Float[Tensor, " n"]],
    steps: int,
    seed: int,
) -> WorstSubset:
    few = _Prompts.of(first_pairs(learn, ASCENT_PAIRS), mixture.ablation, seed)
    most = min(len(mixture.bound.circuit.nodes), mixture.size)
    gates, found = _worst_subset(mixture, few, most, steps, torch.Generator().manual_seed(seed))
    return WorstSubset(
        ablated=mixture.size - int(gates.sum()),
        outside=mixture.size,
        loss_found=found,
        loss=estimate(loss(gates), seed=seed),
        steps=steps,
    )


def _random_subset(mixture: _Mixture, share: float, generator: torch.Generator) -> Float[Tensor, " size"]:
    """Gates with about a share of them closed."""
    return (torch.rand(mixture.size, generator=generator) >= share).float()


def _lowest_closed(tau: Float[Tensor, " size"], most: int) -> Float[Tensor, " size"]:
    """Gates of which the `most` with the smallest τ are closed; the gradient passes as through a step between."""
    level = tau.detach().kthvalue(most).values
    return heaviside(tau - level - torch.finfo(tau.dtype).tiny, TEMPERATURE)


def _worst_subset(
    mixture: _Mixture, prompts: _Prompts, most: int, steps: int, generator: torch.Generator
) -> tuple[Float[Tensor, " size"], float]:
    """The gates, at most `most` of them closed, with the largest calibrated loss on some training prompts that were met
    on the way up, and that loss.

    Gates are steps of τ with a straight-through gradient, as pruning learns them, so that every point on the way is a
    subset and not a mixture of activations. They start at random; Adam ascends. At each point
    the calibration is fitted anew: a bias is no damage, and an adversary that is paid for one would look no further.
    """
    device, best = mixture.bound.model.device, (torch.ones(mixture.size), -1.0)
    correct = correct_of(prompts.batch, device)
    with frozen_weights(mixture.bound.model):
        for _ in range(STARTS if most else 0):
            tau = (0.1 * torch.randn(mixture.size, generator=generator)).to(device).requires_grad_()
            # Where the model is sure of its answers gradients are tiny; what counts is which way they point.
            optimiser = torch.optim.Adam([tau], lr=RATE, betas=(0.5, 0.9), eps=1e-12, maximize=True)
            for _ in range(steps):
                on = _lowest_closed(tau, most)
                logits = candidate_logits(mixture.bound.model, prompts.batch, mixture.gating(on, prompts.donors))
                loss = task_loss(calibrate(logits, correct)(logits), correct)
                best = max(best, (on.detach().cpu(), loss.item()), key=lambda found: found[1])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return best
