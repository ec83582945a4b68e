"""What this machine is fast at, found at run time."""

import contextlib
import ctypes
import time
from collections.abc import Callable

import torch


def keep_freed_memory() -> None:
    """Ask glibc to keep large freed blocks instead of returning them to the system (no-op elsewhere).

    A training step frees and allocates the same tens of megabytes over and over; without this every step
    pays for fresh pages (a linear layer's forward took three times as long on a 2-core Zen 3).
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def shortest_time(function: Callable[[], object], calls: int = 3) -> float:
    """Seconds of the shortest of some calls, after one to warm up."""
    function()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def _seconds(dtype: torch.dtype, rows: int, width: int) -> float:
    x, w = torch.randn(rows, width).to(dtype), torch.randn(4 * width, width).to(dtype)
    return shortest_time(lambda: x @ w.T)


def fast_dtype(device: torch.device, rows: int = 2048, width: int = 256) -> torch.dtype:
    """bfloat16 where matrix products in it are at least 1.5 times as fast as in float32, else float32.

    On a CPU this is measured, since some have bfloat16 units and some emulate them.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    with torch.random.fork_rng(devices=[]):
        faster = _seconds(torch.float32, rows, width) / _seconds(torch.bfloat16, rows, width)
    return torch.bfloat16 if faster >= 1.5 else torch.float32
