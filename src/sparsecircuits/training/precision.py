"""The loss at a precision, and which precision trains a model faster here."""

import copy
from typing import Literal

import torch
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.sparsity.projection import Projector
from sparsecircuits.sparsity.schedules import SparsityConfig
from sparsecircuits.training.hardware import fast_dtype, shortest_time


def autocast_loss(model: SparseTransformer, inputs: Tensor, targets: Tensor, bfloat16: bool) -> Tensor:
    """Mean cross-entropy in nats of next tokens [B, T], matrix products in bfloat16 if asked for."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
        return model.loss(inputs, targets)


def fastest_dtype(model: SparseTransformer, sparsity: SparsityConfig, ids: Tensor) -> Literal["float32", "bfloat16"]:
    """The autocast type that trains this model faster here. ids: a batch [B, T] as in training.

    On a CPU with fast bfloat16 both are timed on a whole forward and backward pass at the final density:
    products over the nonzeros, in float32, may still win.
    """
    if fast_dtype(model.device, ids.numel(), model.config.d_model) is torch.float32:
        return "float32"
    if model.device.type == "cuda":
        return "bfloat16"
    twin = copy.deepcopy(model)
    Projector(twin, sparsity)(1.0)
    low, single = (
        shortest_time(lambda use=use: autocast_loss(twin, ids, ids, use).backward())  # type: ignore[misc]
        for use in (True, False)
    )
    return "bfloat16" if low < single else "float32"
