"""What a GPU runs and a CPU can check: fused attention, chunked cross-entropy, operators under torch.compile."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from sparsecircuits.kernels import abstopk, causal_attention, gate_channels, gelu_abstopk, project_topk_
from sparsecircuits.kernels.attention import attention_reference, fused_attention
from sparsecircuits.kernels.cross_entropy import ChunkedCrossEntropy
from sparsecircuits.kernels.sparse_linear import sparse_linear


@given(st.integers(1, 3), st.integers(1, 30), st.integers(1, 4), st.integers(1, 19), st.booleans(), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_fused_attention_equals_its_definition(batch, length, heads, width, with_sink, seed):
    torch.manual_seed(seed)
    q, k, v = (torch.randn(batch, length, heads * width, dtype=torch.float64, requires_grad=True) for _ in range(3))
    sink = torch.randn(heads, dtype=torch.float64, requires_grad=True) if with_sink else None
    leaves = [x for x in (q, k, v, sink) if x is not None]
    upstream = torch.randn_like(q)
    ours = fused_attention(q, k, v, heads, sink)
    theirs = attention_reference(q, k, v, heads, sink)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(theirs, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_large_sink_is_not_rounded_to_the_inputs_type(dtype):
    """bfloat16 is 0.03 apart at a logit of 6.01; the weight left for the keys would be off by as much."""
    torch.manual_seed(0)
    q, k = (0.01 * torch.randn(2, 20, 32) for _ in range(2))
    v, sink = torch.ones(2, 20, 32), torch.tensor([6.01, -3.013])
    y = fused_attention(q.to(dtype), k.to(dtype), v.to(dtype), 2, sink)
    expected = attention_reference(q, k, v, 2, sink)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=1e-2, atol=0)


@given(st.integers(1, 20), st.booleans(), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_chunked_cross_entropy_equals_the_whole(n, bigram, rows, seed):
    torch.manual_seed(seed)
    hidden, weight, bias, table = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((n, 6), (11, 6), (11,), (11, 11))
    )
    targets, ids = torch.randint(11, (n,)), torch.randint(11, (n,))
    leaves = [hidden, weight, bias, *([table] if bigram else [])]
    ours = ChunkedCrossEntropy.apply(hidden, weight, bias, targets, table if bigram else None, ids, torch.float64, rows)
    logits = F.linear(hidden, weight, bias) + (table[ids] if bigram else 0)
    theirs = F.cross_entropy(logits, targets)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(torch.autograd.grad(3 * ours, leaves), torch.autograd.grad(3 * theirs, leaves), strict=True):
        torch.testing.assert_close(a, b)


def test_chunked_cross_entropy_in_low_precision_keeps_a_float32_loss_and_gradients():
    torch.manual_seed(0)
    hidden = torch.randn(64, 32).bfloat16().requires_grad_()
    weight, bias = torch.randn(50, 32).requires_grad_(), torch.zeros(50)
    targets = torch.randint(50, (64,))
    loss = ChunkedCrossEntropy.apply(hidden, weight, bias, targets, None, targets, torch.bfloat16, 10)
    loss.backward()
    assert loss.dtype == weight.grad.dtype == torch.float32
    assert hidden.grad.dtype == torch.bfloat16
    exact = weight.detach().clone().requires_grad_()
    F.cross_entropy(F.linear(hidden.detach().float(), exact), targets).backward()
    torch.testing.assert_close(weight.grad, exact.grad, atol=2e-3, rtol=0.05)


def _everything(x, weight, gate, sink):
    y = gelu_abstopk(abstopk(x, 5), 7)
    y = sparse_linear(y, weight)
    y = causal_attention(y, y, y, 2, sink)
    return gate_channels(y, gate, torch.zeros_like(gate)).square().sum()


def test_all_operators_compile_into_one_graph():
    torch.manual_seed(0)
    leaves = [torch.randn(shape, requires_grad=True) for shape in ((2, 6, 16), (16, 16), (16,), (2,))]
    plain = _everything(*leaves)
    compiled = torch.compile(_everything, backend="aot_eager", fullgraph=True)(*leaves)
    torch.testing.assert_close(compiled, plain)
    for a, b in zip(torch.autograd.grad(compiled, leaves), torch.autograd.grad(plain, leaves), strict=True):
        torch.testing.assert_close(a, b)


def test_projection_compiles():
    weight = torch.randn(12, 16)
    expected = project_topk_(weight.clone(), 40, 2)

    def step(w):
        return project_topk_(w, 40, 2).sum()

    torch.compile(step, backend="aot_eager", fullgraph=True)(weight)
    assert torch.equal(weight, expected)


@pytest.mark.parametrize(
    ("n", "dtype", "packed"),
    [
        (2048, torch.bfloat16, True),
        (33, torch.float16, True),
        (70_000, torch.float32, False),
        (8, torch.float64, False),
    ],
)
def test_the_compiler_knows_the_packed_mask_of_a_gpu(n, dtype, packed):
    pytest.importorskip("triton")
    with FakeTensorMode():
        x = torch.empty(3, n, dtype=dtype, device="cuda")
        kept, mask = torch.ops.sparsecircuits.abstopk(x, 5)
        grad = torch.ops.sparsecircuits.masked(kept, mask)
    assert kept.shape == grad.shape == x.shape
    assert kept.dtype == grad.dtype == dtype
    assert mask.dtype == (torch.int16 if packed else torch.bool)
    assert mask.shape == ((3, -(-n // 16)) if packed else x.shape)
