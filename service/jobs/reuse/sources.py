"""Find the job whose epochs a new job may take over: same spec, code, CPU type, NumPy and data, so same bits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from service.jobs import events
from service.jobs.events import EventType
from service.jobs.queries import lookup
from service.spec.schema import Reuse, Spec
from service.spec.validation import (
    StoredSpec,
    is_independent_of_length,
    is_independent_of_position,
    read_resolved,
)
from service.states import Status
from service.storage.artifacts import ArtifactDamaged, ArtifactKind, StoredFile
from service.storage.tables import Job

_MAX_CANDIDATES: Final = 100
_NOT_COMPARED: Final = {"preprocessing"}
"""Follows from spec, data and code."""


@dataclass(frozen=True, slots=True)
class Source:
    """A job, and how much of it can be reused."""

    job: Job
    epochs: int
    best_epoch: int | None
    """The best of these epochs."""
    is_whole: bool
    """Whether its result is reused, too."""


def find(
    session: Session,
    spec: Spec,
    stored: StoredSpec,
    provenances: Sequence[Mapping[str, Any]],
    *,
    owner: str | None,
    whole_only: bool = False,
) -> Source | None:
    """The job from which most epochs can be reused; ``None`` if there is none.

    Args:
        spec: of the new job; its ``reuse`` determines what may be reused.
        stored: the same spec with its digests.
        provenances: those under which the new job could be trained.
        owner: of the new job; other owners' jobs are not considered.
        whole_only: reuse only whole results.
    """
    if spec.reuse is Reuse.NEVER or not provenances:
        return None
    whole_only = whole_only or spec.reuse is Reuse.EXACT
    sources = [
        source
        for job in _candidates(session, stored.prefix_hash, owner)
        if (job.spec_hash == stored.hash or not whole_only)
        and any(_equal(job.provenance, provenance) for provenance in provenances)
        for source in _sources(session, spec, job, same_spec=job.spec_hash == stored.hash, whole_only=whole_only)
    ]
    return max(sources, key=lambda source: (source.is_whole, source.epochs), default=None)


def is_verified(job_id: str, fraction: float) -> bool:
    """Whether a job is in the fraction that retrains one of the epochs that it takes over. The decision
    depends on the id alone, so all processes agree."""
    return int(hashlib.sha256(job_id.encode()).hexdigest()[:13], 16) < fraction * 16**13


_CANDIDATES: Final = (
    select(Job)
    .where(
        Job.prefix_hash == bindparam("prefix"),
        Job.finished_ms.is_not(None),
        Job.reusable,
        Job.epoch > 0,
        Job.start_epoch == 0,
        func.coalesce(Job.owner, "") == bindparam("job_owner"),
    )
    .order_by(Job.reused_from.is_not(None), Job.finished_ms.desc(), Job.id)  # those that were trained first
    .limit(_MAX_CANDIDATES)
)


def _candidates(session: Session, hash_of_prefix: str, owner: str | None) -> Sequence[Job]:
    return session.scalars(_CANDIDATES, {"prefix": hash_of_prefix, "job_owner": owner or ""}).all()


def _equal(recorded: Mapping[str, Any] | None, current: Mapping[str, Any]) -> bool:
    if recorded is None or "code" not in recorded or current.get("dataset") is None:
        return False
    names = {*recorded, *current} - _NOT_COMPARED
    return all(name in recorded and name in current and recorded[name] == current[name] for name in names)


def _sources(session: Session, spec: Spec, job: Job, *, same_spec: bool, whole_only: bool) -> Iterator[Source]:
    """The epochs that can be reused from a job with equal epochs."""
    checkpoint_epochs = {row.epoch for row in lookup.artifacts(session, job.id, ArtifactKind.CHECKPOINT)}
    if same_spec and job.status == Status.SUCCEEDED and job.result_digest and job.epoch in checkpoint_epochs:
        yield Source(job, job.epoch, job.best_epoch, is_whole=True)
        return
    if whole_only or not (same_spec or is_independent_of_length(spec)):
        return
    source_spec = read_resolved(job.resolved)
    ends = {job.epoch, spec.epochs} if job.stopped_early is None else {spec.epochs}
    for epoch in sorted(checkpoint_epochs, reverse=True):
        if epoch > spec.epochs or (epoch in ends and not is_independent_of_position(source_spec, epoch)):
            continue
        best = _best_until(session, job, epoch)
        if best is None or best in checkpoint_epochs:
            yield Source(job, epoch, best, is_whole=False)
            return


def _best_until(session: Session, job: Job, epoch: int) -> int | None:
    """The best of the first epochs; each had a checkpoint when it was the best."""
    rows = events.of_type(session, job.id, EventType.CHECKPOINT)
    return max((event.data["epoch"] for event in rows if event.data.get("best") and event.data["epoch"] <= epoch),
               default=None)  # fmt: skip


def files_of(session: Session, source: Source) -> Sequence[StoredFile]:
    """The files that belong to the epochs.

    Raises:
        ArtifactDamaged: the job, or the checkpoint of the last of these epochs, was deleted.
    """
    files = [
        StoredFile(
            kind=ArtifactKind(row.kind),
            epoch=row.epoch,
            path=row.path,
            name=row.name,
            size_bytes=row.size_bytes,
            sha256=row.sha256,
        )
        for row in lookup.artifacts(session, source.job.id)
        if row.kind in (ArtifactKind.CHECKPOINT, ArtifactKind.SAMPLE) and row.epoch <= source.epochs
    ]
    if not any(file.kind is ArtifactKind.CHECKPOINT and file.epoch == source.epochs for file in files):
        raise ArtifactDamaged(source.job.id, f"it was deleted, or its checkpoint of epoch {source.epochs} was")
    return files
