"""The data that a job takes over from another one, read before the transaction that stores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from service.jobs import events
from service.jobs.events import EventType
from service.jobs.queries import lookup
from service.jobs.queries.extremes import extended
from service.jobs.reuse.sources import Source
from service.states import Status
from service.storage import artifact_rows
from service.storage.artifacts import StoredFile
from service.storage.insertions import insert_many
from service.storage.tables import ARTIFACTS, EPOCHS, EVENTS, Artifact, Epoch, Event

_EPOCH_EVENTS: Final = (EventType.METRICS, EventType.SAMPLE, EventType.CHECKPOINT, EventType.HEALTH)
_END_CODES: Final = ("tested", "stopped_early")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """Epochs of another job, with their files and events, ready to be stored."""

    source: Source
    epochs: Sequence[Epoch]
    events: Sequence[Event]
    files: Sequence[StoredFile]
    """In the new job's folder already."""

    @property
    def values(self) -> dict[str, Any]:
        """The columns of the new job's row that change."""
        source, job = self.source, self.source.job
        health_events = (event for event in self.events if event.type == EventType.HEALTH)
        extremes: dict[str, Any] = {}
        for row in self.epochs:
            extremes = extended(extremes, row.metrics, row.epoch)
        values = {
            "reused_from": job.id,
            "reused_epochs": source.epochs,
            "epoch": source.epochs,
            "step": self.epochs[-1].step,
            "metrics": self.epochs[-1].metrics,
            "extremes": extremes,
            "best_epoch": source.best_epoch,
            "health": [dict(period.finding) for period in events.found(health_events) if period.until is None],
            "size_bytes": sum(file.size_bytes for file in self.files),
        }
        if source.is_whole:
            values |= {
                "status": Status.SUCCEEDED,
                "steps": job.steps,
                "step": job.step,
                "provenance": job.provenance,
                "test_scores": job.test_scores,
                "stopped_early": job.stopped_early,
                "result_digest": job.result_digest,
            }
        return values

    @property
    def event_count(self) -> int:
        """Number of events that ``store`` inserts."""
        return 1 + len(self.events)

    def store(self, connection: Connection, job_id: str, *, lease: int, after: int, now: int) -> None:
        """Insert the epochs, the rows of files, and the events, which follow event number ``after``. The
        job's row exists and is locked; the caller sets its ``values`` and ``last_seq``."""
        keys = {"job_id": job_id, "lease": lease}
        insert_many(connection, EPOCHS, [_values(row) | keys | {"finished_ms": now} for row in self.epochs])
        rows = [artifact_rows.values(job_id, file, lease=lease, now=now) for file in self.files]
        insert_many(connection, ARTIFACTS, rows)
        artifact_rows.check_store(connection, {file.store_id for file in self.files})
        ids = {(row["kind"], row["epoch"]): row["id"] for row in rows}
        entries: list[events.NewEvent] = [(EventType.LOG, self._log_line())]
        for event in self.events:
            artifact = ids.get((event.type, event.data.get("epoch", 0)))
            entries.append((EventType(event.type), event.data | ({"artifact": artifact} if artifact else {})))
        insert_many(connection, EVENTS, events.rows(job_id, entries, after, now))

    def _log_line(self) -> dict[str, Any]:
        epochs, job_id = self.source.epochs, self.source.job.id
        message = f"{epochs} epoch{'s' if epochs > 1 else ''} reused from {job_id}"
        return {"level": "info", "code": "reused", "message": message, "job": job_id, "epochs": epochs}


def read(session: Session, source: Source) -> Copied:
    """The data to copy, without the files: they are copied after the session, because that may take long."""
    rows = [row for row in lookup.epochs(session, source.job.id) if row.epoch <= source.epochs]
    query = select(Event).where(Event.job_id == source.job.id, Event.type.in_([*_EPOCH_EVENTS, EventType.LOG]))
    copied = [event for event in session.scalars(query.order_by(Event.seq)) if _belongs(event, source)]
    return Copied(source=source, epochs=rows, events=copied, files=())


def _belongs(event: Event, source: Source) -> bool:
    if event.type == EventType.LOG:
        return source.is_whole and event.data.get("code") in _END_CODES
    return bool(event.data["epoch"] <= source.epochs)


def _values(row: Epoch | Artifact) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}
