"""A running job takes over epochs of an earlier one, under its lease."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.access import storage_quota
from service.jobs import events, leases, transitions
from service.jobs.leases import Claim, Usage
from service.jobs.queries import lookup
from service.jobs.reuse import copies, sources
from service.jobs.reuse.copies import Copied
from service.jobs.reuse.sources import Source
from service.runtime.failpoints import failpoint
from service.spec.validation import StoredSpec, read_resolved
from service.states import Status
from service.storage.artifacts import ArtifactKind, StoredFile
from service.storage.database import Database, now_ms
from service.storage.tables import Artifact, Epoch, Job


class Outcome(StrEnum):
    """The state of the job after the takeover."""

    NOTHING_REUSED = "nothing reused"
    GOES_ON = "goes on"
    """After the epochs that it has taken over."""
    PAUSED_BY_SWEEP = "paused_by_sweep"
    SUCCEEDED = "succeeded"


def find(database: Database, claim: Claim, provenance: Mapping[str, Any]) -> Source | None:
    """The job from which a running one can take over epochs."""
    with database.read() as session:
        job = lookup.get(session, claim.job_id)
        spec = read_resolved(job.resolved)
        return sources.find(session, spec, StoredSpec.of(spec), [provenance], owner=job.owner)


def result_of(database: Database, claim: Claim, source_id: str) -> tuple[dict[int, Epoch], list[Artifact]]:
    """The epochs and the checkpoints of another job."""
    with database.read() as session:
        rows = {row.epoch: row for row in lookup.epochs(session, source_id)}
        return rows, list(lookup.artifacts(session, source_id, ArtifactKind.CHECKPOINT))


def read(database: Database, claim: Claim, source: Source) -> tuple[Sequence[StoredFile], Copied]:
    """The files to copy, and the other data.

    Raises:
        ArtifactDamaged: the job, or the checkpoint of the last of these epochs, was deleted.
    """
    with database.read() as session:
        return sources.files_of(session, source), copies.read(session, source)


def store(
    database: Database,
    claim: Claim,
    copied: Copied,
    *,
    used: Usage,
    at_most: int = 0,
    then: Callable[[Session, Job], None] = lambda session, job: None,
) -> Outcome:
    """Store the reused data; a whole result ends the job.

    Args:
        at_most: as for ``epoch_commits.commit``.
        then: further writes of a transaction in which a job pauses or ends.

    Raises:
        StorageQuotaExceeded: the files exceed the limit; nothing is stored.
    """
    with database.write() as session:
        job = leases.guard(session, claim, **leases.usage_values(used))
        if job.reused_from is not None:  # done before, in a transaction whose response was lost
            return Outcome.GOES_ON
        size_before = job.size_bytes
        for name, value in copied.values.items():
            if name not in ("status", "provenance"):
                setattr(job, name, value)
        after = job.last_seq
        job.last_seq += copied.event_count
        session.flush()
        now = session.scalar(select(now_ms())) or 0
        copied.store(session.connection(), job.id, lease=claim.lease, after=after, now=now)
        outcome = Outcome.GOES_ON
        if copied.source.is_whole:
            transitions.finish(session, job, Status.SUCCEEDED, reason="reused")
            outcome = Outcome.SUCCEEDED
        elif leases.reaches_hold(job.epoch, job.hold_epoch):
            leases.pause_for_sweep(session, job)
            outcome = Outcome.PAUSED_BY_SWEEP
        if outcome is not Outcome.GOES_ON:
            session.flush()
            then(session, job)
        storage_quota.check_growth(session, job.owner, job.size_bytes - size_before, at_most)
        failpoint("reusing")
        return outcome


def disable(database: Database, claim: Claim, source_id: str, message: str) -> None:
    """Record that a job's epochs could not be repeated: they are not reused any more."""
    line = ("error", events.DETERMINISM_VIOLATION, message)
    with database.write() as session:
        leases.guard(session, claim)
        events.log(session, claim.job_id, *line, job=source_id)
        for job_id in _related(session, source_id):
            session.execute(update(Job).where(Job.id == job_id).values(reusable=False))
            events.log(session, job_id, *line, job=source_id)


def _related(session: Session, job_id: str) -> list[str]:
    """The jobs that share bits with one: what they reuse, and what reuses them, in any number of
    steps. Sorted, so that two transactions lock them in the same order."""
    related: set[str] = set()
    frontier = {job_id}
    while frontier:
        related |= frontier
        linked = select(Job.id, Job.reused_from).where(Job.id.in_(frontier) | Job.reused_from.in_(frontier))
        frontier = {
            linked_id for pair in session.execute(linked) for linked_id in pair if linked_id is not None
        } - related
    existing = select(Job.id).where(Job.id.in_(related)).order_by(Job.id)
    return list(session.scalars(existing))
