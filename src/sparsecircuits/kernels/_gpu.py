"""Whether the Triton kernels can take a tensor."""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

TYPES = (torch.float32, torch.bfloat16, torch.float16)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def takes(x: Tensor) -> bool:
    """Whether x is on a CUDA device, of a type in `TYPES`, and Triton is installed (PyTorch's CUDA builds for
    Linux bring it)."""
    return x.is_cuda and x.dtype in TYPES and _has_triton()
