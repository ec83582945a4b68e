"""The Triton kernels compute what the references say, and compile for the GPUs they are for.

Both run in processes of their own: Triton's interpreter must be chosen, or not, before Triton is imported.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
pytest.importorskip("triton")


def run(arguments: list, **environment: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | environment
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def test_kernels_against_the_references():
    interpreter = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    cases = [HERE / name for name in ("triton_cases.py", "triton_held_cases.py")]
    run(["-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", *cases], **interpreter)


def test_kernels_compile_for_a_gpu_that_is_not_here(tmp_path):
    """Triton brings the assembler. Nothing may spill: a row lives in registers."""
    lines = run([HERE / "triton_compile.py", "90"], TRITON_CACHE_DIR=str(tmp_path)).splitlines()
    found = dict(line.split() for line in lines)
    assert len(found) == 12
    assert set(found.values()) == {"0"}
