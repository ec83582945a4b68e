"""The Triton kernels against the references: on a GPU where there is one, else in Triton's interpreter.

Run by test_triton.py in a process of its own: the interpreter must be chosen before Triton is imported.
"""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsecircuits.kernels import _triton_abstopk, _triton_project, abstopk_reference, topk_mask_reference

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
VALUES = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.0, 1e-40, 6e-8, 3e38, float("inf"), float("-inf"), float("nan")]
)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Several blocks and copies in small matrices, and fewer entries to interpret."""
    monkeypatch.setattr(_triton_project, "_BLOCK", 128)
    monkeypatch.setattr(_triton_project, "_COPIES", 2)


def unpacked(words: torch.Tensor, n: int) -> torch.Tensor:
    bits = (words.int().unsqueeze(-1) >> torch.arange(16, device=words.device)) & 1
    return bits.bool().flatten(-2)[..., :n]


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def rows_of(data, rows: int, n: int, dtype: torch.dtype) -> torch.Tensor:
    kind = data.draw(st.sampled_from(["special", "normal", "ties", "sparse", "spread", "constant"]))
    if kind == "special":
        flat = data.draw(st.lists(VALUES, min_size=rows * n, max_size=rows * n))
        x = torch.tensor(flat, dtype=torch.float64).view(rows, n).to(dtype)
        if dtype is torch.bfloat16 and DEVICE.type == "cpu":  # Triton's interpreter reads its subnormals as 0
            x = torch.where(x.abs() < torch.finfo(dtype).tiny, torch.zeros_like(x), x)
        return x
    x = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(rows, n))
    if kind == "ties":
        x = np.round(2 * x)
    elif kind == "sparse":
        x = x * (x > 1.2)
    elif kind == "spread":
        x = np.sign(x) * np.exp(8 * x)
    elif kind == "constant":
        x = np.full_like(x, 0.3)
    return torch.from_numpy(x).to(dtype)


@given(st.data(), st.integers(1, 3), st.integers(1, 80), TYPES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_abstopk_keeps_what_the_reference_keeps(data, rows, n, dtype):
    x, k = rows_of(data, rows, n, dtype).to(DEVICE), data.draw(st.integers(0, n))
    out, packed = _triton_abstopk.abstopk(x, k)
    _, mask = abstopk_reference(x, k)
    assert packed.shape == (rows, _triton_abstopk.packed_words(n))
    assert torch.equal(unpacked(packed, n), mask)
    assert same(out, torch.where(mask, x, torch.zeros_like(x)))
    grad = torch.randn(rows, n, device=DEVICE).to(dtype)
    assert torch.equal(_triton_abstopk.masked(grad, packed), torch.where(mask, grad, torch.zeros_like(grad)))


@pytest.mark.parametrize("n", [2048, 3000, 8192])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_abstopk_of_wide_rows(n, dtype):
    torch.manual_seed(n)
    x = torch.randn(2, 1, n, device=DEVICE).to(dtype)
    for k in (1, n // 64, n // 4, n - 1):
        out, packed = _triton_abstopk.abstopk(x, k)
        expected, mask = abstopk_reference(x, k)
        assert torch.equal(unpacked(packed, n), mask)
        assert torch.equal(out, expected)
    assert torch.equal(_triton_abstopk.masked(x.transpose(0, 1).transpose(0, 1), packed), expected)


def test_the_mask_ends_with_the_row_and_nothing_is_no_launch():
    x = torch.ones(3, 5, device=DEVICE)
    assert _triton_abstopk.abstopk(x, 5)[1].flatten().tolist() == [0b11111] * 3
    out, packed = _triton_abstopk.abstopk(x[:0], 2)
    assert out.shape == (0, 5)
    assert packed.shape == (0, 1)
    assert _triton_abstopk.masked(out, packed).shape == (0, 5)


@given(st.data(), st.integers(1, 24), st.integers(1, 24), TYPES, st.integers(0, 4), st.sampled_from([0, 1]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_project_keeps_what_the_reference_keeps(data, rows, columns, dtype, floor, dim):
    weight = rows_of(data, rows, columns, dtype).to(DEVICE)
    floor = min(floor, weight.shape[dim])
    k = data.draw(st.integers(max(1, floor * weight.shape[1 - dim]), weight.numel()))
    expected = weight.masked_fill(~topk_mask_reference(weight, k, floor, dim), 0)
    got = weight.clone()
    _triton_project.project(got, k, floor, dim)
    assert same(got, expected)


@given(st.integers(0, 99), TYPES, st.integers(0, 3), st.sampled_from([0, 1]), st.booleans(), st.integers(1, 3))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_shards_of_rows_find_the_threshold_of_the_whole(seed, dtype, floor, dim, ties, parts):
    """What ranks do with the steps: gather the largest keys, sum the counts, count the ties before."""
    torch.manual_seed(seed)
    weight = torch.randn(20, 15, device=DEVICE)
    weight = (torch.round(2 * weight) if ties else weight).to(dtype)
    k = 100
    expected = weight.masked_fill(~topk_mask_reference(weight, k, floor, dim), 0)
    shards = [shard.clone() for shard in weight.tensor_split(parts)]
    firsts = np.cumsum([0, *(len(shard) for shard in shards)])[:-1].tolist()
    keys: list[torch.Tensor | None] = [None] * parts
    if floor:
        found = [
            _triton_project.largest_keys(s, floor, dim, f * (1 - dim)) for s, f in zip(shards, firsts, strict=True)
        ]
        if dim == 1:
            keys = [f[:, -1].contiguous() for f in found]
        else:
            keys = [torch.cat(found, dim=1).topk(floor, dim=1).values[:, -1].contiguous()] * parts
    states = [_triton_project.start(k, DEVICE, key) for key in keys]
    for _ in range(2 if dtype == torch.float32 else 1):
        counts = sum(_triton_project.digit_counts(s, t, dim, f) for s, t, f in zip(shards, states, firsts, strict=True))
        states = [_triton_project.narrow(state, counts) for state in states]
    before = torch.zeros((), dtype=torch.int64, device=DEVICE)
    for shard, state, first in zip(shards, states, firsts, strict=True):
        counts = _triton_project.tie_counts(shard, state, dim, first)
        _triton_project.zero_below(shard, state, counts, dim, first, before)
        before = before + counts.sum()
    assert same(torch.cat(shards), expected)
