"""The interval of what all workers repeat, while the database is slow."""

from __future__ import annotations

import pytest

from workers.pace import Pace


def test_the_interval_is_longer_while_operations_are_slow() -> None:
    pace, factors = Pace(expected_s=0.02, most=4), list[float]()
    for seconds in [0.06] * 5 + [1.0] * 5 + [0.001] * 5:
        pace.add(seconds)
        factors.append(round(pace.factor, 6))
    assert factors == [1, 1, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 1, 1, 1]


def test_a_single_slow_operation_changes_nothing() -> None:
    pace = Pace(expected_s=0.02, most=4)
    for seconds in (5.0, 0.01, 0.01, 0.01, 5.0, 0.01, 0.01):
        pace.add(seconds)
        assert pace.factor == 1


def test_only_operations_that_succeed_count() -> None:
    pace = Pace(expected_s=1e-9, most=1e6)

    def fail() -> None:
        with pace.measured():
            raise OSError("gone")

    for _ in range(3):
        with pytest.raises(OSError, match="gone"):
            fail()
    assert pace.factor == 1
    for _ in range(3):
        with pace.measured():
            sum(range(1000))
    assert pace.factor > 1
