"""Bisection: the first bad epoch, and how few probes it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client import bisection


@pytest.mark.parametrize("first_bad", range(1, 65))
def test_64_epochs_take_at_most_6_probes(first_bad: int) -> None:
    measured = [(epoch, 0.95 if epoch < first_bad else 0.5) for epoch in range(1, 65)]
    found = bisection.find(measured, [10, 20, 64], metric="val_accuracy", below=0.9)
    assert len(found.probes) <= 6
    assert (found.epoch, found.value, found.times) == (first_bad, 0.5, 1)
    assert found.before == ((first_bad - 1, 0.95) if first_bad > 1 else None)
    assert found.checkpoint == max((epoch for epoch in (10, 20, 64) if epoch < first_bad), default=None)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=70))
def test_what_is_found_is_bad_and_the_one_before_is_good(values: list[float]) -> None:
    measured = list(enumerate(values, 1))
    if values[-1] <= 0.5:
        with pytest.raises(ValueError, match=r"which is not above 0\.5"):
            bisection.find(measured, [], metric="train_loss", above=0.5)
        return
    found = bisection.find(measured, [], metric="train_loss", above=0.5)
    assert found.value > 0.5
    assert found.before is None or found.before[1] <= 0.5
    assert found.times >= 1


def test_a_metric_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="not measured"):
        bisection.find([], [], metric="frechet_distance", above=1)
