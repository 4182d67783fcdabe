"""Look up a job by its id, with its relatives, its epochs and its files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import Text, cast, func, select, tuple_
from sqlalchemy.orm import Session, load_only

from service import kinds
from service.errors import ArtifactNotFound, JobNotFound, UnusableParameter
from service.states import Status
from service.storage.artifacts import ArtifactKind
from service.storage.database import visible
from service.storage.sweep_tables import is_stopped_by_sweep
from service.storage.tables import Artifact, Epoch, Job

_MAX_LISTED_EPOCHS: Final = 20
"""The number of epochs that an error lists."""
_MAX_LISTED_MATRIX: Final = 10_000
"""The size of the largest confusion matrix that a list reads, in characters: fifty classes or so."""


def get(session: Session, job_id: str, *, owner: str | None = None) -> Job:
    """One job.

    Args:
        owner: only if it belongs to this owner; ``None``: any.

    Raises:
        JobNotFound: the job does not exist, or belongs to another owner.
    """
    job = session.scalar(select(Job).where(Job.id == job_id, visible(Job.owner, owner)))
    if job is None:
        raise JobNotFound(job_id)
    return job


def several(session: Session, job_ids: Collection[str], *, owner: str | None = None) -> Sequence[Job]:
    """The jobs with these ids that exist, newest first."""
    query = select(Job).where(Job.id.in_(job_ids), visible(Job.owner, owner))
    return session.scalars(query.order_by(Job.created_ms.desc(), Job.id.desc())).all()


def existing(session: Session, job_ids: Collection[str], *, owner: str | None = None) -> set[str]:
    """Those of the ids that belong to existing jobs."""
    return set(session.scalars(select(Job.id).where(Job.id.in_(job_ids), visible(Job.owner, owner))))


def require_training(parameter: str, job: Job) -> None:
    """Refuse a prediction, which has no epochs, metrics or weights.

    Raises:
        UnusableParameter: it is one.
    """
    if not kinds.of(job.kind).trains:
        raise UnusableParameter(parameter, f"{job.id} is a prediction: it has no metrics or weights to compare")


def parent(session: Session, job: Job, *, owner: str | None = None) -> Job | None:
    """The job that this one was forked from or reproduces, if it exists."""
    if job.parent_id is None:
        return None
    row = session.get(Job, job.parent_id)
    return row if row is not None and owner in (None, row.owner) else None


def children(session: Session, job_id: str, *, owner: str | None = None, limit: int) -> tuple[Sequence[Job], int]:
    """The newest forks and reproductions of a job, and their total number."""
    conditions = (Job.parent_id == job_id, visible(Job.owner, owner))
    loaded = (Job.id, Job.name, Job.kind, Job.status, Job.start_epoch, Job.reproduction)
    newest = select(Job).where(*conditions).order_by(Job.created_ms.desc(), Job.id.desc()).limit(limit)
    rows = session.scalars(newest.options(load_only(*loaded))).all()
    count = (
        session.scalar(select(func.count()).select_from(Job).where(*conditions)) if len(rows) == limit else len(rows)
    )
    return rows, count or 0


def stopped_by_sweep(session: Session, jobs: Sequence[Job]) -> set[str]:
    """The ids of those jobs that are cancelled because their sweeps stopped their trials."""
    candidates = [job.id for job in jobs if job.status == Status.CANCELLED and job.sweep_id is not None]
    if not candidates:
        return set()
    return set(session.scalars(select(Job.id).where(Job.id.in_(candidates), is_stopped_by_sweep())))


def epochs(session: Session, job_id: str, *, after: int = 0) -> Sequence[Epoch]:
    """The finished epochs of a job in order, from the one that follows ``after``."""
    query = select(Epoch).where(Epoch.job_id == job_id, Epoch.epoch > after)
    return session.scalars(query.order_by(Epoch.epoch)).all()


def matrix(session: Session, job: Job, which: str) -> tuple[int, list[list[int]]] | None:
    """The epoch named by ``best``, ``latest`` or its number, and its confusion matrix, if it has one."""
    names = {"best": job.best_epoch or job.epoch, "latest": job.epoch}
    row = session.get(Epoch, (job.id, names[which] if which in names else int(which)))
    return (row.epoch, row.confusion) if row is not None and row.confusion is not None else None


def last_value(session: Session, job_id: str, metric: str, *, until: int) -> tuple[float, int] | None:
    """The value of a metric in the last epoch in which it is finite, and this epoch; ``None`` if it never is.

    Some metrics, such as the Fréchet distance, are not measured in every epoch.

    Args:
        until: the last epoch that counts.
    """
    value = Epoch.metrics[metric].as_float()
    query = select(value, Epoch.epoch).where(Epoch.job_id == job_id, Epoch.epoch <= until, value.is_not(None))
    row = session.execute(query.order_by(Epoch.epoch.desc()).limit(1)).one_or_none()
    return None if row is None else (row[0], row[1])


def validation_counts(session: Session, jobs: Sequence[Job]) -> dict[str, int]:
    """The number of validation examples that each job is scored on, by id, as far as an epoch has told.

    Of several jobs, those with a large confusion matrix are left out.
    """
    last_epochs = [(job.id, job.epoch) for job in jobs]
    query = select(Epoch.job_id, Epoch.confusion).where(tuple_(Epoch.job_id, Epoch.epoch).in_(last_epochs))
    if len(jobs) > 1:
        query = query.where(func.length(cast(Epoch.confusion, Text)) < _MAX_LISTED_MATRIX)
    return {job_id: sum(map(sum, matrix)) for job_id, matrix in session.execute(query) if matrix}


def trained_s(session: Session, job: Job) -> float:
    """Seconds that a job spent training its finished epochs, without waiting, pauses, and reused epochs."""
    query = select(func.sum(Epoch.seconds)).where(Epoch.job_id == job.id, Epoch.epoch > job.reused_epochs)
    return session.scalar(query) or 0.0


def artifacts(session: Session, job_id: str, kind: ArtifactKind | None = None) -> Sequence[Artifact]:
    """The files of a job, by kind and epoch."""
    query = select(Artifact).where(Artifact.job_id == job_id)
    if kind is not None:
        query = query.where(Artifact.kind == kind)
    return session.scalars(query.order_by(Artifact.kind, Artifact.epoch)).all()


def artifact(session: Session, job_id: str, artifact_id: str) -> Artifact:
    """One file of a job.

    Raises:
        ArtifactNotFound: the job has no such file.
    """
    row = session.get(Artifact, artifact_id)
    if row is None or row.job_id != job_id:
        raise ArtifactNotFound(job_id, f"artifact {artifact_id!r}")
    return row


def checkpoint(session: Session, job: Job, which: str) -> Artifact:
    """The checkpoint named by ``best``, ``latest`` or the number of an epoch.

    Raises:
        ArtifactNotFound: there is none, or it was removed.
    """
    return _find_artifact(session, job, ArtifactKind.CHECKPOINT, which)


def sample(session: Session, job: Job, which: str) -> Artifact:
    """The sample grid named by ``latest`` or the number of an epoch.

    Raises:
        ArtifactNotFound: there is none.
    """
    return _find_artifact(session, job, ArtifactKind.SAMPLE, which)


def _find_artifact(session: Session, job: Job, kind: ArtifactKind, which: str) -> Artifact:
    query = select(Artifact).where(Artifact.job_id == job.id, Artifact.kind == kind)
    if which == "best" and job.best_epoch is not None:
        query = query.where(Artifact.epoch == job.best_epoch)
    elif which not in ("best", "latest"):
        if not (which.isascii() and which.isdigit() and len(which) < 10):
            raise ArtifactNotFound(job.id, f"{kind} {which!r}; name an epoch's number, or latest")
        query = query.where(Artifact.epoch == int(which))
    row = session.scalar(query.order_by(Artifact.epoch.desc()).limit(1))
    if row is None:
        raise ArtifactNotFound(job.id, _missing_item(session, job, kind, which))
    return row


def _missing_item(session: Session, job: Job, kind: ArtifactKind, which: str) -> str:
    """The text for a missing file: it lists stored epochs, and says how to keep a checkpoint that was deleted."""
    query = select(Artifact.epoch).where(Artifact.job_id == job.id, Artifact.kind == kind)
    epochs = session.scalars(query.order_by(Artifact.epoch.desc()).limit(_MAX_LISTED_EPOCHS + 1)).all()
    if not epochs:
        return str(kind)
    listed = ", ".join(map(str, epochs[_MAX_LISTED_EPOCHS - 1 :: -1]))
    available = f"{'latest ' if len(epochs) > _MAX_LISTED_EPOCHS else ''}available epochs: {listed}"
    if not which.isdigit():
        return f"{which} {kind}; {available}"
    is_deleted = kind is ArtifactKind.CHECKPOINT and int(which) <= job.epoch
    remedy = '. To keep all checkpoints, set "checkpoint": {"keep_last": 1000} in the spec' if is_deleted else ""
    return f"{kind} of epoch {which}; {available}{remedy}"


def artifact_epochs(session: Session, job_ids: Collection[str], kind: ArtifactKind) -> dict[str, list[int]]:
    """For each job with files of this kind, their epochs in ascending order."""
    query = select(Artifact.job_id, Artifact.epoch).where(Artifact.job_id.in_(job_ids), Artifact.kind == kind)
    by_job: dict[str, list[int]] = {}
    for job_id, epoch in session.execute(query.order_by(Artifact.job_id, Artifact.epoch)):
        by_job.setdefault(job_id, []).append(epoch)
    return by_job


def paths(session: Session, job_ids: Collection[str]) -> dict[str, set[str]]:
    """The paths of the files of each existing job."""
    by_job: dict[str, set[str]] = {
        job_id: set() for job_id in session.scalars(select(Job.id).where(Job.id.in_(job_ids)))
    }
    rows = select(Artifact.job_id, Artifact.path).where(Artifact.job_id.in_(job_ids))
    for job_id, path in session.execute(rows):
        by_job.setdefault(job_id, set()).add(path)
    return by_job
