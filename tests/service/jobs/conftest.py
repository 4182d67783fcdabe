from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.jobs import epoch_commits, events, leases, submissions
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Claim, Position
from service.jobs.queries import lookup
from service.jobs.submissions import Submission
from service.schema.findings import Finding
from service.spec.validation import resolve
from service.storage.artifacts import StoredFile
from service.storage.database import Database
from service.storage.tables import Job

Submit = Callable[..., str]


@pytest.fixture
def submit(database: Database) -> Submit:
    """Return a function that stores a job and returns its id."""

    def submit(owner: str | None = None, **spec: Any) -> str:
        document = {"kind": "classifier", "epochs": 4, **spec}
        submission = Submission(spec=document, resolved=resolve(document), steps=40, owner=owner)
        answer, _ = submissions.submit(
            database, [submission], idempotency=None, represent=lambda jobs: {"id": jobs[0].id}
        )
        return str(answer["id"])

    return submit


def claim(database: Database, worker: str = "w", lease_s: float = 15) -> Claim:
    held = leases.claim(database, worker, lease_s)
    assert held is not None
    return held


def record(
    epoch: int,
    *,
    files: tuple[StoredFile, ...] = (),
    is_best: bool = False,
    loss: float | None = None,
    health: tuple[Finding, ...] = (),
) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        position=Position(step=10 * epoch, steps=40, steps_per_second=5.0),
        metrics={"train_loss": 1 / epoch if loss is None else loss},
        confusion=[[1, 0], [0, 1]],
        samples_digest=f"sha256:{epoch}",
        seconds=0.5,
        is_best=is_best,
        files=files,
        health=health,
    )


def commit(database: Database, held: Claim, epoch_record: EpochRecord, keep_last: int = 3) -> list[str]:
    return epoch_commits.commit(database, held, [epoch_record], keep_last=keep_last)


def read_job(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return lookup.get(session, job_id)


def log(database: Database, job_id: str) -> list[tuple[str, dict[str, Any]]]:
    with database.read() as session:
        entries = events.read(session, job_id)
    assert [event.seq for event in entries] == list(range(1, len(entries) + 1))
    return [(event.type, event.data) for event in entries]
