"""The loss at a precision."""

import torch
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer


def autocast_loss(model: SparseTransformer, inputs: Tensor, targets: Tensor, bfloat16: bool) -> Tensor:
    """Mean cross-entropy in nats of next tokens [B, T], matrix products in bfloat16 if asked for."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
        return model.loss(inputs, targets)
