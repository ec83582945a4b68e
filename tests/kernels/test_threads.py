"""Kernels leave PyTorch's number of threads as it is, and use no more than it."""

import subprocess
import sys

PROGRAM = """
import numba, torch
torch.set_num_threads(1)
from sparsecircuits.kernels import _cpu, abstopk
abstopk(torch.randn(64, 64), 8)
assert torch.get_num_threads() == 1, torch.get_num_threads()
assert numba.get_num_threads() == 1, numba.get_num_threads()
torch.set_num_threads(2)
abstopk(torch.randn(64, 64), 8)
assert torch.get_num_threads() == 2
assert numba.get_num_threads() == min(2, numba.config.NUMBA_NUM_THREADS)
"""


def test_the_number_of_threads_is_pytorchs():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
