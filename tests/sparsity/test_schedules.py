"""Schedules match their formulas at known points."""

import itertools
import math

import pytest

from sparsecircuits.errors import UserError
from sparsecircuits.sparsity.schedules import SparsityConfig, density_at, learning_rate_at

LINEAR = SparsityConfig(density=0.02, anneal="linear", anneal_start=0.01, anneal_end=0.5)
LOG = SparsityConfig(density=0.02, anneal="log", anneal_start=0.01, anneal_end=0.5)


@pytest.mark.parametrize("config", [LINEAR, LOG])
def test_dense_before_and_target_after(config):
    assert density_at(0.0, 0.02, config) == 1
    assert density_at(0.01, 0.02, config) == 1
    assert density_at(0.5, 0.02, config) == 0.02
    assert density_at(1.0, 0.02, config) == 0.02


def test_linear_is_halfway_at_half_time():
    assert density_at(0.255, 0.02, LINEAR) == pytest.approx(0.51)


def test_log_is_straight_on_log_log_axes():
    middle = math.sqrt(0.01 * 0.5)  # halfway in log progress
    assert density_at(middle, 0.02, LOG) == pytest.approx(math.sqrt(0.02))
    assert density_at(0.02, 0.02, LOG) == pytest.approx(math.exp(math.log(0.02) * math.log(2) / math.log(50)))


@pytest.mark.parametrize("config", [LINEAR, LOG])
def test_density_only_falls(config):
    values = [density_at(i / 1000, 0.02, config) for i in range(1001)]
    assert all(a >= b for a, b in itertools.pairwise(values))


def test_sharkfin():
    rate = lambda p, **kw: learning_rate_at(p, 0.01, 0.01, LINEAR, **kw)  # noqa: E731
    assert rate(0.0) == 0
    assert rate(0.005) == pytest.approx(0.005 * math.sqrt(0.02))  # warm-up, still dense
    assert rate(0.005, sharkfin=False) == pytest.approx(0.005)
    assert rate(0.255) == pytest.approx(0.01 * (1 - 0.255) / 0.99 * math.sqrt(0.02 / 0.51))
    assert rate(0.5) == pytest.approx(0.01 * 0.5 / 0.99)  # sparse: the factor is 1
    assert rate(1.0) == pytest.approx(0)


def test_bad_settings_are_named():
    with pytest.raises(UserError, match="density"):
        SparsityConfig(density=0)
    with pytest.raises(UserError, match="anneal_start"):
        SparsityConfig(anneal_start=0.6, anneal_end=0.5)
    with pytest.raises(UserError, match="anneal_start > 0"):
        SparsityConfig(anneal="log", anneal_start=0)
