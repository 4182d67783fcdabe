"""The first epoch in which two results differ; the jobs and the result of an investigation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict
from sqlalchemy.orm import Session

from service.jobs import commits, events, leases, transitions
from service.jobs.leases import Claim, Usage
from service.jobs.queries import lookup
from service.runtime.failpoints import failpoint
from service.states import Status
from service.storage.artifacts import ArtifactKind
from service.storage.database import Database
from service.storage.tables import Artifact, Epoch, Job


@dataclass(frozen=True, slots=True)
class DifferingEpoch:
    """The first epoch whose stored results differ."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    epoch: int
    differs: list[str]
    """Names of metrics, `samples`, `weights` or `test scores`."""


def first_difference(a: Job, b: Job, epochs_a: Sequence[Epoch], epochs_b: Sequence[Epoch]) -> DifferingEpoch | None:
    """Compare the epochs that both jobs have and, if both end with the same epoch, the rest of the result."""
    by_epoch = {row.epoch: row for row in epochs_b}
    for row in epochs_a:
        other = by_epoch.get(row.epoch)
        if other is None:
            continue
        differs = commits.differences(row.metrics, other.metrics)
        if row.samples_digest and other.samples_digest and row.samples_digest != other.samples_digest:
            differs.append("samples")
        if differs:
            return DifferingEpoch(row.epoch, differs)
    is_comparable = a.epoch == b.epoch and a.result_digest and b.result_digest
    if is_comparable and a.result_digest != b.result_digest:
        return DifferingEpoch(a.epoch, [commits.final_difference(a.test_scores, b.test_scores)])
    return None


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
        events.log(session, job.id, "info", "found", sentence)
        transitions.finish(session, job, Status.SUCCEEDED, reason="done")
        failpoint("concluding")


def _is_not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
