"""Everything that decides a training run, as frozen dataclasses; presets are functions. Imports no torch."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from sparsecircuits.errors import UserError, no_such
from sparsecircuits.models.config import ModelConfig, from_fields, require_finite
from sparsecircuits.seeds import checked_seed
from sparsecircuits.sparsity.schedules import SparsityConfig


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW on the normalised gradient (Gao et al. 2025, appendix; released script)."""

    lr: float = 1.28e-2
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 0.1
    """Large on purpose: with the normalised gradient the step is nearly SGD with momentum."""
    weight_decay: float = 0.1
    """On matrices only, not on the bigram table, after the projection."""
    warmup: float = 0.01
    """Share of training over which the learning rate rises linearly."""
    sharkfin: bool = True
    """Scale the learning rate by √(L0_final / L0_now)."""
    gradient: Literal["normalise", "clip", "none"] = "normalise"
    """Divide the gradient by its global root-mean-square, clip that to 1, or leave it."""

    def __post_init__(self) -> None:
        require_finite(self, "optimizer.")
        if self.lr <= 0 or self.eps <= 0 or not 0 <= self.beta1 < 1 or not 0 <= self.beta2 < 1:
            raise UserError("optimizer: lr and eps must be positive, betas in [0, 1)")
        if not 0 <= self.warmup < 1 or self.weight_decay < 0:
            raise UserError("optimizer: warmup must be in [0, 1) and weight_decay not negative")


@dataclass(frozen=True)
class TrainConfig:
    """A whole run. Its length is one of `steps`, `tokens`, `minutes`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: str = "stdlib+tinypython"
    """stdlib, tinypython, a folder of Python files (regular ones of up to 1 MB), hf:NAME[:CONFIG][@REVISION][#COLUMN]
    (a streamed Hugging Face dataset, or hf:PATH on disk), or several joined by +; 0.6*stdlib+0.4*tinypython mixes
    by shares of the tokens."""
    shuffle_tokens: int = 1_048_576
    """Tokens of a streamed dataset that are held and shuffled at a time."""
    batch_size: int = 32
    """Sequences of n_ctx tokens per step, over all processes."""
    accumulate: int = 1
    """Micro-batches that a process cuts its part of a batch in: less memory, the same step to rounding."""
    checkpoint_activations: bool = False
    """Keep only what enters each layer and compute the rest again in backward: less memory, more time."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the layers in training; auto: on GPUs."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """Under torchrun with several processes: a replica in each (ddp, auto), or a shard of weights, gradients and
    moments in each (fsdp), for models that one device cannot hold."""
    steps: int | None = None
    tokens: int | None = None
    minutes: float | None = None
    """Train for this long; schedules then follow the clock."""
    bigram_init: Literal["uniform", "counts"] = "uniform"
    """Start of the bigram table: U[0, 0.02), as released, or log-frequencies of the training tokens, so that
    a short run spends none of its steps on what a table can hold."""
    init: str | None = None
    """Begin with the weights of this model (a run, a folder, pretrained:NAME), which has the same shape (it may lack
    `model.offsets`, or have fewer), instead of random ones. With `sparsity.start` given, training is sparse from its
    first step."""
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast type of the matrix products; auto: bfloat16 on a GPU that has it or a CPU
    with AMX, else float32."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    eval_every: int = 250
    """Steps between validation losses."""
    eval_tokens: int = 65_536
    checkpoint_every: int = 250
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    logger: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    """Where metrics go beside metrics.jsonl: one or more loggers (extra: logging)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "logger", tuple(self.logger))  # JSON has lists alone
        object.__setattr__(self, "sparsity", self.sparsity.for_width(self.model.d_model))
        require_finite(self, "")
        checked_seed(self.seed)
        if self.sparsity.start == "given" and self.init is None:
            raise UserError("sparsity.start given keeps the largest weights of a model: name it with init")
        given = [name for name in ("steps", "tokens", "minutes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UserError(f"give one of steps, tokens and minutes, not {' and '.join(given)}")
        for name in given:
            if getattr(self, name) <= 0:
                raise UserError(f"{name} must be positive, got {getattr(self, name)}")
        for name in (
            *("batch_size", "accumulate", "shuffle_tokens", "log_every", "eval_every", "eval_tokens"),
            "checkpoint_every",
            "keep_checkpoints",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.accumulate > self.batch_size:
            raise UserError(f"accumulate {self.accumulate} cuts a batch of {self.batch_size} sequences into nothing")

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step sees."""
        return self.batch_size * self.model.n_ctx

    @property
    def total_steps(self) -> int | None:
        """Number of steps, or None when the clock decides."""
        if self.minutes is not None:
            return None
        if self.tokens is not None:
            return max(1, self.tokens // self.tokens_per_step)
        return self.steps

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "TrainConfig":
        """The inverse of `to_dict`; unknown keys and wrong types are UserErrors."""
        parts = {"model": ModelConfig, "sparsity": SparsityConfig, "optimizer": OptimizerConfig}
        fields = {
            key: from_fields(parts[key], value, f"{key} config") if key in parts else value
            for key, value in raw.items()
        }
        return from_fields(cls, fields, "training config")


PLACED: dict[str, Any] = {"positions": "concat_sinusoidal", "d_pos_emb": 16, "sink": True}
"""Small models need to be told where a token stands: what was opened last is what is open (docs/log.md)."""


def nano() -> TrainConfig:
    """2 layers, d_model 256, 2% of the weights: minutes on two CPU cores.

    From dense: sparse from the start, at half the rate, has the smaller loss at equal time and does fewer tasks
    (docs/log.md).
    """
    return TrainConfig(
        model=ModelConfig(n_layer=2, d_model=256, n_ctx=128, **PLACED),
        sparsity=SparsityConfig(density=0.02, anneal="log", anneal_start=0.02, regrow_every=8),
        optimizer=OptimizerConfig(lr=8e-2),
        bigram_init="counts",
        batch_size=16,
        steps=2_000,
        eval_every=500,
        eval_tokens=32_768,
        checkpoint_every=500,
    )


def micro() -> TrainConfig:
    """4 layers, d_model 512, 1% of the weights: a night on a laptop, minutes on a GPU."""
    return TrainConfig(
        model=ModelConfig(n_layer=4, d_model=512, n_ctx=256, **PLACED),
        sparsity=SparsityConfig(density=0.01, anneal="log", regrow_every=8),
        optimizer=OptimizerConfig(lr=3e-2),
        bigram_init="counts",
        batch_size=32,
        steps=10_000,
    )


def small() -> TrainConfig:
    """8 layers, d_model 1024: one GPU."""
    return TrainConfig(
        model=ModelConfig(n_layer=8, d_model=1024, n_ctx=256),
        sparsity=SparsityConfig(density=1 / 64, embed_density=1 / 16),
        batch_size=256,
        steps=50_000,
    )


def paper() -> TrainConfig:
    """8 layers, d_model 2048, 1/256 of the weights (expansion 8, pfrac 1/4), 32e9 tokens: a cluster."""
    return TrainConfig(
        model=ModelConfig(n_layer=8, d_model=2048, n_ctx=256),
        sparsity=SparsityConfig(density=1 / 256, embed_density=1 / 32),
        batch_size=512,
        tokens=32_000_000_000,
    )


PRESETS = {"nano": nano, "micro": micro, "small": small, "paper": paper}


def preset(name: str) -> TrainConfig:
    """A preset by name. Raises UserError that lists them."""
    if name not in PRESETS:
        raise UserError(no_such("no preset", name, PRESETS))
    return PRESETS[name]()


def dense_twin(config: TrainConfig) -> TrainConfig:
    """The same run without any sparsity: every weight kept, no AbsTopK (the paper's dense baseline)."""
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, afrac=None),
        sparsity=dataclasses.replace(config.sparsity, density=1.0, embed_density=None, pfrac=None, sparsifier="topk"),
    )
