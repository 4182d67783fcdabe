"""Claims of jobs, and their leases: lost, handed back, and reclaimed from lost workers."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import update

from service.errors import LeaseLost
from service.jobs import actions, commits, leases, worker_registry
from service.jobs.leases import Claim, Position
from service.jobs.rescue import rescue
from service.states import Request, Status
from service.storage.database import Database
from service.storage.tables import Job, Worker
from tests.service.jobs.conftest import Submit, claim, commit, log, read_job, record


def reasons(database: Database, job_id: str) -> list[str]:
    return [data["reason"] for kind, data in log(database, job_id) if kind == "status"]


def test_nothing_waits_nothing_is_claimed(database: Database) -> None:
    assert leases.claim(database, "w", 15) is None


def test_the_highest_priority_goes_first_then_the_oldest(database: Database, submit: Submit) -> None:
    ids = {name: submit(priority=priority) for name, priority in [("old", 5), ("low", 0), ("high", 9), ("new", 5)]}
    order = [claim(database).job_id for _ in ids]
    assert order == [ids[name] for name in ("high", "old", "new", "low")]


def test_a_claim_takes_the_next_lease_number_and_never_the_same_twice(database: Database, submit: Submit) -> None:
    submit()
    numbers = []
    for _ in range(3):
        held = claim(database)
        numbers.append(held.lease)
        leases.release_lease(database, held, None)
    assert numbers == [1, 2, 3]


def test_many_workers_at_once_claim_each_job_once(database: Database, submit: Submit) -> None:
    wanted = {submit() for _ in range(20)}
    claimed: list[str] = []

    def work(name: str) -> None:
        while (held := leases.claim(database, name, 15)) is not None:
            claimed.append(held.job_id)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while (held := leases.claim(database, "last", 15)) is not None:  # rows that were locked at that moment
        claimed.append(held.job_id)
    assert sorted(claimed) == sorted(wanted)


WRITES: dict[str, Callable[[Database, Claim], object]] = {
    "begin": lambda database, held: leases.begin(database, held, {}),
    "renew": lambda database, held: leases.renew(database, held, None),
    "requested": leases.requested,
    "commit_epoch": lambda database, held: commit(database, held, record(1)),
    "log": lambda database, held: commits.log(database, held, "info", "c", "m"),
    "succeed": lambda database, held: commits.succeed(database, held, "sha256:x"),
    "fail": lambda database, held: commits.fail(database, held, {"code": "internal", "message": "m"}),
    "release_lease": lambda database, held: leases.release_lease(database, held, None),
    "record_child_loss": lambda database, held: leases.record_child_loss(database, held, "m"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_worker_whose_job_went_to_another_writes_nothing(
    database: Database, submit: Submit, write: Callable[[Database, Claim], object]
) -> None:
    job_id = submit()
    stale = claim(database, "slow")
    leases.record_child_loss(database, stale, "gone")
    current = claim(database, "quick")
    before = log(database, job_id)
    with pytest.raises(LeaseLost):
        write(database, stale)
    assert log(database, job_id) == before
    assert leases.renew(database, current, None) is None


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_after_the_end_nothing_is_written(
    database: Database, submit: Submit, write: Callable[[Database, Claim], object]
) -> None:
    job_id = submit()
    held = claim(database)
    commits.succeed(database, held, "sha256:done")
    before = log(database, job_id)
    with pytest.raises(LeaseLost):
        write(database, held)
    assert log(database, job_id) == before
    assert [kind for kind, _ in before].count("end") == 1


def test_a_request_is_noticed_at_the_next_poll(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    assert leases.requested(database, held) is None
    actions.pause(database, job_id)
    assert leases.requested(database, held) is Request.PAUSE
    actions.cancel(database, job_id)
    assert leases.renew(database, held, Position(step=3, steps=40)) is Request.CANCEL


@pytest.mark.parametrize(
    ("request_", "status"),
    [(None, Status.QUEUED), (Request.PAUSE, Status.PAUSED), (Request.CANCEL, Status.CANCELLED)],
)
def test_letting_go_throws_the_unfinished_epoch_away(
    database: Database, submit: Submit, request_: Request | None, status: Status
) -> None:
    job_id = submit()
    held = claim(database)
    commit(database, held, record(1))
    leases.renew(database, held, Position(step=17, steps=40))
    leases.release_lease(database, held, request_)
    job = read_job(database, job_id)
    assert (job.status, job.step, job.epoch, job.attempt, job.requested) == (status, 10, 1, 1, None)
    assert job.lease_owner is None


def test_a_lost_worker_costs_an_attempt_and_nothing_else(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    commit(database, held, record(1))
    leases.record_child_loss(database, held, "killed")
    job = read_job(database, job_id)
    assert (job.status, job.attempt, job.epoch) == (Status.QUEUED, 2, 1)


def test_three_deaths_without_an_epoch_between_them_fail_the_job(database: Database, submit: Submit) -> None:
    job_id = submit()
    for _ in range(2):
        leases.record_child_loss(database, claim(database), "killed")
    held = claim(database)
    commit(database, held, record(1))  # it lives: the count begins anew
    for _ in range(2):
        leases.record_child_loss(database, held, "killed")
        held = claim(database)
    leases.record_child_loss(database, held, "killed")
    job = read_job(database, job_id)
    assert job.status == Status.FAILED
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert actions.retry(database, job_id).attempt == 6


def test_the_jobs_of_a_silent_worker_are_taken_back_when_their_lease_is_over(
    database: Database, submit: Submit
) -> None:
    silent, alive = submit(priority=9), submit()
    held = claim(database, "silent", lease_s=30)
    other = claim(database, "alive", lease_s=30)
    assert (held.job_id, other.job_id) == (silent, alive)
    assert rescue(database) == []
    with database.write() as session:  # its time is over
        session.execute(update(Job).where(Job.id == silent).values(lease_expires_ms=1))
    assert rescue(database) == [silent]
    assert read_job(database, silent).status == Status.QUEUED
    assert read_job(database, alive).status == Status.RUNNING
    assert "silent" in reasons(database, silent)[-1]


def test_a_cancel_is_obeyed_even_when_the_worker_dies_first(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    actions.cancel(database, job_id)
    leases.record_child_loss(database, held, "killed")
    assert read_job(database, job_id).status == Status.CANCELLED


def test_a_cancel_is_obeyed_even_when_the_worker_stops_in_that_moment(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    actions.cancel(database, job_id)
    leases.release_lease(database, held, None)
    assert read_job(database, job_id).status == Status.CANCELLED


def test_another_machine_is_put_on_record(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    leases.begin(database, held, {"numpy": "1", "threads": 1})
    leases.release_lease(database, held, None)
    held = claim(database)
    leases.begin(database, held, {"numpy": "1", "threads": 1})
    assert [kind for kind, _ in log(database, job_id)].count("log") == 0
    leases.release_lease(database, held, None)
    leases.begin(database, claim(database), {"numpy": "2", "threads": 1})
    kind, data = log(database, job_id)[-1]
    assert (kind, data["code"]) == ("log", "mixed_provenance")
    assert "numpy" in data["message"]


def test_a_worker_that_checks_in_is_alive(database: Database) -> None:
    def worker(running: int) -> Worker:
        return Worker(id="w", host="h", pid=1, slots=2, running=running, draining=False)

    worker_registry.record_heartbeat(database, worker(0))
    worker_registry.record_heartbeat(database, worker(1))
    with database.read() as session:
        assert [found.running for found in worker_registry.live_workers(session)] == [1]
