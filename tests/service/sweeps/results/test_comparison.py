"""Comparisons of groups with few shared seeds, and of extreme values."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

import hypothesis
import pytest
from hypothesis import strategies as st

from service.features.comparing.schemas import ComparisonAnswer
from service.sweeps.results import comparison, importance
from service.sweeps.results.comparison import ComparedJob, Comparison, Group

METRIC = "val_loss"
LARGEST = sys.float_info.max


def group(label: str, values: Mapping[int, float]) -> Group:
    members = [ComparedJob(job=f"job_{label}{seed}", seed=seed, value=value) for seed, value in values.items()]
    return Group(label=label, jobs=members)


def compare(a: Mapping[int, float], b: Mapping[int, float]) -> Comparison:
    return comparison.compare(METRIC, group("a", a), group("b", b))


@pytest.mark.parametrize(
    ("b", "is_paired", "note"),
    [
        ({7: 0.4, 8: 0.5}, False, "the sides have different seeds, so the values are not paired"),
        ({2: 0.4, 8: 0.5}, False, "the sides share only seed 2, and pairing needs two, so the values are not paired"),
        ({1: 0.4, 2: 0.55, 8: 0.5}, True, "seeds that only one side has are ignored: 3, 8"),
    ],
    ids=["no shared seed", "one", "two"],
)
def test_the_note_names_the_reason_why_values_are_not_paired(
    b: Mapping[int, float], is_paired: bool, note: str
) -> None:
    result = compare({1: 0.1, 2: 0.2, 3: 0.25}, b)
    assert (result.is_paired, result.notes) == (is_paired, [note])
    assert result.test is not None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({1: -LARGEST}, {2: LARGEST}),
        ({1: -LARGEST, 2: -LARGEST}, {1: LARGEST, 2: LARGEST}),
        ({1: -LARGEST, 2: -LARGEST}, {3: LARGEST, 4: LARGEST}),
    ],
    ids=["single", "paired", "unpaired"],
)
def test_values_whose_difference_is_no_number_are_not_compared_and_the_reason_is_named(
    a: Mapping[int, float], b: Mapping[int, float]
) -> None:
    result = compare(a, b)
    assert (result.difference, result.test, result.seeds) == (None, None, ())
    assert result.sentence == "There is nothing to compare: the values of val_loss are too large to compare."


VALUES = st.dictionaries(
    st.integers(0, 5),
    st.one_of(
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from([0.0, 5e-324, 1e-200, 1e200, -1e308, LARGEST, -LARGEST]),
    ),
    max_size=4,
)


@hypothesis.given(VALUES, VALUES)
def test_every_comparison_has_a_sentence_and_a_response(a: Mapping[int, float], b: Mapping[int, float]) -> None:
    result = compare(a, b)
    assert not any(word in result.sentence for word in ("inf", "nan"))
    assert (result.test is None) is (result.why_no_interval is not None)
    answer = ComparisonAnswer.of(result).model_dump(mode="json")
    numbers = [answer["difference"], *(answer["interval"] or ()), *(pair["difference"] for pair in answer["pairs"])]
    numbers += [answer["a"]["mean"], answer["b"]["mean"], answer["t"], answer["p"]]
    assert all(math.isfinite(number) for number in numbers if number is not None)


@hypothesis.given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), min_size=2))
@hypothesis.example([[1e200, 1e200], [-1e200, 3e200]])
@hypothesis.example([[LARGEST, LARGEST], [LARGEST, -LARGEST]])
@hypothesis.example([[5e-324, 0.0], [5e-324, 1e-323]])
def test_the_importance_of_a_setting_with_extreme_results_is_a_fraction(groups: list[list[float]]) -> None:
    share = importance._correlation_ratio(groups)
    assert share is None or 0 <= share <= 1
