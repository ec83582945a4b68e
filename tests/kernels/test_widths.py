"""The products are 16 wide where registers are, else 8 wide: both give what PyTorch gives."""

import os
import subprocess
import sys

import pytest

from sparsecircuits.kernels import _cpu_simd

CODE = """
import llvmlite.binding
real = llvmlite.binding.get_host_cpu_features()
class Narrow(dict):
    flatten = staticmethod(real.flatten)
llvmlite.binding.get_host_cpu_features = lambda: Narrow({**real, "avx512f": False})
import torch
import torch.nn.functional as F
from sparsecircuits.kernels import _cpu_simd, causal_attention, attention_reference, project_topk_, Held, Pattern
from sparsecircuits.kernels import abstopk, gelu_abstopk, held_attention, held_mlp
assert _cpu_simd.WIDE == 8
torch.manual_seed(0)
q, k, v = (torch.randn(2, 37, 48, requires_grad=True) for _ in range(3))
weight = project_topk_(torch.randn(33, 48), 160)
held = Held(Pattern.of(weight), weight.view(-1)[Pattern.of(weight).places].clone().requires_grad_())
full = weight.clone().requires_grad_()
ours = torch.autograd.grad(held.linear(causal_attention(q, k, v, 3)).sin().sum(), (q, k, v, held.values))
theirs = torch.autograd.grad(F.linear(attention_reference(q, k, v, 3, None), full).sin().sum(), (q, k, v, full))
for one, other in zip(ours, (*theirs[:3], theirs[3].view(-1)[held.pattern.places])):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
back = Held(Pattern.of(weight.T), weight.T.reshape(-1)[Pattern.of(weight.T).places].requires_grad_())
x, leaves = q.detach().view(-1, 48).requires_grad_(), (held.values, back.values)
ours = held_mlp(x, held, None, back, None, 9)
theirs = back.linear(gelu_abstopk(held.linear(x), 9))
torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
for one, other in zip(*(torch.autograd.grad(y.sin().sum(), (x, *leaves)) for y in (ours, theirs))):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
weight = project_topk_(torch.randn(72, 48), 400)
attn = Held(Pattern.of(weight), weight.view(-1)[Pattern.of(weight).places].clone().requires_grad_())
weight = project_topk_(torch.randn(33, 24), 160)
proj = Held(Pattern.of(weight), weight.view(-1)[Pattern.of(weight).places].clone().requires_grad_())
x, sink = q.detach().repeat(1, 2, 1).requires_grad_(), torch.randn(2, requires_grad=True)
ours = held_attention(x, attn, None, proj, None, sink, 2, (7, 9, None))
a, b, c = attn.linear(x).chunk(3, dim=-1)
theirs = proj.linear(causal_attention(abstopk(a, 7), abstopk(b, 9), c, 2, sink))
torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
leaves = (x, attn.values, proj.values, sink)
for one, other in zip(*(torch.autograd.grad(y.sin().sum(), leaves) for y in (ours, theirs))):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.slow  # compiles everything once more
@pytest.mark.skipif(_cpu_simd.WIDE == 8, reason="what every other test runs on this CPU")
def test_the_narrow_products_agree_with_pytorch_too(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
