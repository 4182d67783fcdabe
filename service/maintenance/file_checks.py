"""Reads stored files again and compares them with their rows: all at once for an operator, or slowly, within a number
of bytes per hour, for the scheduler.

A file that cannot be read is damaged only if the store responds otherwise, and if its row still names it. What is found
is kept in ``damaged_files`` until the file is intact again.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from typing import Any, Final

import structlog
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from service import kinds
from service.datasets.info import version_name
from service.datasets.uploads import UploadFiles
from service.maintenance import named_files, store_id
from service.maintenance.named_files import NamedFile
from service.states import Status
from service.storage.artifacts import EXPORTS, ArtifactDamaged, ArtifactKind, ArtifactUnreadable, unreadable
from service.storage.database import Database, now_ms
from service.storage.file_tables import DamagedFile, FileCheck
from service.storage.tables import Artifact, Job, Upload

_CHUNK_BYTES: Final = 2**20
_MIN_FILE_BYTES: Final = 2**16
"""A smaller file counts as this much: it costs a request."""
_MIN_PASS_MS: Final = 24 * 3600 * 1000
"""The files of a small service are not read all the time."""
_SAVE_INTERVAL_S: Final = 30.0
"""How much reading a restart repeats, except that of one file."""
_HOUR_S: Final = 3600.0
_PAGE: Final = 100

log = structlog.get_logger()

OnRead = Callable[[int], object]
"""Called with the number of bytes that were read since the last call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A stored file that is missing or damaged.

    Attributes:
        file: what it is, such as "checkpoint of epoch 3".
        job, artifact: ids; ``None`` for a dataset.
        dataset: its name and version; ``None`` for the file of a job.
        path: in the store.
        reason: what is wrong with it.
        meaning: what does not work without it.
    """

    file: str
    job: str | None
    artifact: str | None
    dataset: str | None
    path: str
    reason: str
    meaning: str
    remedy: str


@dataclass(frozen=True, slots=True)
class CheckState:
    """What is known of the stored files.

    Attributes:
        damaged: those that were found, oldest first.
        finished_s: seconds since all files had been read once; ``None``: they were not yet.
    """

    damaged: Sequence[Damage]
    finished_s: float | None


def read_all(database: Database, files: UploadFiles, on_read: OnRead) -> Iterator[Damage]:
    """Read every file that a row names, and yield those that are damaged.

    Raises:
        WrongStore: the store is not that of the database.
        OSError: the store does not respond now.
    """
    for page in named_files.pages(database):
        known = _known(database, page)
        for file in page:
            if (damage := _examine(database, files, file, known, on_read)) is not None:
                yield damage
    _forget_deleted(database)


def scrub(
    database: Database, files: UploadFiles, *, bytes_per_hour: int, pause: Callable[[float], object] = time.sleep
) -> None:
    """Read on where the last call stopped, in this process or another one, until every file was read once; at most once
    a day. Two callers at the same time read no more than one: the second one stops.

    Args:
        bytes_per_hour: more than 0.
        pause: sleeps for a number of seconds after each chunk, so that the limit is kept within files, too.

    Raises:
        WrongStore: the store is not that of the database.
        OSError: the store does not respond now; the next call continues.
    """
    position = _begin(database)
    if position is None:
        return

    file_bytes = 0

    def wait(count: int) -> None:
        nonlocal file_bytes
        file_bytes += count
        pause(count * _HOUR_S / bytes_per_hour)

    saved_at = time.monotonic()
    for page in named_files.pages(database, after=position, limit=_PAGE):
        store_id.verify(database, files.store)
        known = _known(database, page)
        for file in page:
            file_bytes = 0
            damage = _examine(database, files, file, known, wait)
            wait(max(0, _MIN_FILE_BYTES - file_bytes))
            if damage is not None:
                log.error(
                    "a stored file is damaged",
                    job=damage.job,
                    dataset=damage.dataset,
                    file=damage.file,
                    path=damage.path,
                    reason=damage.reason,
                    remedy=damage.remedy,
                )
            if file is page[-1] or time.monotonic() - saved_at > _SAVE_INTERVAL_S:
                if not _advance(database, position, file.position):
                    return
                position, saved_at = file.position, time.monotonic()
    _advance(database, position, None)
    _forget_deleted(database)


def read_state(database: Database) -> CheckState:
    """What the last checks found."""
    with database.read() as session:
        state = session.get(FileCheck, 1)
        finished_ms = state.finished_ms if state is not None else None
        age_ms = (session.scalar(select(now_ms())) or 0) - finished_ms if finished_ms is not None else None
        rows = session.scalars(select(DamagedFile).order_by(DamagedFile.found_ms, DamagedFile.id)).all()
        found = [_describe(session, row.id, ArtifactDamaged(row.path, row.reason)) for row in rows]
    damaged = [damage for damage in found if damage is not None]
    return CheckState(damaged, None if age_ms is None else max(0, age_ms) / 1000)


def count_damaged(session: Session) -> int:
    """The number of files that were found damaged, and are still named by rows."""
    query = select(func.count()).select_from(DamagedFile)
    named = [select(table.id).where(table.id == DamagedFile.id).exists() for table in named_files.TABLES]
    return session.scalar(query.where(or_(*named))) or 0


def _examine(
    database: Database, files: UploadFiles, file: NamedFile, known: set[str], on_read: OnRead
) -> Damage | None:
    """Read a file, and note whether it is damaged.

    Args:
        known: the ids of rows whose files were damaged before.
    """
    fault = _read(files, file, on_read)
    if fault is None:
        if file.row_id in known:
            with database.write() as session:
                session.execute(delete(DamagedFile).where(DamagedFile.id == file.row_id))
        return None
    store_id.verify(database, files.store)  # the folder may not be mounted any more
    with database.read() as session:
        damage = _describe(session, file.row_id, fault)
    if damage is None:
        return None  # it was deleted meanwhile
    values = {"path": fault.path, "reason": fault.reason}
    insert = database.insert(DamagedFile).values(id=file.row_id, found_ms=now_ms(), **values)
    with database.write() as session:
        session.execute(insert.on_conflict_do_update(index_elements=[DamagedFile.id], set_=values))
    return damage


def _read(files: UploadFiles, file: NamedFile, on_read: OnRead) -> ArtifactDamaged | None:
    """What is wrong with a file.

    Raises:
        OSError: the store does not respond now.
    """
    try:
        return _find_fault(files, file, on_read)
    except ArtifactUnreadable:
        files.store.read_id()  # raises if it is the store that does not respond
    try:
        return _find_fault(files, file, on_read)
    except ArtifactUnreadable as error:
        return ArtifactDamaged(error.path, f"cannot be read: {error.reason}")


def _find_fault(files: UploadFiles, file: NamedFile, on_read: OnRead) -> ArtifactDamaged | None:
    try:
        if file.table is Upload:
            _ObservedUploads(files, on_read).check(file.path, file.sha256)
            return None
        with files.store.open(file.path) as content:
            size_bytes = content.seek(0, os.SEEK_END)
            if size_bytes != file.size_bytes:
                return ArtifactDamaged(file.path, f"has {size_bytes} bytes instead of {file.size_bytes}")
            content.seek(0)
            try:
                digest = hashlib.file_digest(_observed(content, on_read), "sha256").hexdigest()
            except OSError as error:
                raise unreadable(file.path, error) from error
        differs = digest != file.sha256
        return ArtifactDamaged(file.path, "its SHA-256 differs from the stored one") if differs else None
    except ArtifactUnreadable:
        raise
    except ArtifactDamaged as error:
        return error


class _Observed(io.RawIOBase):
    """A file that tells how much was read."""

    def __init__(self, file: BufferedReader, on_read: OnRead) -> None:
        self._file, self._on_read = file, on_read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        if count:
            self._on_read(count)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _observed(file: BufferedReader, on_read: OnRead) -> BufferedReader:
    return BufferedReader(_Observed(file, on_read), _CHUNK_BYTES)


class _ObservedUploads(UploadFiles):
    """The files of uploads, read under observation."""

    def __init__(self, files: UploadFiles, on_read: OnRead) -> None:
        super().__init__(files.store, files.artifacts)
        self._on_read = on_read

    def open(self, upload_id: str, name: str) -> BufferedReader:
        """Open a file of an upload."""
        return _observed(super().open(upload_id, name), self._on_read)


def _describe(session: Session, row_id: str, fault: ArtifactDamaged) -> Damage | None:
    """What a damaged file is, and what can be done; ``None`` if no row names it any more."""
    upload = session.get(Upload, row_id)
    if upload is not None:
        return Damage(
            file=f"dataset {upload.name}",
            job=None,
            artifact=None,
            dataset=version_name(upload.name, upload.sha256),
            path=fault.path,
            reason=fault.reason,
            meaning="no job can train on this dataset",
            remedy="restore the file from a backup, or upload the data again under another name",
        )
    row = session.get(Artifact, row_id)
    job = session.get(Job, row.job_id) if row is not None else None
    if row is None or job is None:
        return None
    return Damage(
        file=f"{row.kind} of epoch {row.epoch}" if kinds.of(job.kind).trains else "predictions",
        job=job.id,
        artifact=row.id,
        dataset=None,
        path=fault.path,
        reason=fault.reason,
        meaning=_meaning(job, ArtifactKind(row.kind)),
        remedy=_remedy(job, ArtifactKind(row.kind)),
    )


def _is_unfinished(job: Job) -> bool:
    return job.status != Status.SUCCEEDED


def _meaning(job: Job, kind: ArtifactKind) -> str:
    if kind is ArtifactKind.CHECKPOINT:
        if _is_unfinished(job):
            return "the job continues from an earlier checkpoint, and trains the epochs since then again"
        return "predictions, exports and forks of this epoch are refused"
    if kind is ArtifactKind.SAMPLE:
        return "the samples of this epoch cannot be shown"
    return f"{'this export' if kind in EXPORTS else 'the result of the job'} cannot be downloaded"


def _remedy(job: Job, kind: ArtifactKind) -> str:
    restore = "restore the file from a backup"
    if kind is ArtifactKind.CHECKPOINT and _is_unfinished(job):
        return f"{restore}, or let the job go on"
    if not kinds.of(job.kind).trains:
        return f"{restore}, or predict the dataset again"
    return f"{restore}, or train the job again with the same bits: tapeline reproduce {job.id}"


def _known(database: Database, page: Sequence[NamedFile]) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(DamagedFile.id).where(DamagedFile.id.in_([file.row_id for file in page]))))


def _begin(database: Database) -> str | None:
    """The position to read on from; ``None`` if it is too early for the next time."""
    with database.read() as session:
        state, now = session.get(FileCheck, 1), session.scalar(select(now_ms())) or 0
    if state is not None and state.position is not None:
        return state.position
    if state is not None and now - state.started_ms < _MIN_PASS_MS:
        return None
    values = {"position": "", "started_ms": now_ms()}
    insert = database.insert(FileCheck).values(number=1, finished_ms=None, **values)
    with database.write() as session:
        session.execute(insert.on_conflict_do_update(index_elements=[FileCheck.number], set_=values))
    return ""


def _advance(database: Database, before: str, after: str | None) -> bool:
    """Save a position, or (``None``) that all files were read, unless another process has; returns whether it was."""
    values = {"position": after} | ({"finished_ms": now_ms()} if after is None else {})
    with database.write() as session:
        query = update(FileCheck).where(FileCheck.number == 1, FileCheck.position == before).values(values)
        return session.scalar(query.returning(FileCheck.number)) is not None


def _forget_deleted(database: Database) -> None:
    """Remove what was found of files whose rows are deleted."""
    named = [select(table.id).where(table.id == DamagedFile.id).exists() for table in named_files.TABLES]
    with database.write() as session:
        session.execute(delete(DamagedFile).where(~or_(*named)))
