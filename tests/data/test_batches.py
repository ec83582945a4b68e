"""Batches: every window once an epoch, exact resume, a fixed validation walk."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.data.batches import BatchSampler, validation_batches
from sparsecircuits.errors import UserError

TOKENS = np.arange(1003, dtype=np.uint16)


def test_shapes_targets_and_determinism() -> None:
    first, second = BatchSampler(TOKENS, 16, 4, seed=1), BatchSampler(TOKENS, 16, 4, seed=1)
    other = BatchSampler(TOKENS, 16, 4, seed=2)
    for _ in range(50):
        inputs, targets = first.next()
        again, _ = second.next()
        assert inputs.shape == targets.shape == (4, 16)
        assert inputs.dtype == targets.dtype == np.int64
        assert np.array_equal(inputs + 1, targets)
        assert np.array_equal(inputs, again)
    assert not np.array_equal(first.next()[0], other.next()[0])


@settings(deadline=None)
@given(st.integers(2, 300), st.integers(1, 40), st.integers(0, 99))
def test_an_epoch_visits_each_window_once(length: int, n_ctx: int, seed: int) -> None:
    tokens = np.arange(length)
    if length < n_ctx + 1:
        with pytest.raises(UserError, match="too few"):
            BatchSampler(tokens, n_ctx, 1, seed)
        return
    sampler = BatchSampler(tokens, n_ctx, 1, seed)
    seen: list[int] = []
    while sampler.epoch == 0:
        seen += sampler.next()[0].ravel().tolist()
        if sampler.position == len(sampler._starts):
            break
    assert len(seen) == len(set(seen)) >= length - 2 * n_ctx
    assert sorted(seen) == list(range(min(seen), max(seen) + 1))


def test_epochs_differ() -> None:
    sampler = BatchSampler(TOKENS, 100, 9, seed=0)
    assert not np.array_equal(sampler.next()[0], sampler.next()[0])


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(1, 7), st.integers(0, 9))
def test_resume_is_exact(steps: int, batch_size: int, seed: int) -> None:
    sampler = BatchSampler(TOKENS, 50, batch_size, seed)
    for _ in range(steps):
        sampler.next()
    state = json.loads(json.dumps(sampler.state_dict()))
    resumed = BatchSampler(TOKENS, 50, batch_size, seed)
    resumed.load_state_dict(state)
    for _ in range(25):
        assert all(np.array_equal(a, b) for a, b in zip(sampler.next(), resumed.next(), strict=True))


def test_resume_refuses_other_data() -> None:
    state = BatchSampler(TOKENS, 50, 2, 0).state_dict()
    for sampler in (
        BatchSampler(TOKENS[:-1], 50, 2, 0),
        BatchSampler(TOKENS, 49, 2, 0),
        BatchSampler(TOKENS, 50, 2, 1),
    ):
        with pytest.raises(UserError, match="cannot resume"):
            sampler.load_state_dict(state)
    with pytest.raises(UserError, match="position"):
        BatchSampler(TOKENS, 50, 2, 0).load_state_dict({**state, "position": 1000})


def test_validation_is_the_same_every_time() -> None:
    batches = list(validation_batches(TOKENS, 10, 8, None))
    assert np.array_equal(np.concatenate([inputs for inputs, _ in batches]).ravel(), np.arange(1000))
    assert all(np.array_equal(inputs + 1, targets) for inputs, targets in batches)
    few = list(validation_batches(TOKENS, 10, 8, 105))
    starts = list(itertools.chain.from_iterable(inputs[:, 0].tolist() for inputs, _ in few))
    assert starts == [100 * i for i in range(10)]
    assert sum(len(inputs) for inputs, _ in validation_batches(TOKENS, 10, 8, 1)) == 1


def test_bad_sizes_are_refused_at_once() -> None:
    with pytest.raises(UserError, match="too few"):
        validation_batches(TOKENS[:10], 10, 1, None)
    with pytest.raises(UserError, match="at least 1"):
        BatchSampler(TOKENS, 0, 1)
