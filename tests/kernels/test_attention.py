"""Causal attention equals its definition in float64, values and gradients."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.kernels.attention import attention_at, attention_reference, causal_attention


@given(
    st.integers(1, 3), st.integers(1, 70), st.integers(1, 4), st.integers(1, 19), st.booleans(),
    st.integers(0, 5), st.sampled_from([0.3, 2.0, 4.0]), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_values_and_gradients(batch, length, heads, width, with_sink, reach, size, seed):
    torch.manual_seed(seed)
    q, k, v = (size * torch.randn(batch, length, heads * width) for _ in range(3))
    sink = torch.randn(heads) if with_sink else None
    offsets = size * torch.randn(heads, reach) if reach else None
    upstream = torch.randn(batch, length, heads * width)
    results = []
    for function, dtype in ((causal_attention, torch.float32), (attention_reference, torch.float64)):
        given = [None if x is None else x.to(dtype, copy=True).requires_grad_() for x in (q, k, v, sink, offsets)]
        leaves = [x for x in given if x is not None]
        y = function(*given[:3], heads, *given[3:])
        y.backward(upstream.to(dtype))
        results.append([y.detach().double(), *(leaf.grad.double() for leaf in leaves)])
    # A probability is exp(score - log-sum), so its relative error is float32's at the size of the scores.
    largest = q.abs().max().item() * k.abs().max().item() * width**0.5
    tolerance = 5e-5 * max(1.0, largest / 20)
    for ours, theirs in zip(*results, strict=True):
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours / scale, theirs / scale, atol=tolerance, rtol=1e-4)


@pytest.mark.parametrize("sink", [None, torch.tensor([500.0, -500.0])])
def test_large_scores_do_not_overflow(sink):
    q = torch.full((1, 40, 8), 80.0, requires_grad=True)
    y = causal_attention(q, q, torch.ones(1, 40, 8), 2, sink)
    y.sum().backward()
    assert y.isfinite().all()
    assert q.grad.isfinite().all()
    torch.testing.assert_close(y, attention_reference(q, q, torch.ones(1, 40, 8), 2, sink))


def test_nan_is_not_hidden():
    q = torch.randn(1, 40, 8)
    q[0, 20, 3] = float("nan")
    y = causal_attention(q, torch.randn(1, 40, 8), torch.randn(1, 40, 8), 2)
    assert y[0, 20, :4].isnan().all()
    assert not y[0, :20].isnan().any()


def test_strided_input_and_other_types():
    q, k, v = torch.randn(2, 33, 72).chunk(3, dim=-1)
    torch.testing.assert_close(causal_attention(q, k, v, 3), attention_reference(q, k, v, 3, None))
    low = causal_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), 3)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), attention_reference(q, k, v, 3, None), atol=0.05, rtol=0.05)


def test_is_a_proper_operator():
    q, k, v = (torch.randn(2, 9, 8, requires_grad=True) for _ in range(3))
    torch.library.opcheck(
        torch.ops.sparsecircuits.causal_attention.default,
        (q, k, v, torch.zeros(2, requires_grad=True), torch.zeros(2, 3, requires_grad=True), 2),
    )


def test_offsets_let_a_head_look_one_token_back():
    v, nothing = torch.randn(1, 12, 4), torch.zeros(1, 12, 4)
    offsets = torch.tensor([[-40.0, 40.0]])
    y = causal_attention(nothing, nothing, v, 1, offsets=offsets)
    torch.testing.assert_close(y[:, 1:], v[:, :-1])
    torch.testing.assert_close(y[:, 0], v[:, 0])


def test_a_query_at_one_place_has_the_offsets_of_that_place():
    q, k, v = (torch.randn(2, 20, 8) for _ in range(3))
    sink, offsets, last = torch.randn(2), torch.randn(2, 4), torch.tensor([2, 19])
    whole = causal_attention(q, k, v, 2, sink, offsets)
    rows = torch.arange(2)
    y = attention_at(q[rows, last].unsqueeze(1), k, v, 2, sink, last, offsets)
    torch.testing.assert_close(y[:, 0], whole[rows, last])


def test_threads_may_call_at_once():
    q, k, v = (torch.randn(4, 50, 32) for _ in range(3))
    expected = causal_attention(q, k, v, 4)
    results = []
    work = lambda: results.append(all(torch.equal(causal_attention(q, k, v, 4), expected) for _ in range(20)))  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4
