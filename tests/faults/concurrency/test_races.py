"""Real threads race for the locks of PostgreSQL, and exactly one wins. ``tests/simulation`` orders their statements."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from service.errors import IdempotencyConflict, IllegalTransition, JobNotFound, LeaseLost
from service.jobs import actions, commits, epoch_commits, leases, submissions
from service.jobs.rescue import rescue
from service.jobs.submissions import IdempotencyKey, Submission
from service.spec.validation import resolve
from service.states import TERMINAL, Request, Status
from service.storage.tables import Job
from tests.faults.conftest import InProcessHarness
from tests.faults.harness import QUICK_SPEC
from tests.service.jobs.leases import requested

pytestmark = [pytest.mark.nightly, pytest.mark.parametrize("process", ["postgresql"], indirect=True)]

ROUNDS = 30


def run_concurrently(rng: random.Random, *operations: Callable[[], Any]) -> None:
    """Run all operations in threads at nearly the same time, with random delays."""
    started = threading.Barrier(len(operations))

    def run(operation: Callable[[], Any], delay_s: float) -> None:
        started.wait()
        time.sleep(delay_s)  # varies the order of the operations
        with contextlib.suppress(IllegalTransition, LeaseLost, JobNotFound, IdempotencyConflict):
            operation()

    threads = [threading.Thread(target=run, args=(operation, rng.uniform(0, 0.004))) for operation in operations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def expire_and_rescue(process: InProcessHarness, job_id: str) -> None:
    """Expire the lease, and let the scheduler rescue the job."""
    with process.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id, Job.status == "running").values(lease_expires_ms=1))
    rescue(process.database)


def race(process: InProcessHarness, seed: int, rounds: int) -> None:
    """F23: two cancellations race with an operation of a worker, the scheduler or another user."""
    rng = random.Random(seed)
    for _ in range(rounds):
        job_id = process.submit()
        held = process.claim()
        rival = rng.choice(
            [
                lambda held=held: epoch_commits.succeed(process.database, held, "sha256:x"),
                lambda held=held: commits.fail(process.database, held, {"code": "internal", "message": "m"}),
                lambda held=held: leases.release_lease(process.database, held, rng.choice([None, Request.PAUSE])),
                lambda held=held: leases.record_child_loss(process.database, held, "died"),
                lambda job_id=job_id: actions.pause(process.database, job_id),
                lambda job_id=job_id: expire_and_rescue(process, job_id),
            ]
        )
        cancel = lambda job_id=job_id: actions.cancel(process.database, job_id)  # noqa: E731 - it is called twice
        run_concurrently(rng, cancel, rival, cancel)
        job = process.workers.job(job_id)
        if job.status == Status.RUNNING:  # the worker sees the request at its next check
            assert requested(process.database, held) == Request.CANCEL
            leases.release_lease(process.database, held, None)
            job = process.workers.job(job_id)
        if job.status not in TERMINAL:  # released after the cancellation: another one must take effect
            actions.cancel(process.database, job_id)
            job = process.workers.job(job_id)
        assert job.status in TERMINAL
        assert [event.type for event in process.workers.log(job_id)].count("end") == 1
        assert actions.actions_of(job) == tuple(action for action in actions.actions_of(job) if action != "cancel")


def test_cancellations_that_race_with_another_operation_end_a_job_once(process: InProcessHarness) -> None:
    race(process, 0, ROUNDS)


def test_a_race_of_two_deletions_and_a_retry_has_one_winner(process: InProcessHarness) -> None:
    rng = random.Random(0)
    for _ in range(4):
        job_id = process.submit()
        commits.fail(process.database, process.claim(), {"code": "internal", "message": "m"})
        process.accepted.remove(job_id)
        remove = lambda job_id=job_id: actions.remove(process.database, job_id)  # noqa: E731 - it is called twice
        run_concurrently(rng, remove, lambda job_id=job_id: actions.retry(process.database, job_id), remove)
        with contextlib.suppress(JobNotFound):
            assert process.workers.job(job_id).status == Status.QUEUED
            actions.cancel(process.database, job_id)
            actions.remove(process.database, job_id)
    process.check(None)


def post_concurrently(process: InProcessHarness, count: int) -> set[str]:
    """Send requests with one idempotency key, every fifth with another body; return the ids answered."""
    spec = resolve(QUICK_SPEC)
    job_ids: set[str] = set()

    def post(number: int) -> None:
        key = IdempotencyKey(key="one", fingerprint="other" if number % 5 == 4 else "same")
        submission = Submission(spec=QUICK_SPEC, resolved=spec, steps=51)
        answer, _ = submissions.submit(
            process.database, [submission], idempotency=key, represent=lambda jobs: {"id": jobs[0].id}
        )
        job_ids.add(answer["id"])

    post(0)
    run_concurrently(random.Random(2), *[lambda number=number: post(number) for number in range(1, count)])
    return job_ids


def test_fifty_concurrent_requests_with_one_key_create_one_job(process: InProcessHarness) -> None:
    """F24."""
    job_ids = post_concurrently(process, 50)
    assert len(job_ids) == 1
    process.accepted += job_ids
    actions.cancel(process.database, *job_ids)
    process.check(None)
