"""Models between a circuit and the whole: what lies outside the circuit is ablated in part, and the rest of it runs.

Authors of parameter decomposition ablate such subsets at random (stochastic) and as ill as they can (adversarial).
Pruning aims at circuits that hold under them, the deep card measures it.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import calibrate
from sparsecircuits.nodes.donors import Donors
from sparsecircuits.nodes.edges import EdgeGates, Edges
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.task_loss import candidate_logits, correct_of, task_loss
from sparsecircuits.pruning.learned_gates import frozen_weights, heaviside
from sparsecircuits.tasks import PairBatch

SHARES = (0.1, 0.5, 0.9)
"""Of what lies outside a circuit, how much a random subset ablates."""
STARTS = 3
"""Of the ascent."""
RATE, TEMPERATURE = 0.2, 1.0
"""Of the ascent: how far a gate's τ moves in a step; and how soft its step function is backwards."""


@dataclass(frozen=True)
class Mixture:
    """The model between whole and circuit, by gates on what lies outside: its nodes, then the edges between the
    circuit's nodes that the circuit lacks."""

    model: SparseTransformer
    alone: Gating
    """The circuit alone; says what an ablated node carries."""
    kept: Bool[Tensor, " nodes"]
    removed: Edges
    """Between the circuit's nodes."""

    @property
    def nodes(self) -> int:
        """How many lie outside."""
        return int((~self.kept).sum())

    @property
    def size(self) -> int:
        """Nodes and edges outside."""
        return self.nodes + len(self.removed)

    def gating(self, on: Float[Tensor, " size"], donors: Donors | None = None) -> Gating:
        """What runs with gates on what lies outside, differentiable in them. donors: whose activations the ablated
        carry, in the place of constants."""
        outside = (~self.kept).nonzero().flatten().to(on.device)
        gates = self.kept.to(on.device, torch.float32).index_add(0, outside, on[: self.nodes])
        edges = EdgeGates(self.removed, on[self.nodes :]) if len(self.removed) else None
        mixed = replace(self.alone, gates=gates, edges=edges)
        return mixed if donors is None else replace(mixed, ablation="resample", donors=donors)


def random_subset(size: int, share: float, generator: torch.Generator) -> Float[Tensor, " size"]:
    """Gates with about a share of them closed."""
    return (torch.rand(size, generator=generator) >= share).float()


def worst_subset(
    mixture: Mixture,
    batch: PairBatch,
    most: int,
    steps: int,
    generator: torch.Generator,
    donors: Donors | None = None,
) -> tuple[Float[Tensor, " size"], float]:
    """The gates, at most `most` of them closed, with the largest calibrated loss on some training prompts that were met
    on the way up, and that loss in nats.

    With a gate on each of thousands of nodes an ascent breaks whatever it likes; a circuit is refuted by a few. Gates
    are steps of τ with a straight-through gradient, as pruning learns them, so that every point on the way is a
    subset and not a mixture of activations. They start at random; Adam ascends, `steps` times from each start. At each
    point the calibration is fitted anew: a bias is no damage, and an adversary that is paid for one would look no
    further.
    """
    device, best = mixture.model.device, (torch.ones(mixture.size), -1.0)
    correct = correct_of(batch, device)
    with frozen_weights(mixture.model):
        for _ in range(STARTS if most else 0):
            tau = (0.1 * torch.randn(mixture.size, generator=generator)).to(device).requires_grad_()
            # Where the model is sure of its answers gradients are tiny; what counts is which way they point.
            optimiser = torch.optim.Adam([tau], lr=RATE, betas=(0.5, 0.9), eps=1e-12, maximize=True)
            for _ in range(steps):
                on = _lowest_closed(tau, most)
                logits = candidate_logits(mixture.model, batch, mixture.gating(on, donors))
                loss = task_loss(calibrate(logits, correct)(logits), correct)
                best = max(best, (on.detach().cpu(), loss.item()), key=lambda found: found[1])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return best


def _lowest_closed(tau: Float[Tensor, " size"], most: int) -> Float[Tensor, " size"]:
    """Gates of which the `most` with the smallest τ are closed; the gradient passes as through a step between."""
    level = tau.detach().kthvalue(most).values
    return heaviside(tau - level - torch.finfo(tau.dtype).tiny, TEMPERATURE)
