"""Hyperparameters of pruning. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from sparsecircuits.errors import UserError
from sparsecircuits.models.config import require_finite
from sparsecircuits.nodes.ablation import Ablation
from sparsecircuits.seeds import checked_seed

PruneAblation = Literal["mean", "zero", "resample", "stochastic", "adversarial"]
Method = Literal["learned", "gradient", "integrated-gradients", "eap-ig", "weight-magnitude", "random"]


@dataclass(frozen=True)
class PruneConfig:
    """Hyperparameters of pruning; the defaults of the first eight are the paper's centres, except k_coef and
    lr, which suit a few hundred steps on a small model."""

    k_coef: float = 1e-2
    """Weight of the number of active nodes in the loss, where the task loss is far below what has to be held."""
    init_noise_scale: float = 1e-2
    init_noise_bias: float = 1e-1
    weight_decay: float = 1e-3
    lr: float = 3e-3
    one_minus_beta2: float = 5e-2
    lr_warmup_frac: float = 5e-2
    heaviside_temp: float = 1.0
    steps: int = 300
    pairs: int = 32
    """Pairs a step."""
    clip: float = 1.0
    """Largest norm of the gates' gradient."""
    eval_pairs: int = 256
    """Pairs on which sizes are compared."""
    margin: float = 0.7
    """Share of the target that the size is chosen for, so that prompts of other templates hold it too."""
    restarts: int = 3
    """Clean-ups that start from the best set so far with some of the dropped nodes put back."""
    method: Method = "learned"
    """How nodes are ranked: learned gates, or a baseline."""
    ablation: PruneAblation = "mean"
    """What a node outside the circuit carries: its mean over pretraining text, zero, or what it is on the
    pair's other prompt. stochastic: its mean, and the target also holds when random subsets of what lies outside carry
    theirs and the rest runs; adversarial: also under the worst small subsets that gradient ascent finds."""
    tied_qk: bool = False
    """One gate for a query channel and the key channel that it is multiplied with."""
    prune_edges: bool = True
    """After the nodes, remove edges too while the target holds."""
    edge_steps: int = 100
    """Steps of learning gates on edges, where there are more than 100."""
    seed: int = 0

    @property
    def carried(self) -> Ablation:
        """What a node outside the finished circuit carries."""
        if self.ablation == "stochastic" or self.ablation == "adversarial":
            return "mean"
        return self.ablation

    def __post_init__(self) -> None:
        require_finite(self, "prune.")
        checked_seed(self.seed)
        for name in (
            "lr",
            "one_minus_beta2",
            "heaviside_temp",
            "clip",
            "steps",
            "pairs",
            "eval_pairs",
            "edge_steps",
            "margin",
        ):
            if getattr(self, name) <= 0:
                raise UserError(f"prune.{name} must be positive, got {getattr(self, name)}")
        if self.restarts < 0:
            raise UserError(f"prune.restarts must be at least 0, got {self.restarts}")
        if self.tied_qk and self.method != "learned":
            raise UserError(f"tied_qk ties learned gates; the method {self.method} has none")
