"""Schedules of L0 and learning rate as pure functions of progress in [0, 1] (share of training done).

Imports no torch: the formulas are checked at known points in tests.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from sparsecircuits.errors import UserError
from sparsecircuits.models.config import require_finite

BASE_WIDTH = 256  # the d_model whose expansion factor is 1


@dataclass(frozen=True)
class SparsityConfig:
    """How sparse the weights become, and how they get there."""

    density: float = 0.02
    """Share of each matrix's entries that is nonzero at the end; 1: a dense model."""
    embed_density: float | None = None
    """The same for embedding and unembedding; None: `density` (the released recipe keeps more there)."""
    pfrac: float | None = None
    """The released recipe instead of the two: pfrac / EF² of each matrix and pfrac / EF of the embeddings, where
    EF is d_model / 256."""
    sparsifier: Literal["topk", "hard_concrete"] = "topk"
    """topk: exact projection after every step. hard_concrete: L0 regularisation by stochastic gates (the
    paper's baseline); then there is no schedule and no floor, and `density` is where the penalty stops."""
    l0_coef: float = 10.0
    """hard_concrete: weight of the expected density above `density` in the loss."""
    start: Literal["dense", "uniform", "erk", "given"] = "dense"
    """Where L0 begins. dense: at every weight, and it falls to `density` (`anneal`). uniform: at `density`, with
    random places in each matrix. erk: the same number of weights, shared out so that a matrix's density follows
    (inputs + outputs) / (inputs * outputs) (Erdős-Rényi, as in RigL), among all matrices of one density. given: at
    `density`, with the largest weights of the model that training begins with (`init`). Random places scale weights by
    1/sqrt(density), so that outputs keep their variance. Places are exchanged for others in the steps with dense
    gradients (`regrow_every`)."""
    anneal: Literal["linear", "log"] = "linear"
    """L0 falls linearly in progress, or linearly on log-log axes."""
    anneal_start: float = 0.01
    """Progress at which L0 begins to fall from dense."""
    anneal_end: float = 0.5
    """Progress at which L0 reaches its target."""
    floor: int = 4
    """No neuron or attention channel keeps fewer nonzeros than this (the paper's j)."""
    sparse_biases: bool = False
    """Project biases to the same density too."""
    regrow_every: int = 1
    """Steps from one with dense gradients, in which zero weights may come back, to the next. Between them, weights
    sparser than 12% keep their support, and the step costs what the nonzeros cost. 1: every step, the paper's way."""
    revive_every: int = 0
    """Steps from one look for dead units (neurons and attention channels that AbsTopK has not picked in the steps with
    dense gradients since the last look) to the next: these begin anew, within the budget. A multiple of `regrow_every`;
    0: never."""
    state: Literal["dense", "compact"] = "dense"
    """What training keeps of weights sparser than 12%. dense: whole matrices and their moments; a zero weight's moments
    wait until it comes back. compact: nonzeros alone (40 bytes each), for models whose whole moments fill the memory;
    who comes back is decided by the step's own gradient, of one matrix at a time. Needs a sparse `start`."""

    def __post_init__(self) -> None:
        require_finite(self, "sparsity.")
        for name in ("density", "embed_density"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise UserError(f"sparsity.{name} must be in (0, 1], got {value}")
        if self.pfrac is not None and not 0 < self.pfrac <= 1:
            raise UserError(f"sparsity.pfrac must be in (0, 1], got {self.pfrac}")
        if self.l0_coef <= 0:
            raise UserError(f"sparsity.l0_coef must be positive, got {self.l0_coef}")
        if self.sparsifier == "hard_concrete" and (self.embed_density is not None or self.sparse_biases):
            raise UserError("sparsity.sparsifier hard_concrete knows one density: no embed_density, no sparse_biases")
        if self.sparsifier == "hard_concrete" and self.start != "dense":
            raise UserError(f"sparsity.start {self.start} is for sparsity.sparsifier topk: gates begin dense")
        if self.state == "compact" and self.start == "dense":
            raise UserError("sparsity.state compact needs a sparse start: give sparsity.start uniform or erk")
        if not 0 <= self.anneal_start <= self.anneal_end <= 1:
            raise UserError("sparsity: 0 <= anneal_start <= anneal_end <= 1 does not hold")
        if self.anneal == "log" and self.anneal_start == 0:
            raise UserError("sparsity.anneal log needs anneal_start > 0")
        if self.regrow_every < 1:
            raise UserError(f"sparsity.regrow_every must be at least 1, got {self.regrow_every}")
        if self.revive_every < 0 or self.revive_every % self.regrow_every:
            raise UserError(
                f"sparsity.revive_every must be a multiple of sparsity.regrow_every ({self.regrow_every}), "
                f"got {self.revive_every}"
            )
        if self.revive_every and self.sparsifier != "topk":
            raise UserError("sparsity.revive_every is for sparsity.sparsifier topk")
        if self.floor < 0:
            raise UserError(f"sparsity.floor must not be negative, got {self.floor}")

    @property
    def dense(self) -> bool:
        """Whether nothing is ever zeroed."""
        return self.density == 1 and self.embed_density in (None, 1)

    def for_width(self, d_model: int) -> "SparsityConfig":
        """With `density` and `embed_density` worked out from `pfrac`, where that is given."""
        if self.pfrac is None:
            return self
        expansion = d_model / BASE_WIDTH
        densities = [min(1.0, self.pfrac / expansion**power) for power in (2, 1)]
        return replace(self, density=densities[0], embed_density=densities[1])


def density_at(progress: float, target: float, config: SparsityConfig) -> float:
    """Share of entries kept at a point of training: 1 until `anneal_start`, `target` from `anneal_end` on, or from
    the beginning where that is sparse.

    linear: straight in progress. log: straight on log-log axes of density against progress.
    """
    start, end = config.anneal_start, config.anneal_end
    if config.start != "dense" or progress >= end:
        return target
    if progress <= start:
        return 1.0
    if config.anneal == "linear":
        return 1.0 + (target - 1.0) * (progress - start) / (end - start)
    slope = math.log(target) / math.log(end / start)
    return math.exp(slope * math.log(progress / start))


def learning_rate_at(
    progress: float, peak: float, warmup: float, config: SparsityConfig, *, sharkfin: bool = True
) -> float:
    """Linear warm-up over `warmup` of training, then linear decay to 0, times √(L0_final / L0_now).

    The last factor makes the "sharkfin": small while the weights are dense, 1 once they are sparse.
    """
    if progress < warmup:
        rate = peak * progress / warmup
    else:
        rate = peak * (1.0 - progress) / (1.0 - warmup) if warmup < 1 else 0.0
    if sharkfin:
        rate *= math.sqrt(config.density / density_at(progress, config.density, config))
    return max(0.0, rate)
