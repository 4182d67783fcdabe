"""Read the jobs of an investigation, and store its result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from service.jobs import events, leases, transitions
from service.jobs.events import EventType
from service.jobs.leases import Claim, Usage
from service.jobs.queries import lookup
from service.runtime.failpoints import reach
from service.states import Status
from service.storage.artifacts import ArtifactKind
from service.storage.database import Database
from service.storage.tables import Artifact, Epoch, Job


def read_jobs(database: Database, claim: Claim) -> list[tuple[Job, dict[int, Epoch], dict[int, Artifact]]]:
    """The two jobs of an investigation, each with its epochs and its checkpoints by epoch.

    Raises:
        JobNotFound: one was deleted.
    """
    with database.read() as session:
        investigation = lookup.get(session, claim.job_id).investigation or {}
        return [_read_job(session, investigation[side]) for side in ("a", "b")]


def _read_job(session: Session, job_id: str) -> tuple[Job, dict[int, Epoch], dict[int, Artifact]]:
    epochs = {row.epoch: row for row in lookup.epochs(session, job_id)}
    checkpoints = {row.epoch: row for row in lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)}
    return lookup.get(session, job_id), epochs, checkpoints


def conclude(database: Database, claim: Claim, result: Mapping[str, Any], sentence: str, *, used: Usage) -> None:
    """End an investigation. Values that are not finite are only in the sentence, because JSON cannot
    represent them."""
    finite = {name: None if _is_not_finite(value) else value for name, value in result.items()}
    with database.write() as session:
        job = leases.guard(session, claim, **leases.usage_values(used))
        job.investigation = {**(job.investigation or {}), "found": finite, "sentence": sentence}
        job.step = job.steps
        session.flush()
        events.append(session, job.id, [(EventType.LOG, {"level": "info", "code": "found", "message": sentence})])
        transitions.finish(session, job, Status.SUCCEEDED, reason="done")
        reach("concluding")


def _is_not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
