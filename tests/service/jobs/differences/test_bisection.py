"""Bisection: the first bad epoch, and the number of probes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import UnusableParameter
from service.jobs.differences import bisection
from service.jobs.differences.bisection import Limit, Measured


@pytest.mark.parametrize("first_bad", range(1, 65))
def test_64_epochs_take_at_most_6_probes(first_bad: int) -> None:
    measured: list[Measured] = [(epoch, 0.95 if epoch < first_bad else 0.5) for epoch in range(1, 65)]
    result = bisection.find(measured, [10, 20, 64], metric="val_accuracy", limit=Limit(below=0.9))
    assert len(result.probes) <= 6
    assert (result.epoch, result.value, result.times) == (first_bad, 0.5, 1)
    assert result.before == ((first_bad - 1, 0.95) if first_bad > 1 else None)
    assert result.checkpoint == max((epoch for epoch in (10, 20, 64) if epoch < first_bad), default=None)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=70))
def test_every_epoch_from_the_first_bad_one_is_bad_and_the_one_before_is_good(values: list[float]) -> None:
    measured: list[Measured] = list(enumerate(values, 1))
    if values[-1] <= 0.5:
        with pytest.raises(UnusableParameter, match=r"not above 0\.5"):
            bisection.find(measured, [], metric="train_loss", limit=Limit(above=0.5))
        return
    result = bisection.find(measured, [], metric="train_loss", limit=Limit(above=0.5))
    assert result.value is not None
    assert min(values[result.epoch - 1 :]) > 0.5
    assert len(result.probes) <= 7
    assert result.before is None or (result.before[1] is not None and result.before[1] <= 0.5)
    assert result.times >= 1


def test_a_metric_that_has_recovered_is_refused_with_its_last_bad_epoch() -> None:
    with pytest.raises(
        UnusableParameter, match=r"epoch 3, the last that measured it: not below 90\.00%; it was last in e.* 2"
    ):
        bisection.find([(1, 0.95), (2, 0.5), (3, 0.95)], [], metric="val_accuracy", limit=Limit(below=0.9))


def test_a_value_that_is_not_finite_is_bad() -> None:
    result = bisection.find([(1, 0.4), (2, None), (3, None)], [1, 2], metric="train_loss", limit=Limit(above=1))
    assert (result.epoch, result.value, result.checkpoint) == (2, None, 1)
    assert result.sentence.startswith("Epoch 2 is the first bad one: train loss not finite, after 0.4 in epoch 1.")


def test_earlier_bad_epochs_and_missing_checkpoints_are_reported() -> None:
    values = {1: 1.086, 2: 1.059, 3: 1.016, 39: 1.003, 40: 1.1}
    measured: list[Measured] = [(epoch, values.get(epoch, 0.9)) for epoch in range(1, 41)]
    result = bisection.find(measured, [10], metric="val_loss", limit=Limit(above=1))
    assert (result.times, result.spans) == (2, [(1, 3), (39, 40)])
    assert result.sentence == (
        "Bad from epoch 39 to the end: val loss 1.003, after 0.9 in epoch 38. It is also bad in epochs 1\N{EN DASH}3. "
        "The last checkpoint before it is that of epoch 10; that of epoch 38 was not kept."
    )


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_the_spans_are_the_bad_epochs(bad: list[bool]) -> None:
    measured: list[Measured] = [(epoch, float(is_bad)) for epoch, is_bad in enumerate([*bad, True], 1)]
    result = bisection.find(measured, [], metric="train_loss", limit=Limit(above=0.5))
    inside = {epoch for first, last in result.spans for epoch in range(first, last + 1)}
    assert inside == {epoch for epoch, value in measured if value}
    assert result.sentence.count("\n") == 0
