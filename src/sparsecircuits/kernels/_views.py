"""Weights as numpy arrays."""

import numpy as np
from torch import Tensor


def parameter_array(parameter: Tensor) -> np.ndarray:
    """A contiguous CPU tensor's memory as an array, for reading.

    Unlike `Tensor.numpy` it leaves the storage resizable: FSDP frees gathered weights by resizing it.
    """
    return np.from_dlpack(parameter.detach())
