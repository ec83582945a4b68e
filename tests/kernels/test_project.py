"""The weight projection keeps exactly its budget and never starves a neuron."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.kernels import project_topk_, topk_mask_reference


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(0, 1),
    st.integers(0, 5),
    st.sampled_from([0, 1]),
    st.integers(0, 99),
    st.booleans(),
)
@settings(max_examples=250, deadline=None)
def test_budget_floor_and_reference(rows, columns, density, floor, dim, seed, ties):
    torch.manual_seed(seed)
    weight = torch.randn(rows, columns)
    if ties:
        weight = (weight * 2).round() + 0.5
    k = int(density * weight.numel())
    units, per_unit = weight.shape[1 - dim], weight.shape[dim]
    floor = min(floor, per_unit, k // units)
    kept = project_topk_(weight.clone(), k, floor, dim)
    assert int(kept.count_nonzero()) == k
    assert int(kept.count_nonzero(dim=dim).min()) >= floor
    assert torch.equal(kept, weight * topk_mask_reference(weight, k, floor, dim))


@pytest.mark.parametrize("pattern", ["normal", "heavy tail", "periodic", "two values", "mostly zero"])
@pytest.mark.parametrize("floor", [0, 3])
@pytest.mark.parametrize("dim", [0, 1])
def test_large_matrices_whatever_a_sample_of_them_says(pattern, floor, dim):
    torch.manual_seed(0)
    weight = torch.randn(300, 257)
    if pattern == "heavy tail":
        weight = weight**9
    elif pattern == "periodic":  # entries that a regular sample sees are all tiny
        weight.view(-1)[9::18] *= 1e-20
    elif pattern == "two values":
        weight = weight.sign() * (1 + (weight > 1))
    elif pattern == "mostly zero":
        weight *= torch.rand_like(weight) < 0.01
    for k in (1000, 5000, 50_000):
        kept = project_topk_(weight.clone(), k, floor, dim)
        assert torch.equal(kept, weight * topk_mask_reference(weight, k, floor, dim))


def test_without_a_floor_the_largest_survive():
    weight = torch.randn(50, 70)
    kept = project_topk_(weight.clone(), 100)
    smallest = weight.abs().flatten().sort(descending=True).values[99]
    assert torch.equal(kept != 0, weight.abs() >= smallest)


def test_equal_magnitudes_survive_by_index():
    kept = project_topk_(torch.ones(3, 4), 5)
    assert kept.flatten().tolist() == [1.0] * 5 + [0.0] * 7


def test_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="floor of 3"):
        project_topk_(torch.randn(4, 8), 11, floor=3)
    with pytest.raises(ValueError, match="outside"):
        project_topk_(torch.randn(4, 8), 33)
    with pytest.raises(ValueError, match="matrix"):
        project_topk_(torch.randn(8), 3)


def test_changes_a_parameter_in_place_and_other_types_too():
    weight = torch.nn.Parameter(torch.randn(9, 9, dtype=torch.float64))
    project_topk_(weight.data, 10, 1)
    assert int(weight.count_nonzero()) == 10
    strided = torch.randn(9, 12).T
    assert int(project_topk_(strided, 10, 0).count_nonzero()) == 10


def test_is_a_proper_operator():
    torch.library.opcheck(torch.ops.sparsecircuits.project_topk_.default, (torch.randn(16, 16), 64, 2, 1))
