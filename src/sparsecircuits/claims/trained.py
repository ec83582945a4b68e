"""Models that claims train: small runs, over seeds, kept in the cache so that what is done is not done again."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsecircuits.cache import cache_root
from sparsecircuits.claims.claim import Setting
from sparsecircuits.interop.loading import load_model
from sparsecircuits.models.transformer import SparseTransformer, count_parameters
from sparsecircuits.runs import CONFIG_NAME, METRICS_NAME, WEIGHTS_NAME
from sparsecircuits.training.config import TrainConfig, dense_twin, preset
from sparsecircuits.training.loop import train
from sparsecircuits.training.metrics import read_metrics

STEPS = 1500
"""At scale 1: about 3 million tokens."""
DATA = "tinypython:3000"
DENSE_RATE = 3e-3
"""What dense twins learn best at (docs/log.md); the sparse rate is the preset's."""
Changes = Mapping[str, Any]
"""By part of the config (model, sparsity, optimizer), fields that differ."""


@dataclass(frozen=True)
class Trained:
    """A run that is done."""

    model: SparseTransformer
    loss: float
    """Validation loss, nats a token."""
    nonzeros: int
    seconds: float


def config_of(setting: Setting, seed: int, changes: Changes | None = None, *, dense: bool = False) -> TrainConfig:
    """nano at half its width, 5% of the weights; with other fields, or as its dense twin."""
    config = preset("nano")
    steps = setting.scaled(STEPS, 4)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, d_model=128),
        sparsity=dataclasses.replace(config.sparsity, density=0.05),
        data=DATA,
        steps=steps,
        seed=seed,
        eval_every=steps,
        checkpoint_every=max(1, steps // 4),
        keep_checkpoints=1,
        dtype="float32",
    )
    if dense:
        config = dense_twin(config)
        config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, lr=DENSE_RATE))
    for part, fields in (changes or {}).items():
        config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **fields)})
    return config


def trained(config: TrainConfig, setting: Setting, what: str) -> Trained:
    """The model of a config: from the cache, gone on with where it was stopped, or trained. Raises UserError for a run
    that diverges."""
    folder = run_folder(config)
    if not (folder / WEIGHTS_NAME).exists():
        train(
            config,
            folder,
            resume=(folder / CONFIG_NAME).exists(),
            report=lambda status: setting.tell(f"{what}: {status.describe()}"),
        )
    model, last = load_model(folder), read_metrics(folder / METRICS_NAME)[-1]
    return Trained(model, last["val_loss"], count_parameters(model)[1], last["seconds"])


def run_folder(config: TrainConfig) -> Path:
    """Where the run of a config lies: named by all that decides it."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True, default=str).encode()).hexdigest()[:16]
    return cache_root() / "claims" / digest
