"""What this machine is fast at, found at run time."""

import contextlib
import ctypes
from pathlib import Path
from typing import Literal

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


def return_freed_memory() -> None:
    """Give the system back what was freed so far, whatever `keep_freed_memory` asked for (no-op elsewhere)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


CPU_FLAGS = Path("/proc/cpuinfo")
"""Where Linux says what its CPU can do; other systems have no such file."""


def auto_dtype(device: torch.device) -> tuple[Literal["float32", "bfloat16"], str]:
    """The autocast type that `dtype auto` stands for on this hardware, and why.

    Decided by what the hardware has, never by a clock: the same command ends with the same weights however busy the
    machine is. On a CPU only AMX counts: with AVX-512's bfloat16 instructions (EPYC, Zen 5, one thread) a nano step at
    2% density took 205 ms against 200 in float32, whose products run over the nonzeros, and 161 against 194 at best.
    """
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported():
            return "bfloat16", "this GPU has bfloat16 units"
        return "float32", "this GPU has no bfloat16 units"
    if device.type == "cpu" and "amx_bf16" in cpu_flags():
        return "bfloat16", "this CPU has AMX bfloat16 units"
    return "float32", "no AMX bfloat16 units here; --dtype bfloat16 asks for it all the same"


def cpu_flags() -> frozenset[str]:
    """The CPU's features by Linux's names; none elsewhere."""
    try:
        lines = CPU_FLAGS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), ":")
    return frozenset(flags.partition(":")[2].split())
