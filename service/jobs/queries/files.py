"""The files of a job, in pages: with all checkpoints kept, a job has more than two files per epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, literal, select, tuple_
from sqlalchemy.orm import Session

from service.errors import InvalidCursor
from service.runtime import cursors
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Artifact

_MAX_EPOCH: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class FilePage:
    """One page of a job's files."""

    rows: Sequence[Artifact]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class FileTotals:
    """Number and size of a job's files, by kind."""

    counts: Mapping[ArtifactKind, int]
    sizes: Mapping[ArtifactKind, int]

    def count(self, kind: ArtifactKind | None = None) -> int:
        """Number of files of one kind, or of all."""
        return sum(self.counts.values()) if kind is None else self.counts[kind]

    def size_bytes(self, kind: ArtifactKind | None = None) -> int:
        """Size of the files of one kind, or of all."""
        return sum(self.sizes.values()) if kind is None else self.sizes[kind]


def page(
    session: Session, job_id: str, kind: ArtifactKind | None = None, *, limit: int, cursor: str | None = None
) -> FilePage:
    """A page of a job's files, sorted by kind and epoch.

    Raises:
        InvalidCursor: this service did not issue the cursor.
    """
    query = select(Artifact).where(Artifact.job_id == job_id)
    if kind is not None:
        query = query.where(Artifact.kind == kind)
    if cursor is not None:
        key, position = tuple_(Artifact.kind, Artifact.epoch), _read_cursor(cursor)
        boundary = tuple_(literal(position[0], Artifact.kind.type), literal(position[1], Artifact.epoch.type))
        query = query.where(key > boundary)
    fetched = session.scalars(query.order_by(Artifact.kind, Artifact.epoch).limit(limit + 1)).all()
    rows = fetched[:limit]
    return FilePage(rows, cursors.write([rows[-1].kind, rows[-1].epoch]) if len(fetched) > limit else None)


def beside_checkpoints(session: Session, job_id: str, *, limit: int) -> Sequence[Artifact]:
    """The files of a job that are no checkpoints, newest first."""
    query = select(Artifact).where(Artifact.job_id == job_id, Artifact.kind != ArtifactKind.CHECKPOINT)
    return session.scalars(query.order_by(Artifact.kind.desc(), Artifact.epoch.desc()).limit(limit)).all()


def latest_epoch(session: Session, job_id: str, kind: ArtifactKind) -> int:
    """The epoch of a job's newest file of this kind, or 0."""
    query = select(func.max(Artifact.epoch)).where(Artifact.job_id == job_id, Artifact.kind == kind)
    return session.scalar(query) or 0


def totals(session: Session, job_id: str) -> FileTotals:
    """The totals of all files of a job."""
    query = select(Artifact.kind, func.count(), func.sum(Artifact.size_bytes)).where(Artifact.job_id == job_id)
    counts, sizes = dict.fromkeys(ArtifactKind, 0), dict.fromkeys(ArtifactKind, 0)
    for kind, count, size in session.execute(query.group_by(Artifact.kind)):
        counts[ArtifactKind(kind)], sizes[ArtifactKind(kind)] = count, int(size)
    return FileTotals(counts, sizes)


def _read_cursor(cursor: str) -> tuple[str, int]:
    kind, epoch = cursors.read(cursor, str, int)
    if kind not in list(ArtifactKind) or not 0 <= epoch <= _MAX_EPOCH:
        raise InvalidCursor("the cursor belongs to another list; start again without it")
    return kind, epoch
