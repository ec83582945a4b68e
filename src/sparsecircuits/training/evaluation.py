"""Validation in training: loss and alive neurons, the batches shared out over the processes."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sparsecircuits.data import validation_batches
from sparsecircuits.models.statistics import count_neurons
from sparsecircuits.training.config import TrainConfig
from sparsecircuits.training.engine import Engine


@torch.no_grad()
def validate(
    engine: Engine, tokens: np.ndarray, config: TrainConfig, loss: Callable[[np.ndarray, np.ndarray], Tensor]
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Validation loss in nats a token, and how many of the MLP neurons were ever nonzero on that text; beside these
    figures, which units were (`dead_units`).

    tokens: validation ids, of which `config.eval_tokens` are read in batches of a micro-batch's size. loss: of
    inputs and targets [B, T]. All processes call it and get the same figures.
    """
    world = engine.world
    rows = max(1, config.batch_size // (world.size * config.accumulate))
    batches = list(validation_batches(tokens, config.model.n_ctx, rows, config.eval_tokens))
    total, size = 0.0, 0.0
    with engine.uncompiled(), count_neurons(engine.model) as neurons:
        # Every process takes its turn in every round, since sharded weights are gathered together.
        for begin in range(0, len(batches), world.size):
            mine = begin + world.rank
            x, y = batches[mine % len(batches)]
            mean = loss(x, y).item()
            if mine < len(batches):
                total, size = total + mean * y.size, size + y.size
    total, size = world.total(total, size)
    neurons.units = {site: world.sum_(fired.int()) > 0 for site, fired in neurons.units.items()}
    return {"val_loss": total / size, "alive_neurons": neurons.alive, "neurons": neurons.total}, neurons.units
