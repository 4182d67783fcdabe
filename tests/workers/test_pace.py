"""The interval of what all workers repeat, while the database is slow."""

from __future__ import annotations

import pytest

from workers.pace import Pace


def test_the_interval_is_longer_while_operations_are_slow() -> None:
    pace, factors = Pace(expected_s=0.02, max_slowdown=4), list[float]()
    pace.add(0.01)
    for seconds in [0.06] * 5 + [1.0] * 5 + [0.01] * 5:
        pace.add(seconds)
        factors.append(round(pace.factor, 6))
    assert factors == [1, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 1, 1, 1]


def test_a_single_slow_operation_changes_nothing() -> None:
    pace = Pace(expected_s=0.02, max_slowdown=4)
    for seconds in (5.0, 0.01, 0.01, 0.01, 5.0, 0.01, 0.01):
        pace.add(seconds)
        assert pace.factor == 1


def test_a_distant_database_is_not_a_busy_one() -> None:
    pace = Pace(expected_s=0.02, max_slowdown=4)
    for seconds in (0.11, 0.12, 0.1, 0.11, 0.13, 0.12, 0.11):
        pace.add(seconds)
        assert pace.factor == 1
    for _ in range(5):
        pace.add(0.6)
    assert round(pace.factor, 6) == 3


def test_only_operations_that_succeed_count() -> None:
    pace = Pace(expected_s=1e-9, max_slowdown=1e6)

    def fail() -> None:
        with pace.measured():
            raise OSError("gone")

    for _ in range(3):
        with pytest.raises(OSError, match="gone"):
            fail()
    assert pace.factor == 1
    for count in (1, 100_000, 100_000):
        with pace.measured():
            sum(range(count))
    assert pace.factor > 1
