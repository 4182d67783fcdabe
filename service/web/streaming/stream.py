"""Server-sent events out of the database: one reader a process looks, every client is told.

The log of events has no holes and is numbered by job, so a client that was slow, or away, reads on from the
number that it has. Nothing is ever dropped; there is only a later and an earlier.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
from service.web.streaming.polling import DATABASE_POLL_INTERVAL_S, DatabasePoller

PING_S: Final = 15.0
MAX_CLIENTS: Final = 600
"""Of one web process, all kinds of streams and of answers that are held back together: each takes a thread."""
RETRY_MS: Final = 2000

_RECENT: Final = 256
_BATCH: Final = 200
RECHECK_S: Final = 3.0
"""How often an open stream asks whether its key still opens it."""
_WAIT_S: Final = 1.0
"""So often a waiting client looks whether its connection still stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """What of a job changes while it is watched."""

    last_seq: int
    status: str
    epoch: int
    epochs: int
    step: int
    steps: int
    steps_per_second: float | None

    @classmethod
    def of(cls, job: Job) -> Self:
        """The pulse of a job that was just read."""
        return cls(**{name: getattr(job, name) for name in cls.__dataclass_fields__})

    @classmethod
    def from_row(cls, values: Sequence[Any]) -> Self:
        """The same from the values of ``PROGRESS_COLUMNS``."""
        return cls(**dict(zip(cls.__dataclass_fields__, values, strict=True)))

    @property
    def progress(self) -> Progress:
        """How far the job is."""
        return Progress.at(
            status=self.status,
            epoch=self.epoch,
            epochs=self.epochs,
            step=self.step,
            steps=self.steps,
            steps_per_second=self.steps_per_second,
        )


PROGRESS_COLUMNS: Final = [getattr(Job, name) for name in JobProgress.__dataclass_fields__]


@dataclass(slots=True)
class _Watched:
    """A job that somebody watches."""

    pulse: JobProgress | None = None
    gone: bool = False
    recent: tuple[dict[str, Any], ...] = ()
    """The last events without a hole, so that a hundred clients of one job cost one query."""
    clients: set[threading.Event] = field(default_factory=set)


class JobWatch:
    """One client's view of one job."""

    def __init__(self, watched: _Watched, wake_up: threading.Event) -> None:
        self._watched, self._wake_up = watched, wake_up

    @property
    def pulse(self) -> JobProgress | None:
        """The newest that the reader has seen, ``None`` before its first look."""
        return self._watched.pulse

    @property
    def gone(self) -> bool:
        """Whether the job was deleted."""
        return self._watched.gone

    def wait(self, timeout_s: float) -> None:
        """Sleep until something has changed, or the time is over."""
        self._wake_up.wait(timeout_s)
        self._wake_up.clear()

    def recent(self, after: int) -> list[dict[str, Any]] | None:
        """The events above ``after``, or ``None`` where only the database has them all."""
        known = self._watched.recent
        if not known or known[0]["seq"] > after + 1:
            return None
        return [event for event in known if event["seq"] > after]


class Hub:
    """Looks into the database for all clients of this process, and only while there are any."""

    def __init__(
        self, database: Database, *, poll_interval_s: float = DATABASE_POLL_INTERVAL_S, ping_s: float = PING_S
    ) -> None:
        self.ping_s = ping_s
        self._database = database
        self._watched: dict[str, _Watched] = {}
        self._clients = 0
        self._poller = DatabasePoller(
            "stream-hub", lambda: self._poll, is_needed=lambda: bool(self._watched), interval_s=poll_interval_s
        )
        self.closing = False
        """Set when the process stops: every stream ends, and its client comes back to another process."""

    @property
    def clients(self) -> int:
        """How many watch now."""
        return self._clients

    @property
    def is_reading(self) -> bool:
        """Whether the reader's thread runs; it ends by itself after the last client."""
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
    def watch(self, job_id: str) -> Iterator[JobWatch]:
        """Be told when a job changes."""
        wake_up = threading.Event()
        with self._poller.lock:
            watched = self._watched.setdefault(job_id, _Watched())
            watched.clients.add(wake_up)
            self._clients += 1
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

    def _poll(self) -> None:
        with self._poller.lock:
            watched = dict(self._watched)
        with self._database.read() as session:
            found = {
                row[0]: JobProgress.from_row(row[1:])
                for row in session.execute(select(Job.id, *PROGRESS_COLUMNS).where(Job.id.in_(list(watched))))
            }
            recent = {
                job_id: self._recent(session, job_id, item, found.get(job_id)) for job_id, item in watched.items()
            }
        # Only after all was read: a look that failed half way leaves everything as it was.
        for job_id, item in watched.items():
            now = found.get(job_id)
            item.recent = recent[job_id]
            if now != item.pulse or now is None:
                item.pulse, item.gone = now, now is None
                with self._poller.lock:
                    listeners = list(item.clients)
                for wake_up in listeners:
                    wake_up.set()

    def _recent(
        self, session: Session, job_id: str, item: _Watched, now: JobProgress | None
    ) -> tuple[dict[str, Any], ...]:
        """The events to keep: those kept so far, and what is new up to this look."""
        before = item.pulse
        if before is None or now is None or now.last_seq == before.last_seq:
            return item.recent
        if now.last_seq < before.last_seq:  # the database was brought back to an earlier state
            return ()
        count = now.last_seq - before.last_seq
        if count > _RECENT:
            return ()
        news = events.read(session, job_id, after=before.last_seq, limit=count)
        return (*item.recent, *(event_document(event, job_id=job_id) for event in news))[-_RECENT:]


def follow(
    hub: Hub,
    database: Database,
    job: Job,
    snapshot: JobDetail,
    *,
    after: int,
    connection: socket.socket | None,
    may_go_on: Callable[[], bool],
) -> Iterator[str]:
    """The text of one client's stream: a snapshot, the log from ``after`` on, then what happens.

    It ends with the job, with the process, when ``connection`` turns out to be closed, or within some seconds after
    ``may_go_on`` says no.
    """
    allowed = Permission(may_go_on)
    with hub.watch(job.id) as watch:
        yield f"retry: {RETRY_MS}\nevent: snapshot\ndata: {dump(snapshot.model_dump(mode='json'))}\n\n"
        pulse, sent, step = JobProgress.of(job), min(after, job.last_seq), job.step
        written = time.monotonic()
        while not hub.closing and allowed:
            seen = watch.pulse
            if seen is not None and (seen.last_seq, seen.step) >= (pulse.last_seq, pulse.step):
                pulse = seen
            try:
                batch = _unsent(watch, database, job.id, sent, pulse)
            except SQLAlchemyError:  # the reader's thread says so in the log
                batch = []
            for document in batch:
                yield f"id: {document['seq']}\nevent: {document['type']}\ndata: {dump(document)}\n\n"
                sent = document["seq"]
            if pulse.status in TERMINAL and sent >= pulse.last_seq:
                return
            if pulse.step != step:
                step = pulse.step
                yield f"event: progress\ndata: {dump({'job': job.id, **pulse.progress.model_dump()})}\n\n"
                written = time.monotonic()
            if batch:
                written = time.monotonic()
                continue
            if time.monotonic() - written >= hub.ping_s:
                yield ": ping\n\n"
                written = time.monotonic()
            watch.wait(_WAIT_S)
            if watch.gone or is_closed(connection):
                return


class Permission:
    """Whether a stream may go on, asked every few seconds."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask, self._asked, self._found = ask, time.monotonic(), True

    def __bool__(self) -> bool:
        now = time.monotonic()
        if self._found and now - self._asked >= RECHECK_S:
            self._asked = now
            # Where the database does not answer, nothing is read from it either.
            with suppress(SQLAlchemyError):
                self._found = self._ask()
        return self._found


def is_closed(connection: socket.socket | None) -> bool:
    """Whether the client has hung up; a server that shows no socket learns it from a failing write."""
    if connection is None:
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _unsent(
    watch: JobWatch, database: Database, job_id: str, sent: int, pulse: JobProgress
) -> Sequence[dict[str, Any]]:
    if sent >= pulse.last_seq:
        return []
    known = watch.recent(sent)
    if known is None:
        with database.read() as session:
            rows = events.read(session, job_id, after=sent, limit=_BATCH)
            known = [event_document(row, job_id=job_id) for row in rows]
    # What is newer than the pulse waits for its own, so that an end is known to be the last.
    fresh = [document for document in known if document["seq"] <= pulse.last_seq]
    return [
        _superseded(document)
        if document["type"] == EventType.END and not _ends(database, pulse, document)
        else document
        for document in fresh
    ]


def _ends(database: Database, pulse: JobProgress, document: Mapping[str, Any]) -> bool:
    """Whether the job ended there: no retry followed, though its name may have been changed since."""
    if pulse.status not in TERMINAL or document["seq"] == pulse.last_seq:
        return pulse.status in TERMINAL
    with database.read() as session:
        ends = events.of_type(session, document["job"], EventType.END)
    return bool(ends) and ends[-1].seq == document["seq"]


def _superseded(document: dict[str, Any]) -> dict[str, Any]:
    """The end of an attempt that was followed by a retry ended nothing: it goes out as a status."""
    return document | {"type": EventType.STATUS.value, "superseded": True}


def dump(document: Any) -> str:
    """JSON in one line, as an event needs it."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
