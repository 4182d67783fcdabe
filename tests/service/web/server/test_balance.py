from __future__ import annotations

import pytest

from service.web.server import balance
from service.web.server.balance import YIELD_S, AcceptThrottle, ConnectionCounts


@pytest.fixture
def counts() -> ConnectionCounts:
    return ConnectionCounts()


def test_a_single_process_never_yields(counts: ConnectionCounts) -> None:
    counts.set(1, 500)
    assert not AcceptThrottle(1, counts).should_yield(500)


def test_a_process_with_more_connections_yields_until_the_other_has_as_many(counts: ConnectionCounts) -> None:
    counts.set(1, 9)
    counts.set(2, 3)
    throttle = AcceptThrottle(1, counts)
    assert throttle.should_yield(9)
    assert 0 < throttle.remaining_s(9) <= YIELD_S
    counts.set(2, 9)
    assert throttle.remaining_s(9) == 0
    assert not throttle.should_yield(9)


def test_a_process_with_fewer_connections_does_not_yield(counts: ConnectionCounts) -> None:
    counts.set(1, 9)
    counts.set(2, 3)
    assert not AcceptThrottle(2, counts).should_yield(3)


def test_a_small_difference_does_not_cause_a_yield(counts: ConnectionCounts) -> None:
    counts.set(2, 100)
    assert not AcceptThrottle(1, counts).should_yield(113)
    assert AcceptThrottle(1, counts).should_yield(114)


def test_a_process_that_accepts_nothing_gets_one_chance_and_later_another(
    counts: ConnectionCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(balance.time, "monotonic", lambda: now)
    counts.set(2, 0)
    throttle = AcceptThrottle(1, counts)
    assert throttle.should_yield(5)
    assert throttle.remaining_s(5) == pytest.approx(YIELD_S)
    now += YIELD_S
    assert throttle.remaining_s(5) == 0
    assert not throttle.should_yield(5), "the other one is busy: take the next at once"
    assert not throttle.should_yield(50)
    now += 1
    assert throttle.should_yield(50), "later, it gets another chance"


def test_a_process_that_ended_is_not_waited_for(counts: ConnectionCounts) -> None:
    counts.set(2, 0)
    counts.remove(2)
    assert not AcceptThrottle(1, counts).should_yield(5)
