"""Comparisons of groups with few shared seeds."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from service.sweeps import comparison
from service.sweeps.comparison import Comparison, Group, Member

METRIC = "val_loss"


def group(label: str, values: Mapping[int, float]) -> Group:
    members = [Member(job_id=f"job_{label}{seed}", seed=seed, value=value) for seed, value in values.items()]
    return Group(label=label, members=members)


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
