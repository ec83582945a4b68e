"""Kernels leave PyTorch's number of threads as it is, and use no more than it."""

import os
import subprocess
import sys
import threading
import time

import torch

from sparsecircuits.errors import UserError
from sparsecircuits.kernels import abstopk

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


def _child() -> int:
    try:
        abstopk(torch.ones(8, 8), 2)
    except UserError as error:
        return 7 if "spawn" in str(error) else 8
    return 9


def test_a_fork_while_kernels_run_neither_dies_nor_hangs():
    x, stop = torch.randn(512, 512), threading.Event()
    wanted = abstopk(x, 8)

    def work():
        while not stop.is_set():
            abstopk(x, 8)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(_child())
            end = time.monotonic() + 20
            while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < end:
                time.sleep(0.01)
            if ended[0] == 0:
                os.kill(child, 9)
                os.waitpid(child, 0)
            assert ended[0] == child, "the child hangs"
            assert os.waitstatus_to_exitcode(ended[1]) == 7
    finally:
        stop.set()
        worker.join()
    assert abstopk(x, 8).equal(wanted)
