"""Expected values are SciPy 1.17.1's, to the last digit; tests marked ``reference`` compute them with it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from service.sweeps.statistics import incomplete_beta, interval, p_value, paired, quantile, welch

BEFORE = [0.912, 0.905, 0.9181, 0.9203, 0.9099]
AFTER = [0.9161, 0.9093, 0.9239, 0.9201, 0.9152]


def test_the_paired_t_test_matches_scipy() -> None:
    result = paired(BEFORE, AFTER)
    assert result.difference == pytest.approx(0.00386, rel=1e-12)
    assert result.degrees_of_freedom == 4
    assert (result.t, result.p) == pytest.approx((3.633434049396901, 0.022092612605845597), rel=1e-12)
    assert (result.low, result.high) == pytest.approx((0.0009104272376039496, 0.006809572762396044), rel=1e-12)


def test_the_interval_of_a_paired_test_is_that_of_the_mean_difference() -> None:
    result = paired(BEFORE, AFTER)
    differences = [after - before for before, after in zip(BEFORE, AFTER, strict=True)]
    assert interval(differences) == (result.low, result.high)
    assert interval([0.5]) == (None, None)


def test_welchs_test_matches_scipy() -> None:
    result = welch(BEFORE, AFTER[:3])
    assert (result.t, result.p) == pytest.approx((0.6682067829242134, 0.5428393424071308), rel=1e-12)
    assert (result.low, result.high) == pytest.approx((-0.011014377029798707, 0.017761043696465386), rel=1e-12)


def test_constant_differences_have_an_interval_of_zero_width() -> None:
    same = paired([0.5, 0.25], [0.5, 0.25])
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    shifted = paired([0.5, 0.25], [1.0, 0.75])
    assert (shifted.low, shifted.high, shifted.p, shifted.t) == (0.5, 0.5, 0, math.inf)


@pytest.mark.parametrize("degrees", [0.7, 1, 2, 3.3, 10, 39, 41, 200, 5000])
def test_the_quantile_is_the_inverse_of_the_p_value(degrees: float) -> None:
    for confidence in (0.5, 0.9, 0.95, 0.999):
        assert p_value(quantile(confidence, degrees), degrees) == pytest.approx(1 - confidence, rel=1e-12)


def test_one_degree_of_freedom_gives_the_cauchy_distribution() -> None:
    for t in (1e-9, 0.3, 1.0, 12.7, 1e6):
        assert p_value(t, 1) == pytest.approx(2 / math.pi * math.atan2(1, t), rel=1e-12)


def test_known_values_of_the_incomplete_beta_function() -> None:
    assert [incomplete_beta(2, 3, x) for x in (0, 1)] == [0, 1]
    assert incomplete_beta(1, 1, 0.37) == pytest.approx(0.37, rel=1e-14)


def test_the_false_positive_rate_of_welchs_test_is_about_five_percent() -> None:
    rng = np.random.default_rng(5)
    false_positives = 0
    for _ in range(2000):
        a, b = rng.normal(0.9, 0.01, (2, 5)).tolist()
        result = welch(a, b)
        false_positives += not result.low <= 0 <= result.high
    assert 0.03 < false_positives / 2000 < 0.06  # Welch's test is slightly conservative with five values


@pytest.mark.reference
def test_intervals_and_p_values_match_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(500):
        a = rng.normal(size=rng.integers(2, 40))
        b = a + rng.normal(size=len(a)) * rng.choice([0.01, 0.1, 1]) + rng.choice([0, 0.1, 1])
        c = rng.normal(size=rng.integers(2, 40)) * 3 + 1
        for result, expected in (
            (paired(a.tolist(), b.tolist()), stats.ttest_rel(b, a)),
            (welch(a.tolist(), c.tolist()), stats.ttest_ind(c, a, equal_var=False)),
        ):
            interval = expected.confidence_interval(0.95)
            size = max(abs(interval.low), abs(interval.high))
            assert result.p == pytest.approx(expected.pvalue, abs=1e-12)
            assert (result.low, result.high) == pytest.approx((interval.low, interval.high), abs=1e-12 * size)
