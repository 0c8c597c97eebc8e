"""The bootstrap interval and the interquartile mean against scipy-free definitions."""

from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrad.report.statistics import (
    bootstrap_interval,
    interquartile_mean,
    mean_interval,
    over_runs,
    share_interval,
)

numbers = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40)


def repeated(values: list[float]) -> float:
    """The mean of the middle half of n·4 numbers, each value four times: no value is split by a border."""
    x = np.repeat(np.sort(values), 4)
    return float(x[len(values) : 3 * len(values)].mean())


@given(numbers)
def test_interquartile_mean(values: list[float]) -> None:
    assert interquartile_mean(values) == pytest.approx(repeated(values), abs=1e-9)


def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean([100.0, 2.0, 1.0, -50.0]) == 1.5
    assert interquartile_mean([0.0, 6.0, 12.0]) == 6.0
    assert interquartile_mean([9.0, 1.0, 2.0, 3.0, 4.0]) == pytest.approx((0.75 * 2 + 3 + 0.75 * 4) / 2.5)
    assert interquartile_mean([7.0]) == 7.0


@given(numbers)
def test_the_interval_surrounds_the_mean(values: list[float]) -> None:
    low, high = bootstrap_interval(values)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_the_interval_is_that_of_the_normal_approximation() -> None:
    """For many values the percentile bootstrap is mean ± 1.96·std/√n; and ± 1.645 for 90 %."""
    x = np.random.default_rng(3).normal(5.0, 2.0, 400)
    for confidence, z in ((0.95, 1.96), (0.9, 1.645)):
        low, high = bootstrap_interval(x.tolist(), confidence)
        half = z * x.std() / 20
        assert low == pytest.approx(x.mean() - half, abs=0.02)
        assert high == pytest.approx(x.mean() + half, abs=0.02)


def test_it_is_a_function_and_draws_from_nothing_global() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert bootstrap_interval([1.0, 5.0, 2.0]) == bootstrap_interval([1.0, 5.0, 2.0])
    assert (before == np.random.get_state()[1]).all()  # noqa: NPY002
    assert bootstrap_interval([3.0]) == (3.0, 3.0)
    assert bootstrap_interval([2.0] * 5) == (2.0, 2.0)


def test_few_runs_have_no_more_than_they_tell() -> None:
    assert over_runs([3.0]) == {"mean": 3.0}  # an interval over one run would be that run
    assert over_runs([1.0, 5.0]) == {"mean": 3.0, "interval": (1.0, 5.0)}
    five = [1.0, 2.0, 3.0, 4.0, 10.0]
    assert over_runs(five) == {"mean": 4.0, "interval": bootstrap_interval(five), "iqm": 3.0}


def test_coverage() -> None:
    """The interval of 30 values holds the true mean in about 95 of 100 samples (91 to 98 at this size)."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.normal(0.0, 1.0, 30).tolist())
        inside += low <= 0.0 <= high
    assert 0.90 <= inside / 200 <= 0.98


def of_ones(k: int, n: int) -> list[float]:
    return [1.0] * k + [0.0] * (n - k)


@given(st.integers(1, 300), st.data())
def test_the_interval_of_a_share_is_where_the_normal_test_ends(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    for p in share_interval(of_ones(k, n)):
        edge = 1.959963984540054 * sqrt(p * (1.0 - p) / n)
        assert abs(k / n - p) == pytest.approx(edge, abs=1e-7)


def test_none_of_a_hundred_leaves_doubt() -> None:
    assert mean_interval(of_ones(0, 100)) == pytest.approx((0.0, 0.0370), abs=5e-5)
    assert mean_interval(of_ones(100, 100)) == pytest.approx((0.9630, 1.0), abs=5e-5)
    assert mean_interval([0.0, 0.5, 1.0]) == bootstrap_interval([0.0, 0.5, 1.0])


def test_coverage_of_a_share() -> None:
    """Summed over every outcome of 50 throws: 95 of 100 on average over p, and never much less."""
    n, covered = 50, []
    for p in np.linspace(0.01, 0.99, 99):
        inside = [k for k in range(n + 1) if (ends := share_interval(of_ones(k, n)))[0] <= p <= ends[1]]
        covered.append(sum(comb(n, k) * p**k * (1.0 - p) ** (n - k) for k in inside))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)
    assert min(covered) > 0.85
