"""The behaviour of workers and the scheduler while the database does not respond."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.exc import OperationalError

from service.errors import LeaseLost
from service.jobs import commits, leases
from service.jobs.rescue import LeaseExpiryPolicy, rescue
from service.states import Status
from service.storage.database import Database
from service.storage.tables import Job
from tests.faults.conftest import InProcess, NoSupervisor, away
from tests.faults.invariants import Reference
from workers import retry
from workers.retry import retry_on_outage
from workers.supervisor import supervisor


@pytest.fixture(autouse=True)
def retry_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "RETRY_INTERVAL_S", 0.01)


def test_what_was_not_answered_is_asked_again() -> None:
    answers: list[Any] = [away(), away(), "done"]

    def ask() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert retry_on_outage(ask, timeout_s=5) == "done"


def test_patience_has_an_end_and_so_has_a_wish_to_leave() -> None:
    def ask() -> None:
        raise away()

    def leave() -> None:
        raise KeyboardInterrupt

    with pytest.raises(OperationalError):
        retry_on_outage(ask, timeout_s=0.05)
    with pytest.raises(KeyboardInterrupt):
        retry_on_outage(ask, timeout_s=60, before_retry=leave)


def test_the_living_get_one_lease_time_after_everything_stood_still() -> None:
    policy = LeaseExpiryPolicy(lease_s=15)
    rounds = [(0, False), (1, False), (14, False), (15, True), (16, True)]  # at its own start
    rounds += [(40, False), (41, False), (54, False), (55, True), (56, True)]  # 24 seconds without a round
    now = 1_800_000_000_000
    assert [policy.allows_rescue(now + 1000 * s) for s, _ in _every_second(rounds)] == [
        allowed for _, allowed in _every_second(rounds)
    ]


def test_the_living_get_one_lease_time_after_the_databases_clock_was_set_back() -> None:
    policy = LeaseExpiryPolicy(lease_s=15)
    hour = 3_600_000
    assert [policy.allows_rescue(now) for now in (0, hour, hour + 1000)] == [False] * 3
    rounds = [(second, policy.allows_rescue(1000 * second)) for second in range(20)]
    assert rounds == [(second, second >= 15) for second in range(20)]


def test_a_rescue_that_waited_for_its_turn_to_write_takes_nobody(process: InProcess) -> None:
    """Reading may go on while others hold the write lock for longer than a lease, so only the wait tells."""
    job_id = process.submit()
    policy = LeaseExpiryPolicy(lease_s=2)
    policy.allows_rescue(leases.clock(process.database) - 2500)  # it came round before, and no lease was over
    held = process.claim(lease_s=2)
    time.sleep(0.1)
    assert rescue(process.database, policy) == [], "called, but not over"
    with closing(Database(process.database.url)) as other, other.write() as session:
        session.execute(text("SELECT 1" if other.is_sqlite else "LOCK TABLE jobs IN EXCLUSIVE MODE"))
        rescued: list[str] = []
        waiting = threading.Thread(target=lambda: rescued.extend(rescue(process.database, policy)))
        waiting.start()
        time.sleep(3.5)
        assert waiting.is_alive()
    waiting.join()
    assert rescued == []
    leases.renew(process.database, held, None)
    assert process.workers.job(job_id).deaths == 0


@pytest.mark.faults
def test_a_lease_that_expired_during_an_outage_does_not_count_as_a_loss(process: InProcess) -> None:
    """The database answers, but its disk is full: no round is missed, and the worker cannot renew."""
    job_id = process.submit()
    policy = LeaseExpiryPolicy(lease_s=2)
    held = process.claim(lease_s=2)
    policy.allows_rescue(leases.clock(process.database) - 2500)

    def refuse(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE"):
            raise away()

    event.listen(process.database.engine, "before_cursor_execute", refuse)
    full_until = time.monotonic() + 3
    failed = 0
    while time.monotonic() < full_until:
        try:
            assert rescue(process.database, policy) == []
        except OperationalError:
            failed += 1
        time.sleep(0.2)
    assert failed > 5
    event.remove(process.database.engine, "before_cursor_execute", refuse)
    assert rescue(process.database, policy) == [], "the worker had no time to renew"
    began = time.monotonic()
    leases.renew(process.database, held, None)
    while not rescue(process.database, policy):
        time.sleep(0.1)
    assert 2 <= time.monotonic() - began < 10, "whoever is silent then is declared lost when the lease is over"
    job = process.workers.job(job_id)
    assert (job.status, job.deaths) == (Status.QUEUED, 1)


def until_taken(process: InProcess, *schedulers: LeaseExpiryPolicy) -> float:
    """Let the schedulers come round in turns; gives how many seconds it took to take a job back."""
    began = time.monotonic()
    while time.monotonic() - began < 15:
        for policy in schedulers:
            if rescue(process.database, policy):
                return time.monotonic() - began
            time.sleep(0.2)
    raise AssertionError("never claimed")


def test_two_schedulers_that_call_the_same_worker_take_its_job_back(process: InProcess) -> None:
    process.submit()
    process.claim(lease_s=3)
    assert until_taken(process, LeaseExpiryPolicy(lease_s=1), LeaseExpiryPolicy(lease_s=1)) < 6


@pytest.mark.faults
def test_a_clock_that_was_set_back_does_not_prolong_a_dead_workers_lease(process: InProcess) -> None:
    """F25: the lease was given before, and its end is far away now."""
    job_id = process.submit()
    process.claim(lease_s=3)
    with process.database.write() as session:
        session.execute(update(Job).values(lease_expires_ms=Job.lease_expires_ms + 3_600_000))
    assert until_taken(process, LeaseExpiryPolicy(lease_s=3)) < 12
    assert process.workers.job(job_id).deaths == 1


def _every_second(rounds: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
    """The scheduler comes round every second: fill in what lies between, but not the outage."""
    filled: list[tuple[int, bool]] = []
    for second, allowed in rounds:
        while filled and filled[-1][0] + 1 < second and second != 40:
            filled.append((filled[-1][0] + 1, filled[-1][1]))
        filled.append((second, allowed))
    return filled


class Cut:
    """Calls a function of the contract, and loses its answer the first time: committed, but nobody was told."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self._cut = function, True

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        answer = self._function(*arguments, **named)
        if self._cut:
            self._cut = False
            raise away()
        return answer


@pytest.mark.parametrize(("module", "write"), [(leases, "begin"), (commits, "commit_epoch")])
def test_a_commit_whose_response_is_lost_is_retried_and_counts_once(
    process: InProcess,
    reference: Reference,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    write: str,
) -> None:
    process.submit()
    monkeypatch.setattr(module, write, Cut(getattr(module, write)))
    assert process.train() == "succeeded"
    process.check(reference)


def test_an_end_whose_answer_is_lost_is_one_end(
    process: InProcess,
    reference: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process.submit()
    monkeypatch.setattr(commits, "succeed", Cut(commits.succeed))
    with pytest.raises(LeaseLost):  # it finds its work done
        process.train()
    process.check(reference)


def test_files_of_a_commit_that_may_have_landed_are_not_removed(
    process: InProcess,
    reference: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer is lost, and before the second try somebody else has the job: the first may name the files."""
    job_id = process.submit()
    held = process.claim()
    commit = commits.commit_epoch

    def commit_and_lose(*arguments: Any, **named: Any) -> Any:
        commit(*arguments, **named)
        leases.record_child_loss(process.database, held, "silent")
        monkeypatch.setattr(commits, "commit_epoch", commit)
        raise away()

    monkeypatch.setattr(commits, "commit_epoch", commit_and_lose)
    with pytest.raises(LeaseLost):
        process.train(held)
    assert process.workers.job(job_id).epoch == 1
    assert process.train() == "succeeded"
    process.check(reference)
    assert not [event for event in process.workers.log(job_id) if event.type == "log"], "no checkpoint was missing"


def test_an_unacknowledged_claim_is_released_and_does_not_count_as_a_loss(process: InProcess) -> None:
    first, second = process.submit(), process.submit()
    unheard, known = process.claim(), process.claim()
    assert leases.release_unacknowledged_claims(process.database, "process", [known]) == [unheard.job_id]
    jobs = [process.workers.job(job_id) for job_id in (first, second)]
    assert [(job.status, job.attempt) for job in jobs] == [(Status.QUEUED, 1), (Status.RUNNING, 1)]
    assert leases.release_unacknowledged_claims(process.database, "another", []) == []


def test_a_supervisor_whose_claim_was_cut_off_looks_for_it_before_the_next(
    process: InProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = process.submit()
    worker = supervisor.Supervisor(process.workers.settings, process.database)
    monkeypatch.setattr(leases, "claim", Cut(leases.claim))
    with pytest.raises(OperationalError):
        worker._claim()
    assert process.workers.job(job_id).status == Status.RUNNING
    held = worker._claim()
    assert held is not None
    job: Job = process.workers.job(job_id)
    assert (held.job_id, held.lease, job.attempt) == (job_id, 2, 1)


def test_a_child_that_is_told_to_stop_while_it_asks_again_stops(
    process: InProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process.submit()
    endpoint, commit = NoSupervisor(), commits.commit_epoch

    def fail(*_: Any, **__: Any) -> Any:
        endpoint.stop(None)
        raise away()

    monkeypatch.setattr(commits, "commit_epoch", fail)
    assert process.train(endpoint=endpoint) == "handed back"
    monkeypatch.setattr(commits, "commit_epoch", commit)
    assert process.train() == "succeeded"


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_a_workers_own_clock_decides_nothing(
    process: InProcess, reference: Reference, monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    """F25: the wall clock of one process jumps by an hour while it trains."""
    process.submit()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    assert process.train() == "succeeded"
    assert rescue(process.database) == []
    monkeypatch.undo()
    process.check(reference)
