"""A scheduler and a worker while the database does not respond: what ``tests/simulation`` cannot tell apart."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from service.jobs import epoch_commits, leases
from service.jobs.rescue import LeaseExpiryPolicy, rescue
from service.states import Status
from service.storage.database import NOW_POSTGRESQL, NOW_SQLITE, Database
from tests.faults.conftest import InProcessHarness, NoSupervisor, outage_error, replace_operation
from tests.service.jobs.leases import renew
from tests.waiting import wait_until


def test_workers_get_one_lease_duration_to_renew_after_an_outage() -> None:
    policy = LeaseExpiryPolicy(lease_s=15)
    rounds = [(0, False), (1, False), (14, False), (15, True), (16, True)]  # after the scheduler's own start
    rounds += [(40, False), (41, False), (54, False), (55, True), (56, True)]  # 24 seconds without a round
    now = 1_800_000_000_000
    assert [policy.allows_rescue(now + 1000 * s) for s, _ in _every_second(rounds)] == [
        allowed for _, allowed in _every_second(rounds)
    ]


def test_workers_get_one_lease_duration_after_the_databases_clock_is_set_back() -> None:
    policy = LeaseExpiryPolicy(lease_s=15)
    hour = 3_600_000
    assert [policy.allows_rescue(now) for now in (0, hour, hour + 1000)] == [False] * 3
    rounds = [(second, policy.allows_rescue(1000 * second)) for second in range(20)]
    assert rounds == [(second, second >= 15) for second in range(20)]


class DatabaseClock:
    """Stops the clock of a database, and sets it forward, for the statements of one engine."""

    def __init__(self, database: Database) -> None:
        self.now_ms = leases.clock(database)
        event.listen(database.engine, "before_cursor_execute", self._shift, retval=True)

    def advance(self, seconds: float) -> None:
        self.now_ms += round(1000 * seconds)

    def _shift(self, connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        for now in (NOW_SQLITE, NOW_POSTGRESQL):
            statement = statement.replace(now, f"CAST({self.now_ms} AS BIGINT)")
        return statement, parameters


@pytest.fixture
def clock(process: InProcessHarness) -> DatabaseClock:
    return DatabaseClock(process.database)


LEASE_S = 60
"""In seconds of the clock that the tests set: it stands still otherwise, no matter how busy the machine is."""


def policies_that_allow_rescue(process: InProcessHarness, clock: DatabaseClock, count: int) -> list[LeaseExpiryPolicy]:
    """The policies of schedulers that have run for the duration of a lease."""
    policies = [LeaseExpiryPolicy(LEASE_S) for _ in range(count)]
    for _ in range(LEASE_S + 1):
        for policy in policies:
            policy.allows_rescue(leases.clock(process.database))
        clock.advance(1)
    return policies


@pytest.mark.parametrize("process", ["sqlite", pytest.param("postgresql", marks=pytest.mark.nightly)], indirect=True)
def test_a_rescue_that_waited_for_the_write_lock_requeues_no_job(
    process: InProcessHarness, clock: DatabaseClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads can continue while others hold the write lock for longer than a lease: only the wait shows it."""
    job_id = process.submit()
    (policy,) = policies_that_allow_rescue(process, clock, 1)
    held = process.claim(LEASE_S)
    for _ in range(LEASE_S - 1):
        clock.advance(1)
        assert rescue(process.database, policy) == [], "probed, but not over"
    begin_write, begun = process.database.write, threading.Event()

    def write() -> Any:
        begun.set()
        return begin_write()

    monkeypatch.setattr(process.database, "write", write)
    with closing(Database(process.database.url)) as blocker, blocker.write() as session:
        session.execute(text("SELECT 1" if blocker.is_sqlite else "LOCK TABLE jobs IN EXCLUSIVE MODE"))
        rescued: list[str] = []
        waiting = threading.Thread(target=lambda: rescued.extend(rescue(process.database, policy)))
        waiting.start()
        begun.wait()
        if not blocker.is_sqlite:
            blocked = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'jobs'::regclass")
            wait_until(lambda: session.scalar(blocked), "the scheduler to wait for the lock")
        clock.advance(LEASE_S)
        assert waiting.is_alive()
    waiting.join()
    assert rescued == []
    renew(process.database, held, None)
    assert process.workers.job(job_id).deaths == 0


def test_a_lease_that_expired_during_an_outage_does_not_count_as_a_loss(
    process: InProcessHarness, clock: DatabaseClock
) -> None:
    """The database responds, but its disk is full: no round is missed, yet the worker cannot renew."""
    job_id = process.submit()
    (policy,) = policies_that_allow_rescue(process, clock, 1)
    held = process.claim(LEASE_S)

    def refuse(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE"):
            raise outage_error()

    event.listen(process.database.engine, "before_cursor_execute", refuse)
    failures = 0
    for _ in range(2 * LEASE_S):
        clock.advance(1)
        try:
            assert rescue(process.database, policy) == []
        except OperationalError:
            failures += 1
    assert failures > LEASE_S
    event.remove(process.database.engine, "before_cursor_execute", refuse)
    assert rescue(process.database, policy) == [], "the worker had no time to renew"
    renew(process.database, held, None)
    renewed_ms, rounds = leases.clock(process.database), 0
    while not rescue(process.database, policy):
        clock.advance(1)
        rounds += 1
        assert rounds < LEASE_S + 3, "whoever is silent then is declared lost when the lease is over"
    assert leases.clock(process.database) - renewed_ms >= 1000 * LEASE_S
    job = process.workers.job(job_id)
    assert (job.status, job.deaths) == (Status.QUEUED, 1)


def seconds_until_rescued(process: InProcessHarness, clock: DatabaseClock, *schedulers: LeaseExpiryPolicy) -> int:
    """Let each scheduler run a round per second, in turn; return after how many seconds a job is rescued."""
    for second in range(4 * LEASE_S):
        for policy in schedulers:
            if rescue(process.database, policy):
                return second
            clock.advance(1 / len(schedulers))
    raise AssertionError("never rescued")


def test_two_schedulers_that_probe_the_same_lease_requeue_its_job(
    process: InProcessHarness, clock: DatabaseClock
) -> None:
    process.submit()
    policies = policies_that_allow_rescue(process, clock, 2)
    process.claim(LEASE_S)
    assert seconds_until_rescued(process, clock, *policies) < LEASE_S + 3


def _every_second(rounds: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
    """Add the rounds in between, one per second, except for the outage."""
    filled: list[tuple[int, bool]] = []
    for second, allowed in rounds:
        while filled and filled[-1][0] + 1 < second and second != 40:
            filled.append((filled[-1][0] + 1, filled[-1][1]))
        filled.append((second, allowed))
    return filled


def test_a_child_that_is_asked_to_stop_while_it_retries_stops(
    process: InProcessHarness,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process.submit()
    endpoint, commit = NoSupervisor(), epoch_commits.commit

    def fail(*_: Any, **__: Any) -> Any:
        endpoint.stop(None)
        raise outage_error()

    replace_operation(monkeypatch, epoch_commits.commit, fail)
    assert process.train(endpoint=endpoint) == "released"
    replace_operation(monkeypatch, epoch_commits.commit, commit)
    assert process.train() == "succeeded"
