"""Server-sent events of one job. One thread per process polls the database for all clients.

Events are numbered per job without gaps, so a client that was slow or disconnected resumes after the last number that
it has, and misses nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.jobs import events
from service.jobs.events import EventType
from service.states import TERMINAL
from service.storage.database import Database
from service.storage.tables import Job
from service.web.schemas.epochs import event_document
from service.web.schemas.jobs import JobDetail, Progress
from service.web.streaming.client import StreamClient
from service.web.streaming.messages import PING, PING_S, RETRY, PingTimer, chunks, message
from service.web.streaming.polling import DATABASE_POLL_INTERVAL_S, DatabasePoller

MAX_CLIENTS: Final = 600
"""Maximum number of streams and delayed responses per web process; each occupies a thread."""
_MAX_RECENT: Final = 256
_BATCH_SIZE: Final = 200
_ACTIVE_S: Final = 1.0
"""How long after an event, or the start of a stream, the database is polled at the shorter interval."""
_ACTIVE_INTERVAL_S: Final = 0.025
_FEW_CLIENTS: Final = 10
"""With more clients, the shorter interval grows in proportion: each poll that finds an event wakes all of them."""
_WAIT_S: Final = 1.0
"""How often an idle stream checks whether its connection is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """The fields of a job that change while it runs."""

    last_seq: int
    status: str
    epoch: int
    epochs: int
    step: int
    steps: int
    steps_per_second: float | None

    @classmethod
    def of(cls, job: Job) -> Self:
        """The progress of a row that was just read."""
        return cls(**{name: getattr(job, name) for name in cls.__dataclass_fields__})

    @classmethod
    def from_row(cls, values: Sequence[Any]) -> Self:
        """The progress from the values of ``PROGRESS_COLUMNS``."""
        return cls(**dict(zip(cls.__dataclass_fields__, values, strict=True)))

    @property
    def progress(self) -> Progress:
        """As represented in responses."""
        return Progress.at(
            status=self.status,
            epoch=self.epoch,
            epochs=self.epochs,
            step=self.step,
            steps=self.steps,
            steps_per_second=self.steps_per_second,
        )


PROGRESS_COLUMNS: Final = [getattr(Job, name) for name in JobProgress.__dataclass_fields__]


@dataclass(frozen=True, slots=True)
class _EncodedEvent:
    """An event, with its encoded text, the same for all clients."""

    document: dict[str, Any]
    text: str

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        return cls(document, message(document["type"], document, number=document["seq"]))

    @property
    def seq(self) -> int:
        return int(self.document["seq"])


@dataclass(slots=True)
class _WatchedJob:
    """A job with at least one stream."""

    progress: JobProgress | None = None
    deleted: bool = False
    polled_text: tuple[JobProgress | None, str] = (None, "")
    """A progress and its encoded event: one attribute, so that the two always match."""
    recent: tuple[_EncodedEvent, ...] = ()
    """The latest events without gaps, so that all clients of a job share one query."""
    clients: set[threading.Event] = field(default_factory=set)


class JobWatch:
    """One client's view of one job."""

    def __init__(self, watched: _WatchedJob, wake_up: threading.Event) -> None:
        self._watched, self._wake_up = watched, wake_up

    @property
    def progress(self) -> JobProgress | None:
        """The latest progress that was polled; ``None`` before the first poll."""
        return self._watched.progress

    def progress_text(self, job_id: str, current: JobProgress) -> str:
        """The encoded event of a progress, shared by all clients."""
        polled_progress, text = self._watched.polled_text
        return text if polled_progress is current else _progress_text(job_id, current)

    @property
    def deleted(self) -> bool:
        """Whether the job was deleted."""
        return self._watched.deleted

    def wait(self, timeout_s: float) -> None:
        """Wait for a change, up to ``timeout_s`` seconds."""
        self._wake_up.wait(timeout_s)
        self._wake_up.clear()

    def recent(self, after: int) -> list[_EncodedEvent] | None:
        """The events with numbers above ``after``; ``None`` if some of them are only in the database."""
        buffered = self._watched.recent
        if not buffered or buffered[0].seq > after + 1:
            return None
        return [event for event in buffered if event.seq > after]


class Hub:
    """Polls the database for all streams of this process, while there are any."""

    def __init__(
        self, database: Database, *, poll_interval_s: float = DATABASE_POLL_INTERVAL_S, ping_s: float = PING_S
    ) -> None:
        self.ping_s = ping_s
        self._database = database
        self._watched: dict[str, _WatchedJob] = {}
        self._clients = 0
        self._idle_interval_s = poll_interval_s
        self._active_at = self._last_poll_s = 0.0
        self._poller = DatabasePoller(
            "stream-hub", lambda: self._poll, is_needed=lambda: bool(self._watched), interval_s=self._interval_s
        )
        self.closing = False
        """Set when the process stops: every stream ends, and its client reconnects to another process."""

    @property
    def clients(self) -> int:
        """Number of watching clients."""
        return self._clients

    @property
    def is_reading(self) -> bool:
        """Whether the polling thread runs; it ends after the last client has left."""
        return self._poller.is_running

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Count a client that reads the database by itself."""
        with self._poller.lock:
            self._clients += 1
        try:
            yield
        finally:
            with self._poller.lock:
                self._clients -= 1

    @contextmanager
    def watch(self, job_id: str, *, is_stream: bool = True) -> Iterator[JobWatch]:
        """Watch a job for changes.

        Args:
            is_stream: whether it starts the shorter polling interval. Long polling does not: its clients watch again
                after each response, and would keep the interval short although nothing happens.
        """
        wake_up = threading.Event()
        with self._poller.lock:
            watched = self._watched.setdefault(job_id, _WatchedJob())
            watched.clients.add(wake_up)
            self._clients += 1
            if is_stream:
                self._active_at = time.monotonic()
            self._poller.ensure_running()
        self._poller.wake_up()
        try:
            yield JobWatch(watched, wake_up)
        finally:
            with self._poller.lock:
                self._clients -= 1
                watched.clients.discard(wake_up)
                if not watched.clients:
                    self._watched.pop(job_id, None)

    def _interval_s(self) -> float:
        """Time until the next poll, shorter while events follow each other and after the start of a stream."""
        if time.monotonic() - self._active_at > _ACTIVE_S:
            return self._idle_interval_s
        active_s = max(_ACTIVE_INTERVAL_S * max(1.0, self._clients / _FEW_CLIENTS), 2 * self._last_poll_s)
        return min(self._idle_interval_s, active_s)

    def _poll(self) -> None:
        started = time.monotonic()
        with self._poller.lock:
            watched = dict(self._watched)
        with self._database.read() as session:
            progresses = {
                row[0]: JobProgress.from_row(row[1:])
                for row in session.execute(select(Job.id, *PROGRESS_COLUMNS).where(Job.id.in_(list(watched))))
            }
            recent = {
                job_id: self._recent(session, job_id, watched_job, progresses.get(job_id))
                for job_id, watched_job in watched.items()
            }
        self._last_poll_s = time.monotonic() - started
        # Only after all reads: a poll that fails halfway must change nothing.
        for job_id, watched_job in watched.items():
            progress = progresses.get(job_id)
            watched_job.recent = recent[job_id]
            if progress != watched_job.progress or progress is None:
                if (
                    progress is not None
                    and watched_job.progress is not None
                    and progress.last_seq != watched_job.progress.last_seq
                ):
                    self._active_at = time.monotonic()
                if progress is not None:
                    watched_job.polled_text = (progress, _progress_text(job_id, progress))
                watched_job.progress, watched_job.deleted = progress, progress is None
                with self._poller.lock:
                    listeners = list(watched_job.clients)
                for wake_up in listeners:
                    wake_up.set()

    def _recent(
        self, session: Session, job_id: str, watched: _WatchedJob, progress: JobProgress | None
    ) -> tuple[_EncodedEvent, ...]:
        """The events to buffer: those buffered so far, and the new ones."""
        previous = watched.progress
        if previous is None or progress is None or progress.last_seq == previous.last_seq:
            return watched.recent
        if progress.last_seq < previous.last_seq:  # the database was restored to an earlier state
            return ()
        count = progress.last_seq - previous.last_seq
        if count > _MAX_RECENT:
            return ()
        new = events.read(session, job_id, after=previous.last_seq, limit=count)
        return (*watched.recent, *(_EncodedEvent.of(event_document(row, job_id=job_id)) for row in new))[-_MAX_RECENT:]


def follow_job(
    hub: Hub, database: Database, job: Job, snapshot: JobDetail, client: StreamClient, *, after: int
) -> Iterator[str]:
    """The text of one client's stream: a snapshot, the events after number ``after``, then new events.

    It ends with the job or the process, or when the client has disconnected or lost its permission.
    """
    with hub.watch(job.id) as watch:
        yield RETRY + message("snapshot", snapshot.model_dump(mode="json"))
        current, sent_seq, step = JobProgress.of(job), min(after, job.last_seq), job.step
        ping = PingTimer(hub.ping_s)
        while not hub.closing and client.permission:
            latest = watch.progress
            if latest is not None and (latest.last_seq, latest.step) >= (current.last_seq, current.step):
                current = latest
            try:
                batch = _unsent(watch, database, job.id, sent_seq, current)
            except SQLAlchemyError:  # logged by the polling thread
                batch = []
            texts = [event.text for event in batch]
            sent_seq = batch[-1].seq if batch else sent_seq
            has_ended = current.status in TERMINAL and sent_seq >= current.last_seq
            if current.step != step and not has_ended:
                step = current.step
                texts.append(watch.progress_text(job.id, current))
            yield from chunks(texts)
            if has_ended:
                return
            if texts:
                ping.restart()
            if batch:
                continue
            if ping.is_due():
                yield PING
            watch.wait(_WAIT_S)
            if watch.deleted or client.has_left:
                return


def _progress_text(job_id: str, current: JobProgress) -> str:
    return message("progress", {"job": job_id, **current.progress.model_dump()})


def _unsent(
    watch: JobWatch, database: Database, job_id: str, sent_seq: int, current: JobProgress
) -> Sequence[_EncodedEvent]:
    if sent_seq >= current.last_seq:
        return []
    unsent = watch.recent(sent_seq)
    if unsent is None:
        with database.read() as session:
            rows = events.read(session, job_id, after=sent_seq, limit=_BATCH_SIZE)
            unsent = [_EncodedEvent.of(event_document(row, job_id=job_id)) for row in rows]
    # Only up to the current progress, which says whether an end event is final.
    return [
        _as_superseded(event)
        if event.document["type"] == EventType.END and not _is_final(database, current, event.document)
        else event
        for event in unsent
        if event.seq <= current.last_seq
    ]


def _is_final(database: Database, current: JobProgress, document: Mapping[str, Any]) -> bool:
    """Whether the job ended with this event and was not retried; other events may follow, such as a new name."""
    if current.status not in TERMINAL or document["seq"] == current.last_seq:
        return current.status in TERMINAL
    with database.read() as session:
        end_events = events.of_type(session, document["job"], EventType.END)
    return bool(end_events) and end_events[-1].seq == document["seq"]


def _as_superseded(event: _EncodedEvent) -> _EncodedEvent:
    """The end event of an attempt that was retried, converted to a status event."""
    return _EncodedEvent.of(event.document | {"type": EventType.STATUS.value, "superseded": True})
