"""A dense table in a byte an entry: each row is whole multiples of a power of two, at most 256 different ones.

Nothing is lost for a table that was `rounded`: a power of two times a small whole number is exact in float32. It is how
the bigram table of a model that ships (16 MB of float32, most of its file) is made small.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

LEVELS = 255
SMALLEST = 2**16
"""Entries below which a table is stored as it is."""
LARGEST = 2**15
"""Of the whole numbers, so that all of them and their steps are exact."""


def rounded(table: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The nearest table that `to_bytes` takes: each row in steps of a power of two, at most a 127th of its range. No
    entry moves by more than half a step."""
    spread = table.amax(dim=1, keepdim=True) - table.amin(dim=1, keepdim=True)
    step = torch.exp2(torch.ceil(torch.log2(spread.clamp(min=2.0**-100) / (LEVELS - 1))))
    step = step.maximum(torch.exp2(torch.ceil(torch.log2(table.abs().amax(dim=1, keepdim=True) / LARGEST))))
    return torch.round(table / step) * step + 0.0  # no negative zeros


def to_bytes(
    table: Float[Tensor, "..."],
) -> tuple[UInt8[Tensor, "rows columns"], Float[Tensor, "rows 2"]] | None:
    """(codes, the step and the lowest value of each row) of a table whose every row is such multiples; None for any
    other. `from_bytes` gives it back to the bit."""
    if table.dtype != torch.float32 or table.dim() != 2 or table.numel() < SMALLEST:
        return None
    low, high = table.amin(dim=1, keepdim=True), table.amax(dim=1, keepdim=True)
    spread = high - low
    if not bool(torch.isfinite(spread).all()) or bool((table.signbit() & (table == 0)).any()):
        return None
    step = torch.exp2(torch.ceil(torch.log2(spread.clamp(min=2.0**-100) / LEVELS)))
    codes = torch.round((table - low) / step)
    if not bool((codes <= LEVELS).all()):
        return None
    rows = torch.cat((step, low), dim=1)
    codes = codes.to(torch.uint8)
    return (codes, rows) if torch.equal(from_bytes(codes, rows), table) else None


def from_bytes(codes: UInt8[Tensor, "rows columns"], rows: Float[Tensor, "rows 2"]) -> Float[Tensor, "rows columns"]:
    """The table that `to_bytes` took."""
    step, low = rows[:, :1], rows[:, 1:]
    return codes.to(torch.float32).mul_(step).add_(low)
