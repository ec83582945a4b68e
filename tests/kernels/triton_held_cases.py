"""The Triton kernels of held weights against plain PyTorch: on a GPU where there is one, else in Triton's interpreter.

Run by test_triton.py in a process of its own. There the operators' CPU kernels give way to those for CUDA, so that
what is tested is the operators: dispatch, gradients and all.
"""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsecircuits.kernels import _gpu, _triton_held, held
from sparsecircuits.kernels.held import Held, Pattern, compressed_product, sampled_product

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 3e-3, torch.float64: 1e-7}
TYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
DENSITIES = st.sampled_from([0.0, 0.05, 0.3, 1.0])
QUICK = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])

if DEVICE.type == "cpu":
    sampled_product.register_kernel("cpu")(held._sampled_on_gpu)
    compressed_product.register_kernel("cpu")(held._product_on_gpu)
    held._embed.register_kernel("cpu")(held._embed_on_gpu)
    held._embed_gradient.register_kernel("cpu")(held._embed_gradient_on_gpu)


@pytest.fixture(autouse=True, scope="module")
def _as_on_a_gpu():
    """Small blocks: several of them in small matrices. On a CPU: the CUDA kernels take its tensors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_triton_held, "_UNITS", 8)
        patch.setattr(_triton_held, "_TOKENS", 32)
        if DEVICE.type == "cpu":
            patch.setattr(_gpu, "takes", lambda x: x.dtype in _gpu.TYPES)
            patch.setattr(torch.cuda, "device", lambda device: nullcontext())
        yield


def holding(rows: int, columns: int, density: float, dtype=torch.float32, seed=0) -> tuple[torch.Tensor, Held]:
    """A matrix and what holds it. If any are nonzero, its first row is full; its second row and column are empty."""
    torch.manual_seed(seed)
    there = torch.rand(rows, columns) < density
    if density:
        there[:1] = True
    there[1:2], there[:, 1:2] = False, False
    weight = (torch.randn(rows, columns) * there).to(DEVICE, dtype)
    pattern = Pattern.of(weight)
    return weight, Held(pattern, weight.reshape(-1)[pattern.places].clone().requires_grad_())


def close(ours: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> None:
    assert ours.shape == exact.shape
    scale = max(float(exact.abs().max()), 1.0) if exact.numel() else 1.0
    torch.testing.assert_close(ours.double() / scale, exact.double() / scale, rtol=0, atol=TOLERANCE[dtype])


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 50), DENSITIES, st.booleans(), TYPES, st.integers(0, 9))
@QUICK
def test_linear_and_its_gradients_are_the_dense_matrix_s(rows, columns, tokens, density, bias, dtype, seed):
    weight, one = holding(rows, columns, density, dtype, seed)
    x, grad, shift = (torch.randn(shape).to(DEVICE, dtype) for shape in ((tokens, columns), (tokens, rows), (rows,)))
    leaves = [x.requires_grad_(), one.values, *([shift.requires_grad_()] if bias else [])]
    y = one.linear(x, shift if bias else None)
    exact = [t.detach().double().requires_grad_() for t in (x, weight, *leaves[2:])]
    expected = F.linear(*exact)
    assert y.dtype == dtype
    close(y, expected, dtype)
    got = torch.autograd.grad(y, leaves, grad)
    wanted = list(torch.autograd.grad(expected, exact, grad.double()))
    wanted[1] = wanted[1].reshape(-1)[one.pattern.places]
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == dtype
        close(a, b, dtype)


@given(st.integers(1, 20), st.integers(1, 70), DENSITIES, st.integers(0, 70), TYPES, st.integers(0, 9))
@QUICK
def test_embedded_rows_and_their_gradient_are_the_dense_matrix_s(rows, width, density, tokens, dtype, seed):
    weight, one = holding(rows, width, density, dtype, seed)
    ids = torch.randint(rows, (2, tokens), device=DEVICE)
    ids[:, : tokens // 2] = 0  # a row that a batch is full of
    grad = torch.randn(2, tokens, width).to(DEVICE, dtype)
    got = one.embed(ids)
    assert torch.equal(got, weight[ids])
    exact = weight.double().requires_grad_()
    (wanted,) = torch.autograd.grad(F.embedding(ids, exact), exact, grad.double())
    (ours,) = torch.autograd.grad(got, one.values, grad)
    assert ours.dtype == dtype
    close(ours, wanted.reshape(-1)[one.pattern.places], dtype)


def test_float32_values_take_part_in_the_type_of_the_activations():
    weight, one = holding(9, 7, 0.5)
    x = torch.randn(2, 5, 7, device=DEVICE).bfloat16().requires_grad_()
    y = one.linear(x)
    assert y.dtype == torch.bfloat16
    close(y, F.linear(x.double(), weight.bfloat16().double()), torch.bfloat16)
    y.sum().backward()
    assert one.values.grad.dtype == torch.float32
    pattern = Pattern.of(torch.ones(1, 2, device=DEVICE))
    rounded = Held(pattern, torch.tensor([1 + 2.0**-9, 1.0], device=DEVICE))
    assert rounded.linear(torch.tensor([[1.0, -1.0]], device=DEVICE).bfloat16()).item() == 0.0


def test_a_turned_batch_of_many_dimensions():
    weight, one = holding(9, 7, 0.5)
    x = torch.randn(7, 3, 2, device=DEVICE).permute(2, 1, 0)
    close(one.linear(x), F.linear(x.double(), weight.double()), torch.float32)
    close(one.transposed_product(one.product(x)), x.double() @ weight.T.double() @ weight.double(), torch.float32)


def test_double_precision_goes_by_the_reference():
    one = holding(5, 4, 0.5, torch.float64)[1]
    x = torch.randn(3, 4, dtype=torch.float64, device=DEVICE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, values: Held(one.pattern, values).linear(x), (x, one.values))
    ids = torch.tensor([0, 4, 0], device=DEVICE)
    rows = held._rows_of(one.pattern.row_starts, one.pattern.columns)
    (got,) = torch.autograd.grad(one.embed(ids).sum(), one.values)
    assert torch.equal(got, ids.bincount()[rows].double())


def test_every_sum_has_the_same_bits_each_time():
    one = holding(12, 20, 0.4)[1]
    x, grad = torch.randn(90, 20, device=DEVICE), torch.randn(90, 12, device=DEVICE)
    ids = torch.randint(3, (90,), device=DEVICE)
    for compute in (
        lambda: one.product(x),
        lambda: sampled_product(grad, x, one.pattern.row_starts, one.pattern.columns),
        lambda: torch.autograd.grad(one.embed(ids), one.values, x)[0],
    ):
        assert torch.equal(compute(), compute())


@pytest.mark.skipif(DEVICE.type == "cuda", reason="the assertion would end the process")
@pytest.mark.parametrize("wrong", [-1, 5])
def test_an_id_that_is_no_row_fails(wrong):
    with pytest.raises(RuntimeError, match=r"outside 0\.\.4"):
        holding(5, 4, 0.5)[1].embed(torch.tensor([wrong]))


def test_nothing_of_the_weight_s_shape_is_made():
    """The largest tensor made has an activation's size; the matrix has a hundred times that."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        entries = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            made = result if isinstance(result, tuple | list) else [result]
            self.entries = max([self.entries, *(t.numel() for t in made if isinstance(t, torch.Tensor))])
            return result

    p = Pattern.of(torch.eye(300, 200, device=DEVICE))
    values, x, grad = (torch.randn(shape, device=DEVICE) for shape in (200, (2, 200), (2, 300)))
    ids = torch.tensor([0, 299], device=DEVICE)
    with Largest() as largest:  # it does not see into operators: these are what they call
        held._product_on_gpu(x, p.row_starts, p.columns, values, None)
        held._product_on_gpu(grad, p.column_starts, p.rows, values[p.order], None)
        held._sampled_on_gpu(grad, x, p.row_starts, p.columns)
        held._embed_on_gpu(ids, values, p.row_starts, p.columns, 200)
        held._embed_gradient_on_gpu(x, ids, p.row_starts, p.columns)
    assert grad.numel() <= largest.entries < 10 * grad.numel()  # Triton's interpreter copies lists, byte by byte
    with Largest() as largest:
        Held(p, values).dense()
    assert largest.entries == 300 * 200


def test_operators_keep_the_library_s_rules():
    one = holding(9, 7, 0.3)[1]
    p = one.pattern
    x, a = torch.randn(4, 7, device=DEVICE), torch.randn(4, 9, device=DEVICE)
    ids, shift = torch.tensor([[0, 3]], device=DEVICE), torch.randn(9, device=DEVICE)
    lists = (p.row_starts, p.columns, p.column_starts, p.rows, p.order)
    check = torch.library.opcheck
    check(held._linear, (x.clone().requires_grad_(), one.values, shift, *lists))
    check(sampled_product, (a, x, p.row_starts, p.columns))
    check(compressed_product, (x, p.row_starts, p.columns, one.values.detach(), None))
    check(held._embed, (ids, one.values, p.row_starts, p.columns, 7))
    check(held._embed_gradient, (torch.randn(2, 7, device=DEVICE), ids[0], p.row_starts, p.columns))
