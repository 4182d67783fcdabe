"""Urgent jobs: which job makes room, and which slots are free."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from service.access import owners
from service.jobs import actions, epoch_commits, leases, owner_queue, worker_registry
from service.jobs.leases import Claim, Usage
from service.jobs.queries import queue
from service.states import Reason, Request, Status
from service.storage.database import Database
from service.storage.owner_tables import OwnerQueue
from service.storage.tables import Job, Worker
from tests.service.jobs.conftest import Submit, claim, commit, read_job, record
from tests.service.jobs.fairness.test_owner_queue import advance_clock, owner_of, set_vtime, vtimes
from tests.service.jobs.leases import renew
from tests.service.jobs.test_leases import reasons


def start_worker(database: Database, slots: int, worker: str = "w", datasets: list[str] | None = None) -> None:
    row = Worker(id=worker, host="box", pid=1, slots=slots, running=0, draining=False, datasets=datasets)
    worker_registry.record_heartbeat(database, row)


def wait_half_a_second(database: Database) -> None:
    with database.write() as session:
        session.execute(update(Job).values(queued_ms=Job.queued_ms - 1000))


def test_an_urgent_job_takes_the_slot_of_the_least_urgent_one(database: Database, submit: Submit) -> None:
    start_worker(database, 3)
    low, high, urgent = (submit(owner="ann", priority=priority) for priority in (1, 4, 8))
    taken = {held.job_id: held for held in (claim(database), claim(database), claim(database))}
    assert owner_queue.preempt(database) is None
    waiting = submit(owner="bob", priority=7)
    wait_half_a_second(database)
    assert owner_queue.preempt(database) == low
    assert owner_queue.preempt(database) is None, "one job makes room for one"
    assert renew(database, taken[low], None) is Request.PREEMPT
    advance_clock(database, 100)
    leases.release_lease(database, taken[low], Request.PREEMPT)
    with database.read() as session:
        job, row = session.get_one(Job, low), session.get_one(OwnerQueue, "ann")
    assert (job.status, job.requested, job.attempt) == (Status.QUEUED, None, 1)
    assert row.vtime == pytest.approx(200, abs=30), "the two other jobs have used 100 seconds each"
    assert reasons(database, low)[-2:] == ["preempt requested", "preempted"]
    assert owner_queue.preempt(database) is None, "a slot is free"
    assert claim(database).job_id == waiting
    submit(owner="bob", priority=8)
    wait_half_a_second(database)
    assert owner_queue.preempt(database) == high, "urgent jobs are preempted by more urgent ones only"
    submit(owner="bob", priority=8)
    assert owner_queue.preempt(database) is None
    assert urgent in taken


def test_a_preempted_lease_is_charged_up_to_its_last_epoch(database: Database, submit: Submit) -> None:
    """Its epochs are kept. Before, three hours were given back, and the next 40 claims went to the victim's owner."""
    start_worker(database, 1)
    victim = submit(owner="ann", priority=1)
    held = claim(database, lease_s=100_000)
    for _ in range(12):  # queued all the time: an owner who becomes ready would start where others are
        submit(owner="ann")
    advance_clock(database, 3 * 3600)
    owner_queue.accrue(database)
    commit(database, held, record(1))
    advance_clock(database, 20)
    submit(owner="bob", priority=9)
    wait_half_a_second(database)
    set_vtime(database, "bob", 3 * 3600)
    assert owner_queue.preempt(database) == victim
    leases.release_lease(database, held, Request.PREEMPT)
    assert vtimes(database)["ann"] == pytest.approx(3 * 3600, abs=5), "less 20 seconds, which have to be done again"
    urgent = claim(database)
    assert owner_of(database, urgent) == "bob"
    epoch_commits.succeed(database, urgent, "sha256:x")
    for _ in range(12):
        submit(owner="bob")
    order = [owner_of(database, claim(database)) for _ in range(12)]
    assert 4 <= order.count("ann") <= 8


def fall_silent(database: Database, seconds: float, *workers: str) -> None:
    """Make the rows of workers older."""
    passed = int(seconds * 1000)
    with database.write() as session:
        older = {"seen_ms": Worker.seen_ms - passed, "started_ms": Worker.started_ms - passed}
        session.execute(update(Worker).where(Worker.id.in_(workers)).values(**older))


def test_slots_of_a_worker_that_has_missed_its_heartbeats_are_not_free(database: Database, submit: Submit) -> None:
    """Before, they were for a minute, in which an urgent job waited."""
    start_worker(database, 1, "alive")
    start_worker(database, 3, "dead")
    low = submit(owner="ann")
    claim(database, "alive")
    submit(owner="bob", priority=9)
    wait_half_a_second(database)
    fall_silent(database, 4, "dead")
    assert owner_queue.preempt(database) is None, "it may only be slow"
    fall_silent(database, 8, "dead")
    with database.read() as session:
        assert queue.read(session, owner="bob").reason == "share", "it does not start"
    assert owner_queue.preempt(database) == low


def test_a_worker_that_is_killed_again_and_again_has_no_free_slot(database: Database, submit: Submit) -> None:
    start_worker(database, 1, "box-1-a")
    low = submit(owner="ann")
    held = claim(database, "box-1-a")
    start_worker(database, 2, "gpu-7-b")
    submit(owner="bob", priority=9)
    wait_half_a_second(database)
    fall_silent(database, 3, "gpu-7-b")
    assert owner_queue.preempt(database) is None
    start_worker(database, 2, "gpu-8-c")
    assert owner_queue.preempt(database) == low, "the new one has replaced it, and has not proved itself"
    assert owner_queue.preempt(database) is None, "a slot is being freed"
    leases.release_lease(database, held, Request.PREEMPT)
    assert claim(database, "box-1-a").job_id != low
    submit(owner="bob", priority=8)
    wait_half_a_second(database)
    fall_silent(database, 6, "gpu-7-b", "gpu-8-c")
    start_worker(database, 2, "gpu-8-c")
    assert owner_queue.preempt(database) is None, "it has lived for a heartbeat, and starts jobs"


def test_no_job_makes_room_for_one_that_its_owners_cap_holds_back(database: Database, submit: Submit) -> None:
    start_worker(database, 2)
    start_worker(database, 1, "leaving")
    owners.set_default_cap(database, 1)
    for owner in ("bob", "carl", "dora"):
        submit(owner=owner)
    claim(database, "leaving"), claim(database), claim(database)
    for _ in range(4):
        submit(owner="ann", priority=9)
    wait_half_a_second(database)
    with database.write() as session:
        session.execute(update(Worker).where(Worker.id == "leaving").values(draining=True))
    victim = owner_queue.preempt(database)
    assert victim is not None
    assert read_job(database, victim).lease_owner == "w", "only the slot of a worker that claims jobs is of use"
    assert owner_queue.preempt(database) is None, "Ann may run one job"


def test_a_worker_passes_over_jobs_whose_data_it_lacks(database: Database, submit: Submit) -> None:
    lacking, having = ["mnist-10k"], ["mnist-10k", "ours"]
    for worker, datasets in (("lacking", lacking), ("having", having)):
        start_worker(database, 1, worker, datasets)
    ours = submit(owner="ann", dataset="ours", priority=5)
    of_bob = submit(owner="bob", dataset="ours", priority=9)
    usual = submit(owner="ann")
    taken = leases.claim(database, "lacking", 15, datasets=lacking)
    assert taken is not None
    assert taken.job_id == usual, "the owners and jobs before it need the folder"
    assert leases.claim(database, "lacking", 15, datasets=lacking) is None
    taken = leases.claim(database, "having", 15, datasets=having)
    assert taken is not None
    assert taken.job_id == of_bob
    with database.write() as session:
        session.execute(update(Job).where(Job.id == ours).values(upload_id="ds_1"))
    taken = leases.claim(database, "lacking", 15, datasets=lacking)
    assert taken is not None
    assert taken.job_id == ours, "uploads are in the store"


def test_the_queue_names_a_folder_that_no_worker_has(database: Database, submit: Submit) -> None:
    start_worker(database, 1, "w", ["mnist-10k"])
    submit(owner="bob")
    held = leases.claim(database, "w", 15, datasets=["mnist-10k"])
    urgent = submit(owner="ann", dataset="ours", priority=9)
    wait_half_a_second(database)
    assert owner_queue.preempt(database) is None, "its slot would be of no use"

    def reason() -> tuple[str | None, str | None]:
        with database.read() as session:
            found = queue.read_one(session, session.get_one(Job, urgent))
        return found.reason, found.reason_text

    assert reason() == (
        "dataset", "no worker has the folder ours in TAPELINE_DATA: copy it there, or upload the dataset",
    )  # fmt: skip
    start_worker(database, 1, "other", ["mnist-10k", "ours"])
    assert reason()[0] == "starting"
    assert held is not None


def test_only_the_slot_of_a_worker_that_has_the_data_is_taken(database: Database, submit: Submit) -> None:
    lacking, having = ["mnist-10k"], ["mnist-10k", "ours"]
    start_worker(database, 1, "lacking", lacking)
    start_worker(database, 1, "having", having)
    low = submit()
    assert leases.claim(database, "having", 15, datasets=having) is not None
    submit(owner="ann", dataset="ours", priority=9)
    wait_half_a_second(database)
    assert owner_queue.preempt(database) == low, "the free slot of the other worker is of no use"
    assert owner_queue.preempt(database) is None
    leases.release_lease(database, held_by(database, low), Request.PREEMPT)
    urgent = leases.claim(database, "having", 15, datasets=having)
    assert urgent is not None
    assert leases.claim(database, "lacking", 15, datasets=lacking) is not None
    submit(owner="ann", dataset="ours", priority=9)
    wait_half_a_second(database)
    assert owner_queue.preempt(database) is None, "the slot of the less urgent job would be of no use"
    submit(owner="ann", priority=9)
    wait_half_a_second(database)
    assert owner_queue.preempt(database) == low


def held_by(database: Database, job_id: str) -> Claim:
    with database.read() as session:
        job = session.get_one(Job, job_id)
    return Claim(job_id=job_id, lease=job.lease, token=job.lease_token or "", lease_s=15)


def test_what_ends_a_lease_comes_before_preemption(database: Database, submit: Submit) -> None:
    start_worker(database, 4)
    jobs = [submit(owner=owner, budget={"seconds": 5}) for owner in ("bob", "carl", "dora", "emil")]
    held = {taken.job_id: taken for taken in (claim(database) for _ in jobs)}
    for _ in jobs:
        submit(owner="ann", priority=9)
    wait_half_a_second(database)
    assert {owner_queue.preempt(database) for _ in jobs} == set(jobs)
    at_rung, spent, lost, user = jobs
    with database.write() as session:
        leases.pause_for_sweep(session, leases.guard(session, held[at_rung]))
    leases.release_lease(database, held[spent], Request.BUDGET, used=Usage(cpu_seconds=6, peak_memory_bytes=0))
    advance_clock(database, 50)
    leases.record_child_loss(database, held[lost], "died")
    actions.pause(database, user)
    leases.release_lease(database, held[user], Request.PREEMPT)
    states = [(read_job(database, job).status, reasons(database, job)[-1]) for job in jobs]
    assert states == [
        (Status.PAUSED, Reason.PAUSED_BY_SWEEP),
        (Status.PAUSED, Reason.BUDGET),
        (Status.QUEUED, Reason.LOST),
        (Status.PAUSED, "paused"),
    ]
    assert vtimes(database)["dora"] >= 50, "the time of a lost worker is charged"
    assert read_job(database, lost).deaths == 1
