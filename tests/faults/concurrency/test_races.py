"""Users and workers act at the same moment: the database decides, and exactly one wins."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from service.errors import IdempotencyConflict, IllegalTransition, JobNotFound, LeaseLost
from service.jobs import actions, commits, leases, submissions
from service.jobs.rescue import rescue
from service.jobs.submissions import IdempotencyKey, Submission
from service.spec.validation import resolve
from service.states import TERMINAL, Request, Status
from service.storage.tables import Job
from tests.faults.conftest import InProcess
from tests.faults.harness import QUICK

ROUNDS = 12
"""More of them where the whole suite runs."""


def at_random(rng: random.Random, *works: Callable[[], Any]) -> None:
    """Do all of it at nearly the same moment."""
    started = threading.Barrier(len(works))

    def run(work: Callable[[], Any], pause_s: float) -> None:
        started.wait()
        time.sleep(pause_s)
        with contextlib.suppress(IllegalTransition, LeaseLost, JobNotFound, IdempotencyConflict):
            work()

    threads = [threading.Thread(target=run, args=(work, rng.uniform(0, 0.004))) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_out(process: InProcess, job_id: str) -> None:
    """The lease is over, and the scheduler comes by."""
    with process.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id, Job.status == "running").values(lease_expires_ms=1))
    rescue(process.database)


def race(process: InProcess, seed: int, rounds: int) -> None:
    """F23: a cancel against everything that a worker, the scheduler and another person may do."""
    rng = random.Random(seed)
    for _ in range(rounds):
        job_id = process.submit()
        held = process.claim()
        against = rng.choice(
            [
                lambda held=held: commits.succeed(process.database, held, "sha256:x"),
                lambda held=held: commits.fail(process.database, held, {"code": "internal", "message": "m"}),
                lambda held=held: leases.release_lease(process.database, held, rng.choice([None, Request.PAUSE])),
                lambda held=held: leases.record_child_loss(process.database, held, "died"),
                lambda job_id=job_id: actions.pause(process.database, job_id),
                lambda job_id=job_id: run_out(process, job_id),
            ]
        )
        cancel = lambda job_id=job_id: actions.cancel(process.database, job_id)  # noqa: E731 - it is called twice
        at_random(rng, cancel, against, cancel)
        job = process.workers.job(job_id)
        if job.status == Status.RUNNING:  # the worker hears of it at its next look
            assert leases.requested(process.database, held) == Request.CANCEL
            leases.release_lease(process.database, held, None)
            job = process.workers.job(job_id)
        if job.status not in TERMINAL:  # the cancel came first, to a job that was then handed back: it must count
            actions.cancel(process.database, job_id)
            job = process.workers.job(job_id)
        assert job.status in TERMINAL
        assert [event.type for event in process.workers.log(job_id)].count("end") == 1
        assert actions.actions_of(job) == tuple(action for action in actions.actions_of(job) if action != "cancel")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(1, 9))])
def test_a_cancel_against_everything_else_gives_one_end(process: InProcess, seed: int) -> None:
    race(process, seed, ROUNDS)


def test_of_two_deletions_and_a_retry_one_wins(process: InProcess) -> None:
    rng = random.Random(0)
    for _ in range(4):
        job_id = process.submit()
        commits.fail(process.database, process.claim(), {"code": "internal", "message": "m"})
        process.accepted.remove(job_id)
        remove = lambda job_id=job_id: actions.remove(process.database, job_id)  # noqa: E731 - it is called twice
        at_random(rng, remove, lambda job_id=job_id: actions.retry(process.database, job_id), remove)
        with contextlib.suppress(JobNotFound):
            assert process.workers.job(job_id).status == Status.QUEUED
            actions.cancel(process.database, job_id)
            actions.remove(process.database, job_id)
    process.check(None)


def test_of_two_schedulers_one_rescues_and_the_silent_worker_is_not_heard(process: InProcess) -> None:
    rng = random.Random(1)
    for _ in range(4):
        job_id = process.submit()
        held = process.claim(lease_s=0)
        time.sleep(0.01)
        rescued: list[str] = []
        take = lambda rescued=rescued: rescued.extend(rescue(process.database))  # noqa: E731 - it is called twice
        at_random(rng, take, take)
        assert rescued == [job_id]
        with pytest.raises(LeaseLost):
            commits.succeed(process.database, held, "sha256:late")
        job = process.workers.job(job_id)
        assert (job.status, job.attempt, job.result_digest) == (Status.QUEUED, 2, None)
        actions.cancel(process.database, job_id)
    process.check(None)


def post_at_once(process: InProcess, count: int) -> set[str]:
    """So many requests with one key, every fifth of them with another body; gives the ids in the answers."""
    spec = resolve(QUICK)
    told: set[str] = set()

    def post(number: int) -> None:
        key = IdempotencyKey(key="one", fingerprint="other" if number % 5 == 4 else "same")
        submission = Submission(spec=QUICK, resolved=spec, steps=51)
        answer, _ = submissions.submit(
            process.database, submission, idempotency=key, represent=lambda job: {"id": job.id}
        )
        told.add(answer["id"])

    post(0)
    at_random(random.Random(2), *[lambda number=number: post(number) for number in range(1, count)])
    return told


def test_fifty_requests_with_one_key_at_once_make_one_job(process: InProcess) -> None:
    """F24."""
    told = post_at_once(process, 50)
    assert len(told) == 1
    process.accepted += told
    actions.cancel(process.database, *told)
    process.check(None)


def test_where_keys_are_not_kept_fifty_requests_are_found_out(
    process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F24 once more, the check switched off: it must turn red."""
    row_of = submissions._key_row
    monkeypatch.setattr(submissions, "_key_row", lambda key, job, answer: row_of(replace(key, key=job.id), job, answer))
    assert len(post_at_once(process, 10)) > 1
