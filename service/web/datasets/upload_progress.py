"""The progress of uploads, and their cancellation: in the database, because another web process may be asked."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Any, Final

from pydantic import Field
from sqlalchemy import ColumnElement, Connection, delete, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from service.storage.database import Database, now_ms
from service.storage.ids import new_id
from service.storage.owner_tables import UploadProgress
from service.web.http.problems import Problem
from service.web.http.schemas import ResponseModel

WRITE_INTERVAL_S: Final = 1.0
"""How often the progress of an upload is written, and a cancellation noticed."""
_ABANDONED_MS: Final = 15 * 60 * 1000
"""Age at which a row's upload counts as ended: no running upload pauses for so long."""
_CANCELLED: Final = "cancelled"
_STORED: Final = "stored"


class UploadState(StrEnum):
    """What is done with an upload."""

    ABSENT = "absent"
    """It has not begun, or has ended."""
    RECEIVING = "receiving"
    READING = "reading"


class UploadItem(ResponseModel):
    """How far an upload is."""

    id: str
    state: UploadState = Field(
        description="`receiving`, then `reading`: checked, converted and stored; before and afterwards `absent`."
    )
    received_bytes: int
    total_bytes: int | None = Field(description="Of the whole request; null if its size was not sent.")
    fraction: float | None = Field(description="The fraction of this state that is done, from 0 to 1; null: unknown.")


class ProgressBoard:
    """The progress of all uploads; each is visible only to its owner."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def upload(self, owner: str | None, upload_id: str | None, total_bytes: int | None) -> Iterator[ProgressRecorder]:
        """Record the progress of an upload in this block; without an id, nothing is recorded."""
        if upload_id is None:
            yield ProgressRecorder(None, "", total_bytes)
            return
        recorder = ProgressRecorder(self._database, _digest(owner, upload_id), total_bytes)
        try:
            yield recorder
        finally:
            recorder.end()

    def look_up(self, owner: str | None, upload_id: str) -> UploadItem:
        """The progress of an upload of this owner; of several with this id, of the one that was written last."""
        query = select(UploadProgress).where(_is_of(_digest(owner, upload_id)), ~_is_abandoned())
        with self._database.read() as session:
            row = session.scalar(query.order_by(UploadProgress.at_ms.desc()).limit(1))
        if row is None:
            return UploadItem(id=upload_id, state=UploadState.ABSENT, received_bytes=0, total_bytes=None, fraction=None)
        return UploadItem(
            id=upload_id,
            state=UploadState(row.state),
            received_bytes=row.received_bytes,
            total_bytes=row.total_bytes,
            fraction=row.fraction,
        )

    def cancel(self, owner: str | None, upload_id: str) -> None:
        """Cancel an upload of this owner; without effect if there is none.

        Raises:
            Problem: its data are being stored.
        """
        running = update(UploadProgress).where(_is_of(_digest(owner, upload_id)), ~_is_abandoned())
        cancelled = running.values(verdict=func.coalesce(UploadProgress.verdict, _CANCELLED))
        with self._database.write() as session:
            verdicts = session.scalars(cancelled.returning(UploadProgress.verdict)).all()
        if _STORED in verdicts:
            raise Problem("upload_stored", "all files have been read, and are being stored")


class ProgressRecorder:
    """Records the progress of one upload, about once a second. Its methods raise ``Problem`` once it is cancelled.

    Args:
        database: ``None``: nothing is recorded.
        upload: the digest of its owner and id.
    """

    def __init__(self, database: Database | None, upload: str, total_bytes: int | None) -> None:
        self._database, self._upload, self._total = database, upload, total_bytes
        self._id = new_id("upl")
        self._received = 0
        self._next_write_at = 0.0
        self._state: UploadState | None = None

    def received(self, count: int) -> None:
        """Add a number of received bytes."""
        self._received += count
        fraction = self._received / self._total if self._total else None
        self._record(UploadState.RECEIVING, None if fraction is None else min(fraction, 1.0))

    def read(self, fraction: float) -> None:
        """Record that the sandbox has read this fraction of the files, 0 to 1."""
        self._record(UploadState.READING, fraction)

    def end(self) -> None:
        """Forget the upload."""
        if self._database is not None and self._state is not None:
            with suppress(SQLAlchemyError):  # then it is forgotten when it counts as abandoned
                self._database.group_commit(
                    lambda connection: connection.execute(delete(UploadProgress).where(UploadProgress.id == self._id))
                )

    def _record(self, state: UploadState, fraction: float | None) -> None:
        now = time.monotonic()
        is_read = state is UploadState.READING and fraction == 1
        if self._database is None or (now < self._next_write_at and state is self._state and not is_read):
            return
        is_first, self._next_write_at, self._state = self._state is None, now + WRITE_INTERVAL_S, state
        progress = {
            "state": state.value,
            "received_bytes": self._received,
            "total_bytes": self._total,
            "fraction": fraction,
        }
        verdict = None
        try:
            verdict = self._write(self._database, progress, _STORED if is_read else None, is_first=is_first)
        except SQLAlchemyError:
            if is_read:  # it decides whether the upload can still be cancelled
                raise
        if verdict == _CANCELLED:
            raise Problem("upload_cancelled", "the upload was cancelled by its sender")

    def _write(
        self, database: Database, progress: dict[str, Any], proposed: str | None, *, is_first: bool
    ) -> str | None:
        """Write the progress; returns what was decided about the upload; if nothing was yet, what is proposed."""
        row = {**progress, "at_ms": now_ms()}
        decided = func.coalesce(UploadProgress.verdict, proposed)
        inserted = database.insert(UploadProgress).values(id=self._id, upload=self._upload, verdict=proposed, **row)
        # Not an update: after a long pause, another process may have removed the row.
        written = inserted.on_conflict_do_update(index_elements=[UploadProgress.id], set_={**row, "verdict": decided})
        # One that was interrupted and is sent again under the same id must not be shown, nor decide about this one.
        earlier = or_(_is_of(self._upload) & _is_undecided_or_stored(), _is_abandoned())

        def work(connection: Connection) -> str | None:
            if is_first:
                connection.execute(delete(UploadProgress).where(earlier))
            return connection.scalar(written.returning(UploadProgress.verdict))

        return database.group_commit(work)


def _digest(owner: str | None, upload_id: str) -> str:
    return hashlib.sha256(json.dumps([owner, upload_id]).encode()).hexdigest()


def _is_of(upload: str) -> ColumnElement[bool]:
    return UploadProgress.upload == upload


def _is_abandoned() -> ColumnElement[bool]:
    return UploadProgress.at_ms < now_ms() - _ABANDONED_MS


def _is_undecided_or_stored() -> ColumnElement[bool]:
    return or_(UploadProgress.verdict.is_(None), UploadProgress.verdict == _STORED)
