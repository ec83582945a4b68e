"""Values of a `.pt` file of plain data, checked before they are used: whatever they claim to be, they are taken
only as channels, numbers or matrices of ordinary size."""

import math
from typing import Any

import torch
from torch import Tensor

MOST_ENTRIES = 1_000_000  # of a list of channels


class DamagedValue(Exception):
    """What is wrong with a value; the reader of the file adds its name."""


def unmasked(value: Any) -> Any:
    """Indices for a mask; anything else as it is."""
    mask = isinstance(value, Tensor) and value.dtype == torch.bool and value.dim() == 1
    return value.nonzero().flatten() if mask and value.numel() <= MOST_ENTRIES else value


def plain(value: Any, what: str) -> Tensor:
    """A tensor of the file as float64 or int64, when it is one of ordinary size."""
    if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.numel() > MOST_ENTRIES**2:
        raise DamagedValue(f"{what} is no plain tensor")
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise DamagedValue(f"{what} is no plain tensor: it repeats its values")
    return value.detach().to(torch.float64 if value.is_floating_point() else torch.int64)


def integers(value: Any, what: str) -> list[int]:
    if isinstance(value, Tensor):
        if value.dim() != 1 or value.is_floating_point() or value.is_complex() or value.numel() > MOST_ENTRIES:
            raise DamagedValue(f"{what} is no list of channels")
        value = plain(value, what).tolist()
    if not isinstance(value, list | tuple) or not all(type(item) is int for item in value):
        raise DamagedValue(f"{what} is no list of channels")
    return list(value)


def scalar(value: Any, what: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, Tensor) and value.numel() == 1:
        value = plain(value, what).item()
    if type(value) not in (int, float) or not math.isfinite(value):
        raise DamagedValue(f"{what} is no finite number")
    return float(value)


def numbers(value: Any, count: int, what: str) -> list[float]:
    if isinstance(value, Tensor):
        value = list(plain(value.flatten(), what).tolist()) if value.numel() == count else []
    if not isinstance(value, list | tuple) or len(value) != count:
        raise DamagedValue(f"{what} does not hold a number for each of {count} channels")
    return [number for item in value if (number := scalar(item, what)) is not None]
