"""The Triton kernels compute what the references say, and compile for the GPUs they are for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
pytest.importorskip("triton")


def test_kernels_against_the_references():
    """In a process of its own, which must choose Triton's interpreter before Triton is imported."""
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    arguments = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "ignore",
        "-p",
        "no:cacheprovider",
        HERE / "triton_cases.py",
    ]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
