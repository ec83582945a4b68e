"""A process that compiles nothing is spared PyTorch's compiler, and one that compiles has it."""

import subprocess
import sys

from sparsecircuits.interop.pretrained import folder_of

LOADS_AND_RUNS = """
import sys
import torch
import sparsecircuits as sc
model = sc.load_model({folder!r})
assert "torch._dynamo" not in sys.modules, "loading a model imports the compiler"
with torch.no_grad():
    before = model(torch.arange(8)[None])
assert "torch._dynamo" not in sys.modules, "running a model imports the compiler"
import torch._dynamo
with torch.no_grad():
    assert torch.equal(model(torch.arange(8)[None]), before)
"""


def test_loading_and_running_a_model_leaves_the_compiler_out() -> None:
    script = LOADS_AND_RUNS.format(folder=str(folder_of("pretrained:nano")))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
