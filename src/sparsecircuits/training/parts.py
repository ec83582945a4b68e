"""What a training can be given by its caller in place of its own parts."""

from collections.abc import Mapping
from typing import Protocol

from sparsecircuits.data.mix import Sampler
from sparsecircuits.models.transformer import SparseTransformer

__all__ = ["Evaluator", "Sampler"]


class Evaluator(Protocol):
    """Figures of one's own, measured whenever the validation loss is (`config.eval_every`, and at the end)."""

    def __call__(self, model: SparseTransformer) -> Mapping[str, float]:
        """The figures by name, without gradients; they go to metrics.jsonl and the loggers beside the validation
        loss. Every process of a distributed training calls it."""
