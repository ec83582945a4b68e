"""L0 regularisation with HardConcrete gates (Louizos et al. 2018): the sparsifier that the paper compares
top-k with, and finds worse at every L0 (Gao et al. 2025, appendix)."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsecircuits.models.transformer import SparseTransformer, sparse_matrices
from sparsecircuits.sparsity.schedules import SparsityConfig

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1  # temperature and stretch of the original paper
OPEN = 0.9  # probability that a gate is not zero at the start


def open_probability(log_alpha: Tensor) -> Tensor:
    """Probability that a gate is not exactly zero."""
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def stretched(s: Tensor) -> Tensor:
    """(0, 1) stretched to (GAMMA, ZETA) and cut at 0 and 1, so that both ends have mass."""
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)


def sample_gate(log_alpha: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A gate in [0, 1] per entry, differentiable in log_alpha."""
    u = torch.rand(log_alpha.shape, generator=generator, device=log_alpha.device).clamp(1e-6, 1 - 1e-6)
    return stretched(torch.sigmoid((u.log() - (-u).log1p() + log_alpha) / BETA))


def settled_gate(log_alpha: Tensor) -> Tensor:
    """The gate without noise, as it is used after training."""
    return stretched(torch.sigmoid(log_alpha))


class HardConcrete(nn.Module):
    """Gates on every sparse matrix of a model.

    The model's own weights hold weight · gate, so that forward, kernels and hooks need not know of gates;
    the free weights and the gates' parameters live here, and `collect` hands the gradient on to them.
    The penalty is coef · max(0, expected density - target): it stops at the target (a sparsity floor).
    """

    def __init__(self, model: SparseTransformer, config: SparsityConfig) -> None:
        super().__init__()
        self.matrices = sparse_matrices(model)
        self.coef, self.target = config.l0_coef, config.density
        start = math.log(OPEN / (1 - OPEN)) + BETA * math.log(-GAMMA / ZETA)
        # Closed gates take variance away; the free weights start larger by as much (Bernoulli-scaled).
        self.free = nn.ParameterList(p.detach() / OPEN**0.5 for p in self.matrices.values())
        self.log_alpha = nn.ParameterList(torch.full_like(p, start) for p in self.matrices.values())
        self._products: list[Tensor] = []
        self.density = OPEN  # expected, as of the last `collect`

    def learned(self, model: SparseTransformer) -> list[nn.Parameter]:
        """What the optimizer moves: free weights and gates, and the model's parameters that are not gated."""
        gated = {id(weight) for weight in self.matrices.values()}
        return [*self.parameters(), *(p for p in model.parameters() if p.requires_grad and id(p) not in gated)]

    def _pairs(self) -> Iterator[tuple[nn.Parameter, nn.Parameter, nn.Parameter]]:
        return zip(self.matrices.values(), self.free, self.log_alpha, strict=True)

    def prepare(self, seed: int) -> None:
        """Draw gates and put weight · gate into the model; the same gates for the same seed."""
        generator = torch.Generator(self.log_alpha[0].device).manual_seed(seed)
        self._products = [free * sample_gate(log_alpha, generator) for _, free, log_alpha in self._pairs()]
        with torch.no_grad():
            for (weight, _, _), product in zip(self._pairs(), self._products, strict=True):
                weight.copy_(product)

    def collect(self) -> None:
        """Hand the model's gradients on to free weights and gates, and add the penalty's."""
        weights = [weight for weight, _, _ in self._pairs()]
        expected = self.expected_density()
        torch.autograd.backward(
            [*self._products, self.penalty(expected)], [*(weight.grad for weight in weights), torch.ones_like(expected)]
        )
        self.density = expected.item()
        for weight in weights:
            weight.grad = None
        self._products = []

    def expected_density(self) -> Float[Tensor, ""]:
        """Expected share of gates that are not zero."""
        total = sum(p.numel() for p in self.log_alpha)
        return torch.stack([open_probability(p).sum() for p in self.log_alpha]).sum() / total

    def penalty(self, density: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """coef · (expected density above the target)."""
        return self.coef * (density - self.target).clamp_min(0.0)

    @torch.no_grad()
    def settle(self) -> None:
        """Put weight · gate without noise into the model, as after training."""
        for weight, free, log_alpha in self._pairs():
            weight.copy_(free * settled_gate(log_alpha))
