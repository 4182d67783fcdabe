"""The interval of what all workers repeat, while the database is slow."""

from __future__ import annotations

import pytest

from workers.pace import Pace


def test_the_interval_is_longer_while_operations_are_slow() -> None:
    pace = Pace(expected_s=0.02, most=4)
    assert pace.factor == 1
    factors = []
    for _ in range(8):
        pace.add(0.06)
        factors.append(pace.factor)
    assert factors == sorted(factors)
    assert factors[0] == 1, "a single operation may be slow by chance"
    assert 2 < factors[-1] < 3
    for _ in range(30):
        pace.add(1.0)
    assert pace.factor == 4, "the limit"
    for _ in range(30):
        pace.add(0.001)
    assert pace.factor == 1


def test_only_operations_that_succeed_count() -> None:
    pace = Pace(expected_s=1e-9, most=1e6)

    def fail() -> None:
        with pace.measured():
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fail()
    assert pace.factor == 1
    with pace.measured():
        sum(range(1000))
    assert pace.factor > 1
