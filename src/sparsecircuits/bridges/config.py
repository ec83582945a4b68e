"""What decides the training of a bridge, as a frozen dataclass. Imports no torch."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from sparsecircuits.errors import UserError
from sparsecircuits.models.config import from_fields, require_finite
from sparsecircuits.seeds import checked_seed

STRENGTHS = (0.0, 0.01, 0.02, 0.05, 0.08, 0.126, 0.158, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Where steering is measured: shares of the difference between two prompts; the paper's own are among them."""


@dataclass(frozen=True)
class BridgeConfig:
    """The recipe: the paper's losses, each with a coefficient of 1."""

    steps: int = 1_000
    batch_size: int = 8
    """Sequences a step, each as long as both models take."""
    lr: float = 3e-4
    """Of the maps (AdamW, linear warm-up over a twentieth, linear decay to 0). A replication, whose maps began random,
    took 3e-3, which drives fitted ones away from where they begin."""
    sparse_lr: float = 3e-4
    """Of the sparse model's weights; 0 leaves them as they are and trains the maps alone."""
    nmse: float = 1.0
    """Coefficient of the maps' normalised errors."""
    kl_to_sparse: float = 1.0
    """Coefficient of the divergence of passes that go over from dense to sparse."""
    kl_to_dense: float = 1.0
    """Coefficient of the divergence of passes that go over from sparse to dense."""
    pretraining: float = 1.0
    """Coefficient of the sparse model's own loss."""
    places: tuple[str, ...] = ()
    """Which boundaries of the two residual streams are joined, as DENSE:SPARSE from 0:0 to the last ones, as in
    0:0 4:2 8:4: for models of different depth. Boundary 2i is before layer i's attention, 2i + 1 before its MLP. By
    default all, of models of one depth."""
    boundaries: int | None = None
    """Places drawn at random each step; none: all of them, at a cost that grows with the square of the depth."""
    encoder_afrac: float | None = None
    """Share of channels that the encoders' AbsTopK keeps; none: all, the encoders are affine."""
    fit_tokens: int = 65_536
    """Tokens that the maps are fitted to by least squares before the first step; 0: they begin random."""
    clip: float = 1.0
    """The gradient's norm is clipped to this."""
    eval_tokens: int = 32_768
    """Validation tokens that the finished bridge is measured on."""
    log_every: int = 10
    checkpoint_every: int = 250
    keep_checkpoints: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", tuple(self.places))
        require_finite(self, "")
        checked_seed(self.seed)
        for name in ("steps", "batch_size", "eval_tokens", "log_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.boundaries is not None and self.boundaries < 1:
            raise UserError(f"boundaries must be at least 1 or none, got {self.boundaries}")
        if self.encoder_afrac is not None and not 0 < self.encoder_afrac <= 1:
            raise UserError(f"encoder_afrac must be in (0, 1] or none, got {self.encoder_afrac}")
        if self.lr <= 0 or self.clip <= 0 or self.fit_tokens < 0 or self.sparse_lr < 0:
            raise UserError("lr and clip must be positive, fit_tokens and sparse_lr not negative")
        if min(self.nmse, self.kl_to_sparse, self.kl_to_dense, self.pretraining) < 0:
            raise UserError("the losses' coefficients must not be negative")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "BridgeConfig":
        """The inverse of `to_dict`; an unknown key or a value of a wrong type is a UserError."""
        found: BridgeConfig = from_fields(cls, fields, "bridge config")
        return found
