"""Expected values are SciPy 1.17.1's, to the last digit; tests marked ``reference`` compute them with it."""

from __future__ import annotations

import math
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from service import statistics
from service.statistics import incomplete_beta, interval, mean, p_value, quantile, wilson

BEFORE = [0.912, 0.905, 0.9181, 0.9203, 0.9099]
AFTER = [0.9161, 0.9093, 0.9239, 0.9201, 0.9152]


def paired(a: list[float], b: list[float]) -> statistics.Test:
    result = statistics.paired(a, b)
    assert result is not None
    return result


def welch(a: list[float], b: list[float]) -> statistics.Test:
    result = statistics.welch(a, b)
    assert result is not None
    return result


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


@pytest.mark.parametrize(("correct", "n"), [(30, 30), (0, 5), (27, 30), (1476, 1500), (1, 1)])
def test_the_ends_of_wilsons_interval_differ_from_the_proportion_by_z_standard_errors(correct: int, n: int) -> None:
    low, high = wilson(correct / n, n)
    for end in (low, high):  # the standard error is that of a true proportion at this end
        assert (correct / n - end) ** 2 == pytest.approx(1.959963984540054**2 * end * (1 - end) / n, abs=1e-15)
    assert 0 <= low <= correct / n <= high <= 1
    assert low < high


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


EXTREME = st.one_of(
    st.floats(),
    st.sampled_from([5e-324, -5e-324, 2.2e-308, 1e-200, 1e154, 1e200, -1e308, sys.float_info.max, -sys.float_info.max]),
    st.floats(0.9, 0.91),
)
"""Any float; often a subnormal, one whose square overflows, the largest, and one as of an accuracy."""
GROUPS = st.lists(EXTREME, min_size=2, max_size=5)


def check_test(result: statistics.Test | None, confidence: float = 0.95) -> None:
    if result is None:
        return
    assert all(map(math.isfinite, (result.difference, result.low, result.high, result.degrees_of_freedom)))
    assert result.low <= result.difference <= result.high
    assert 0 <= result.p <= 1
    assert result.degrees_of_freedom >= 1 - 1e-12
    assert not math.isnan(result.t)
    excludes_zero = result.low > 0 or result.high < 0
    # At the border, and where the interval is rounded to subnormal numbers, rounding decides.
    if abs(result.p - (1 - confidence)) > 1e-9 and min(abs(result.low), abs(result.high)) > 1e-300:
        assert excludes_zero is (result.p < 1 - confidence)


@hypothesis.given(GROUPS, GROUPS)
@hypothesis.example([1e200, -1e200], [1e200, 3e200])
@hypothesis.example([1e-170, 2e-170], [3e-170, 5e-170])
@hypothesis.example([5e-324, 5e-324], [0.0, 5e-324])
@hypothesis.example([sys.float_info.max] * 3, [sys.float_info.max] * 2)
@hypothesis.example([-sys.float_info.max] * 3, [sys.float_info.max] * 2)
@hypothesis.example([math.inf, 1.0], [1.0, math.nan])
@hypothesis.example([1e200, 1e200], [1e-200, 3e-200])
def test_welchs_test_of_extreme_values_has_a_result_or_none(a: list[float], b: list[float]) -> None:
    result = statistics.welch(a, b)
    check_test(result)
    if not all(map(math.isfinite, [*a, *b])):
        assert result is None
    elif max(map(abs, [*a, *b])) < 1e306:
        assert result is not None, "only values near the largest float have no result"


@hypothesis.given(st.lists(st.tuples(EXTREME, EXTREME), min_size=2, max_size=5))
@hypothesis.example([(1e200, -1e200), (0.0, 3e200)])
@hypothesis.example([(-1e308, 1e308), (1e308, -1e308)])
@hypothesis.example([(0.0, 5e-324), (0.0, 1e-323)])
@hypothesis.example([(math.inf, math.inf), (1.0, 1.0)])
def test_the_paired_test_of_extreme_values_has_a_result_or_none(pairs: list[tuple[float, float]]) -> None:
    a, b = ([pair[side] for pair in pairs] for side in (0, 1))
    result = statistics.paired(a, b)
    check_test(result)
    if all(abs(value) < 1e306 for value in [*a, *b]):
        assert result is not None
        ends = interval([second - first for first, second in zip(a, b, strict=True)])
        assert ends == (result.low, result.high)


@hypothesis.given(st.lists(EXTREME.filter(math.isfinite), min_size=1, max_size=9))
@hypothesis.example([sys.float_info.max] * 3)
@hypothesis.example([5e-324] * 2)
def test_a_mean_is_between_the_values(values: list[float]) -> None:
    rounding = 4 * math.ulp(max(map(abs, values)))
    assert min(values) - rounding <= mean(values) <= max(values) + rounding
    assert math.isfinite(mean(values))


@hypothesis.given(st.floats(), st.floats(0.5, 1e9))
def test_a_p_value_is_a_probability(t: float, degrees: float) -> None:
    hypothesis.assume(not math.isnan(t))
    assert 0 <= p_value(t, degrees) <= 1


@hypothesis.given(st.floats(0.01, 0.9999), st.floats(0.5, 1e7))
def test_a_quantile_is_finite(confidence: float, degrees: float) -> None:
    assert 0 < quantile(confidence, degrees) < math.inf


@pytest.mark.parametrize("scale", [1.0, 2.0**900, 2.0**-900, 2.0**1000, 2.0**-1000])
def test_the_scale_of_the_values_does_not_affect_the_result(scale: float) -> None:
    a, b = ([scale * value for value in group] for group in (BEFORE, AFTER))
    for test in (paired, welch):
        result, scaled = test(BEFORE, AFTER), test(a, b)
        assert (scaled.t, scaled.p, scaled.degrees_of_freedom) == (result.t, result.p, result.degrees_of_freedom)
        assert (scaled.low, scaled.high) == (scale * result.low, scale * result.high)


@pytest.mark.nightly
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
