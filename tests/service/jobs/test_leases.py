"""Claims of jobs and their leases: lost, released, and reclaimed from lost workers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text, update

from service.errors import LeaseLost
from service.jobs import actions, epoch_commits, events, leases, renewals, worker_registry
from service.jobs.leases import Claim, Position, Usage
from service.jobs.renewals import Renewal
from service.jobs.rescue import rescue
from service.jobs.reuse import sources
from service.states import MachineFaultReason, Request, Status
from service.storage.database import Database
from service.storage.tables import Job, Worker
from tests.conftest import postgresql_only
from tests.service.jobs.conftest import Submit, claim, commit, log, read_job, record
from tests.service.jobs.leases import WRITES, renew, requested


def reasons(database: Database, job_id: str) -> list[str]:
    return [data["reason"] for kind, data in log(database, job_id) if kind == "status"]


def test_an_empty_queue_gives_no_claim(database: Database) -> None:
    assert leases.claim(database, "w", 15) is None


def test_jobs_are_claimed_by_priority_then_by_age(database: Database, submit: Submit) -> None:
    ids = {name: submit(priority=priority) for name, priority in [("old", 5), ("low", 0), ("high", 9), ("new", 5)]}
    order = [claim(database).job_id for _ in ids]
    assert order == [ids[name] for name in ("high", "old", "new", "low")]


def test_each_claim_of_a_job_gets_the_next_lease_number(database: Database, submit: Submit) -> None:
    submit()
    numbers = []
    for _ in range(3):
        held = claim(database)
        numbers.append(held.lease)
        leases.release_lease(database, held, None)
    assert numbers == [1, 2, 3]


def test_concurrent_workers_claim_each_job_once(database: Database, submit: Submit) -> None:
    job_ids = {submit() for _ in range(20)}
    claimed: list[str] = []

    def work(name: str) -> None:
        while (held := leases.claim(database, name, 15)) is not None:
            claimed.append(held.job_id)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while (held := leases.claim(database, "last", 15)) is not None:  # rows that were locked when the workers looked
        claimed.append(held.job_id)
    assert sorted(claimed) == sorted(job_ids)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_worker_that_has_lost_its_lease_writes_nothing(
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
    assert renew(database, current, None) is None


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_nothing_is_written_after_the_end_of_a_job(
    database: Database, submit: Submit, write: Callable[[Database, Claim], object]
) -> None:
    job_id = submit()
    held = claim(database)
    epoch_commits.succeed(database, held, "sha256:done")
    before = log(database, job_id)
    with pytest.raises(LeaseLost):
        write(database, held)
    assert log(database, job_id) == before
    assert [kind for kind, _ in before].count("end") == 1


def test_a_request_is_noticed_at_the_next_poll(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    assert requested(database, held) is None
    actions.pause(database, job_id)
    assert requested(database, held) is Request.PAUSE
    actions.cancel(database, job_id)
    assert renew(database, held, Position(step=3, steps=40)) is Request.CANCEL


def test_all_leases_of_a_worker_are_renewed_by_one_statement(database: Database, submit: Submit) -> None:
    ids = [submit() for _ in range(4)]
    held = {claim.job_id: claim for claim in (claim(database) for _ in ids)}
    lost, paused, silent, busy = (held[job_id] for job_id in ids)
    leases.record_child_loss(database, lost, "gone")
    actions.pause(database, paused.job_id)
    statements: list[str] = []

    def count(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.extend([statement] if statement.startswith("UPDATE jobs") else [])

    event.listen(database.engine, "before_cursor_execute", count)
    pending = renewals.renew(
        database,
        [
            Renewal(claim=lost, position=Position(step=39, steps=40)),
            Renewal(claim=paused),
            Renewal(claim=silent, used=Usage(cpu_seconds=3.5, peak_memory_bytes=2**40)),
            Renewal(claim=busy, position=Position(step=7, steps=40, steps_per_second=2.5)),
        ],
    )
    expected = renewals.Pending({paused: Request.PAUSE, silent: None, busy: None}, frozenset({lost}))
    assert pending == expected
    assert len(statements) == 1
    rows = {job_id: read_job(database, job_id) for job_id in ids}
    assert rows[lost.job_id].step == 0
    assert (rows[silent.job_id].cpu_seconds, rows[silent.job_id].peak_memory_bytes) == (3.5, 2**40)
    assert (rows[silent.job_id].step, rows[silent.job_id].steps_per_second) == (0, None)
    assert (rows[busy.job_id].step, rows[busy.job_id].steps_per_second) == (7, 2.5)
    assert renewals.requested(database, list(held.values())) == expected


@postgresql_only
def test_a_renewal_does_not_wait_for_a_job_that_is_written(database: Database, submit: Submit) -> None:
    ids = [submit(), submit()]
    first, second = (claim(database) for _ in ids)
    with database.write() as session:
        leases.guard(session, first)
        pending = renewals.renew(database, [Renewal(claim=first), Renewal(claim=second)])
        assert pending == renewals.Pending({second: None}, frozenset())
    assert renewals.renew(database, [Renewal(claim=first)]) == renewals.Pending({first: None}, frozenset())


@pytest.mark.parametrize(
    ("request_", "status"),
    [(None, Status.QUEUED), (Request.PAUSE, Status.PAUSED), (Request.CANCEL, Status.CANCELLED)],
)
def test_releasing_a_lease_discards_the_unfinished_epoch(
    database: Database, submit: Submit, request_: Request | None, status: Status
) -> None:
    job_id = submit()
    held = claim(database)
    commit(database, held, record(1))
    renew(database, held, Position(step=17, steps=40))
    leases.release_lease(database, held, request_)
    job = read_job(database, job_id)
    assert (job.status, job.step, job.epoch, job.attempt, job.requested) == (status, 10, 1, 1, None)
    assert job.lease_owner is None


def test_a_late_report_does_not_take_progress_back(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    commit(database, held, record(1))
    renew(database, held, Position(step=9, steps=40))
    assert read_job(database, job_id).step == 10
    renew(database, held, Position(step=11, steps=40))
    assert read_job(database, job_id).step == 11


def test_a_lost_worker_costs_one_attempt_and_no_completed_epoch(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    commit(database, held, record(1))
    leases.record_child_loss(database, held, "killed")
    job = read_job(database, job_id)
    assert (job.status, job.attempt, job.epoch) == (Status.QUEUED, 2, 1)


def test_three_worker_losses_without_a_completed_epoch_fail_the_job(database: Database, submit: Submit) -> None:
    job_id = submit()
    for _ in range(2):
        leases.record_child_loss(database, claim(database), "killed")
    held = claim(database)
    commit(database, held, record(1))  # a completed epoch resets the count
    for _ in range(2):
        leases.record_child_loss(database, held, "killed")
        held = claim(database)
    leases.record_child_loss(database, held, "killed")
    job = read_job(database, job_id)
    assert job.status == Status.FAILED
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert actions.retry(database, job_id).attempt == 6


def test_faults_of_machines_fail_a_job_that_has_had_five_without_a_completed_epoch(
    database: Database, submit: Submit
) -> None:
    error = {"code": "memory", "message": "out of memory"}

    def fails(held: Claim) -> bool:
        return leases.release_for_fault(database, held, MachineFaultReason.MEMORY, error, store_timeout_s=600)

    another_id = submit(priority=8)
    held = claim(database)
    for epoch in range(1, 16):
        commit(database, held, record(epoch))
    assert not fails(held)
    assert not any(fails(claim(database)) for _ in range(3))
    job_id = submit(priority=9)
    assert not any(fails(claim(database)) for _ in range(4)), "neither the faults of another job count, nor its epochs"
    held = claim(database)
    commit(database, held, record(1))
    assert not fails(held), "an epoch starts the count again"
    assert [fails(claim(database)) for _ in range(4)] == [False, False, False, True]
    job = read_job(database, job_id)
    assert (job.status, job.attempt, job.error) == (Status.FAILED, 1, error)
    assert read_job(database, another_id).status == Status.QUEUED
    actions.retry(database, job_id)
    assert not fails(claim(database)), "a retry starts it, too"


def test_a_silent_workers_job_is_requeued_after_lease_expiry(database: Database, submit: Submit) -> None:
    silent_id, alive_id = submit(priority=9), submit()
    held = claim(database, "silent", lease_s=30)
    other_claim = claim(database, "alive", lease_s=30)
    assert (held.job_id, other_claim.job_id) == (silent_id, alive_id)
    assert rescue(database) == []
    with database.write() as session:  # let the lease expire
        session.execute(update(Job).where(Job.id == silent_id).values(lease_expires_ms=1))
    assert rescue(database) == [silent_id]
    assert read_job(database, silent_id).status == Status.QUEUED
    assert read_job(database, alive_id).status == Status.RUNNING
    lost = log(database, silent_id)[-1][1]
    assert (lost["reason"], lost["message"]) == ("lost", "worker silent timed out")


def test_a_cancel_request_is_honoured_if_the_worker_dies_first(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    actions.cancel(database, job_id)
    leases.record_child_loss(database, held, "killed")
    assert read_job(database, job_id).status == Status.CANCELLED


def test_a_cancel_request_is_honoured_if_the_worker_stops_at_that_moment(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    actions.cancel(database, job_id)
    leases.release_lease(database, held, None)
    assert read_job(database, job_id).status == Status.CANCELLED


def test_a_change_of_provenance_is_logged(database: Database, submit: Submit) -> None:
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
    with database.read() as session:
        assert events.mixed_provenance(session, job_id) == [data["message"]]


def test_a_provenance_stored_under_the_former_name_of_the_reference_classifier_is_equal(
    database: Database, submit: Submit
) -> None:
    job_id = submit()
    held = claim(database)
    now = {"code": "sha256:now", "dataset": "sha256:data", "reference_classifier": "sha256:a"}
    leases.begin(database, held, now)
    stored = json.dumps({"judge" if name == "reference_classifier" else name: value for name, value in now.items()})
    with database.write() as session:
        session.execute(text("UPDATE jobs SET provenance = :stored"), {"stored": stored})
    job = read_job(database, job_id)
    assert (job.provenance, sources._equal(job.provenance, now)) == (now, True)
    assert sources._equal(job.provenance, now | {"reference_classifier": "sha256:b"}) is False
    leases.release_lease(database, held, None)
    held = claim(database)
    leases.begin(database, held, now)
    assert [kind for kind, _ in log(database, job_id)].count("log") == 0
    leases.begin(database, held, now | {"reference_classifier": "sha256:b"})
    assert "(reference_classifier)" in log(database, job_id)[-1][1]["message"]


@pytest.mark.parametrize("recorded", [{"code": "sha256:before"}, {}], ids=["other code", "before code was recorded"])
def test_a_job_that_continues_across_an_upgrade_is_mixed_and_not_reused(
    database: Database, submit: Submit, recorded: dict[str, str]
) -> None:
    job_id = submit()
    held = claim(database)
    leases.begin(database, held, {"numpy": "1", **recorded})
    leases.release_lease(database, held, None)
    for _ in range(2):
        held = claim(database)
        leases.begin(database, held, {"numpy": "1", "code": "sha256:now"})
        leases.release_lease(database, held, None)
    (mixed,) = [data for kind, data in log(database, job_id) if kind == "log"]
    assert mixed["code"] == "mixed_provenance"
    assert "(code)" in mixed["message"]
    assert read_job(database, job_id).reusable is False


def test_a_worker_that_sends_heartbeats_is_alive(database: Database) -> None:
    def worker(running: int) -> Worker:
        return Worker(id="w", host="h", pid=1, slots=2, running=running, draining=False)

    worker_registry.record_heartbeat(database, worker(0))
    worker_registry.record_heartbeat(database, worker(1))
    with database.read() as session:
        assert [live_worker.running for live_worker in worker_registry.live_workers(session)] == [1]
