"""What a training can be given by its caller in place of its own parts."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from sparsecircuits.models.transformer import SparseTransformer


class Sampler(Protocol):
    """Where batches come from. Its state goes into every checkpoint, so that a resumed run sees what an uninterrupted
    one would; under torchrun every process has one and all give the same batches."""

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """The next batch: (inputs, targets), int64 [config.batch_size, n_ctx] each."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where it stands: numbers, strings, lists and dicts of these."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state` was taken."""
        ...


class Evaluator(Protocol):
    """Figures of one's own, measured whenever the validation loss is (`config.eval_every`, and at the end)."""

    def __call__(self, model: SparseTransformer) -> Mapping[str, float]:
        """The figures by name, without gradients; they go to metrics.jsonl and the loggers beside the validation
        loss. Every process of a distributed training calls it."""
        ...
