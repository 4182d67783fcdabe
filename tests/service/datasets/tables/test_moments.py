"""Statistics of columns are right for numbers of any size: compared with exact arithmetic."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.evaluation.metrics import regression_scores
from service.datasets.exploration import statistics
from service.datasets.tables.analysis.leaks import find_leaks
from service.datasets.tables.analysis.moments import moments, ranks
from service.datasets.tables.preprocessing import Preprocessing

LARGEST = sys.float_info.max
NASTY = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 0.1, 1 / 3, 5e-324, -1e-310, 1e-300, 1e154, -1e308, LARGEST, -LARGEST]),
)
COLUMN = [{"name": "x", "type": "number", "missing": 0}]


def exact(values: list[float]) -> tuple[Fraction, Fraction]:
    """The mean and the variance as fractions."""
    numbers = list(map(Fraction, values))
    mean = sum(numbers) / len(numbers)
    return mean, sum((number - mean) ** 2 for number in numbers) / len(numbers)


def is_close(value: float, expected: Fraction, size: Fraction) -> bool:
    """Whether a value is right, apart from rounding and from the smallest float."""
    return abs(Fraction(value) - expected) <= size * Fraction(1e-14) + Fraction(1e-323)


@given(st.lists(NASTY, min_size=1, max_size=30))
@example([0.1] * 1000)
@example([1e-300, 2e-300])
@example([LARGEST, -LARGEST])
@example([5e-324, 0.0])
def test_the_statistics_of_a_column_equal_exact_ones(values: list[float]) -> None:
    (described,) = statistics([np.array(values)[:, None]], COLUMN).columns
    mean, deviation = moments(np.array(values))
    assert (described.mean, described.standard_deviation) == (mean, deviation)
    expected_mean, variance = exact(values)
    largest = max(map(abs, map(Fraction, values)))
    assert min(values) <= mean <= max(values)
    assert is_close(mean, expected_mean, largest)
    # The square root of a fraction, with an integer that has enough digits.
    shift = 1 << 2400
    assert is_close(deviation, Fraction(math.isqrt(int(variance * shift**2)), shift), largest)
    assert (deviation == 0) == (min(values) == max(values) or deviation < 1e-322)
    assert sum(described.histogram or ()) == len(values)
    spans = Fraction(max(values)) - Fraction(min(values))
    if spans > 0:
        assert (described.histogram or [])[-1] >= 1  # the largest value is in the last bin


@pytest.mark.parametrize("values", [[1e-300, 2e-300, 4e-300], [0.0, 5e-324], [1e-160, -1e-160], [3e-310, 1e-310]])
def test_a_target_of_tiny_numbers_is_standardised(values: list[float]) -> None:
    fitted = Preprocessing.fit(COLUMN, np.array(values)[:, None], target="y", targets=np.array(values))
    assert fitted.target is not None
    standardised = (np.array(values) - fitted.target["mean"]) / fitted.target["scale"]
    assert 0.5 <= np.abs(standardised).max() <= 2
    np.testing.assert_allclose(fitted.to_targets(standardised), values, rtol=1e-12, atol=5e-324)


@pytest.mark.parametrize(
    "function",
    [
        lambda y: y * 1e200,
        lambda y: y * 1e-300,
        np.exp,
        lambda y: np.log(y + 30),
        lambda y: -(y**3),
        lambda y: y * 3 + 7,
    ],
    ids=["times 1e200", "times 1e-300", "exp", "log", "-cube", "linear"],
)
def test_a_column_that_is_a_function_of_the_target_is_a_leak(
    function: Callable[[np.ndarray], np.ndarray],
) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(0, 4, 200)
    inputs = np.column_stack([rng.normal(size=200), function(y), y + rng.normal(0, 2, 200)])
    columns = [{"name": name, "type": "number"} for name in ("noise", "copy", "related")]
    assert find_leaks(columns, inputs, y) == ["copy"]
    assert find_leaks(columns, inputs, y * 1e-300) == ["copy"]


def test_equal_numbers_share_their_rank() -> None:
    assert ranks(np.array([5.0, -1.0, 5.0, 7.0])).tolist() == [1.5, 0.0, 1.5, 3.0]


@pytest.mark.parametrize("size", [1e308, 1e154, 1.0, 1e-300])
def test_scores_of_a_regression_have_the_unit_of_the_target_at_any_size(size: float) -> None:
    targets, predictions = np.array([1.0, -1.0, 0.5, 0.25]), np.array([0.5, -1.0, 0.5, 0.75])
    plain, scores = regression_scores(targets, predictions), regression_scores(targets * size, predictions * size)
    for name, value in plain.items():
        assert scores[name] == pytest.approx(value * (1 if name == "r2" else size), rel=1e-12)


def test_the_score_of_an_error_above_the_largest_float_is_infinite() -> None:
    scores = regression_scores(np.array([LARGEST, -LARGEST]), np.array([-LARGEST, LARGEST]))
    assert (scores["rmse"], scores["mae"], scores["r2"]) == (math.inf, math.inf, -3)
