"""Weight sparsity under the stock `Trainer`: our projection after each optimizer step, as a callback."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparsecircuits.sparsity.projection import Projector
from sparsecircuits.sparsity.schedules import SparsityConfig


class SparsityCallback(TrainerCallback):
    """Zeroes all but the largest weights of every matrix after each optimizer step (Gao et al. 2025, section
    2.1), by the schedule of `SparsityConfig`, so that the saved model has the L0 that was asked for.

        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[SparsityCallback()])
    """

    def __init__(self, config: SparsityConfig | None = None) -> None:
        self.config = config or SparsityConfig()
        self._projector: Projector | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Check the goal against the matrices before a step is spent."""
        self._projector = Projector(model, self.config)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Project, at the progress that this step brings the run to."""
        if self._projector is not None:
            with torch.no_grad():
                self._projector(min(1.0, (state.global_step + 1) / max(1, state.max_steps)))
