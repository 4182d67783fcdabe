"""The event stream of all jobs, for pages with many jobs. One thread per process reads the database for all clients.

Events are numbered per job, so there is no position in the whole stream from which a client could resume. A client that
connects or reconnects gets a snapshot, then every event that is not in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.errors import JobNotFound
from service.jobs import events
from service.jobs.queries import listing, lookup
from service.jobs.queries.listing import JobFilter
from service.states import TERMINAL, ListedStatus, Status
from service.storage.database import Database, now_ms
from service.storage.tables import Event, Job
from service.web.schemas.epochs import event_document
from service.web.schemas.jobs import job_summary
from service.web.streaming.client import StreamClient
from service.web.streaming.job_stream import PROGRESS_COLUMNS, JobProgress
from service.web.streaming.messages import PING, PING_S, RETRY, PingTimer, chunks, message
from service.web.streaming.polling import DATABASE_POLL_INTERVAL_S, DatabasePoller

_BUFFER_SIZE: Final = 2000
"""Number of buffered events; a client that falls further behind gets a new snapshot."""
_LOOKBACK_MS: Final = 3000
"""How far back a read searches: an event gets its time before its transaction commits."""
_LONG_LOOKBACK_MS: Final = 35_000
"""How far back some reads search: no transaction waits longer for the disk or for locks."""
_LONG_LOOKBACK_EVERY: Final = 10
"""Number of reads per read with the long lookback."""
_SEEN_TTL_MS: Final = 60_000
_WAIT_S: Final = 1.0
_SNAPSHOT_SIZE: Final = 500
_UNFINISHED: Final = [ListedStatus(status) for status in Status if status not in TERMINAL]


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event or the progress of a job, with the job's owner."""

    job_id: str
    owner: str | None
    seq: int
    """0: progress, which is not in the log."""
    text: str
    """The encoded event, the same for all clients."""


class AllJobsStream:
    """Reads and buffers the events of all jobs while there are clients."""

    def __init__(
        self, database: Database, *, poll_interval_s: float = DATABASE_POLL_INTERVAL_S, ping_s: float = PING_S
    ) -> None:
        self.ping_s = ping_s
        self.closing = False
        self._database = database
        self._listeners: set[threading.Event] = set()
        self._buffer: list[FeedEvent] = []
        self._dropped = 0
        """Number of events before the first one in the buffer."""
        self._poller = DatabasePoller(
            "all-jobs-stream",
            self._new_poll,
            is_needed=lambda: bool(self._listeners),
            interval_s=lambda: poll_interval_s,
        )

    @property
    def clients(self) -> int:
        """Number of open streams."""
        return len(self._listeners)

    @property
    def is_reading(self) -> bool:
        """Whether the reader thread runs; it ends after the last client has left."""
        return self._poller.is_running

    @contextmanager
    def listen(self) -> Iterator[threading.Event]:
        """Subscribe: yields a threading event that is set when there are new events."""
        wake_up = threading.Event()
        with self._poller.lock:
            self._listeners.add(wake_up)
            self._poller.ensure_running()
        self._poller.wait_for_first_poll(5)  # from here on, no event is missed
        try:
            yield wake_up
        finally:
            with self._poller.lock:
                self._listeners.discard(wake_up)
            self._poller.wake_up()

    @property
    def end(self) -> int:
        """The position after the newest event."""
        with self._poller.lock:
            return self._dropped + len(self._buffer)

    def since(self, position: int) -> tuple[Sequence[FeedEvent], int] | None:
        """The events from a position on, and the position after them; ``None`` if some are no longer buffered."""
        with self._poller.lock:
            if position < self._dropped:
                return None
            return self._buffer[position - self._dropped :], self._dropped + len(self._buffer)

    def _new_poll(self) -> Callable[[], None]:
        reader = LogReader(self._database)
        return lambda: self._publish(reader.read())

    def _publish(self, new_events: list[FeedEvent]) -> None:
        if not new_events:
            return
        with self._poller.lock:
            self._buffer += new_events
            excess = max(0, len(self._buffer) - _BUFFER_SIZE)
            del self._buffer[:excess]
            self._dropped += excess
            listeners = list(self._listeners)
        for wake_up in listeners:
            wake_up.set()


class LogReader:
    """Reads new events of all jobs from the database, incrementally."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: dict[str, tuple[int, int]] = {}
        """By job: the number of the last event that was read, and when (ms)."""
        self._progresses: dict[str, JobProgress] = {}
        self._since: int | None = None
        self._reads = 0

    def read(self) -> list[FeedEvent]:
        """The events since the last read; the first read returns none and only records the current state.

        It searches recent events of all jobs and, whatever their age, those of jobs that run or ran at the last read:
        a worker may be delayed for long between an event and its commit.
        """
        since, is_long = self._since, self._reads % _LONG_LOOKBACK_EVERY == 0
        self._reads += 1
        seen = dict(self._seen)  # assigned at the end, so that the next read repeats a failed one
        lookback_ms = _LONG_LOOKBACK_MS if since is None or is_long else _LOOKBACK_MS
        with self._database.read() as session:
            now: int = session.scalar(select(now_ms())) or 0
            recent = select(Event.job_id, func.min(Event.seq), func.max(Event.seq)).where(
                Event.created_ms > (now if since is None else since) - lookback_ms
            )
            ranges = {
                job_id: (first - 1, last) for job_id, first, last in session.execute(recent.group_by(Event.job_id))
            }
            new_events: list[FeedEvent] = []
            running: dict[str, JobProgress] = {}
            is_watched = or_(Job.status == Status.RUNNING, Job.id.in_(list(self._progresses)))
            for job_id, owner, *values in session.execute(
                select(Job.id, Job.owner, *PROGRESS_COLUMNS).where(is_watched)
            ):
                progress = JobProgress.from_row(values)
                previous = self._progresses.get(job_id)
                first = previous.last_seq if previous else ranges.get(job_id, (progress.last_seq - 1,))[0]
                ranges[job_id] = (first, progress.last_seq)
                if progress.status == Status.RUNNING:
                    running[job_id] = progress
                    if previous is not None and previous.step != progress.step:
                        data = {"job": job_id, **progress.progress.model_dump()}
                        new_events.append(FeedEvent(job_id, owner, 0, message("progress", data)))
            for job_id, (first, last) in ranges.items():
                last_seen = seen[job_id][0] if job_id in seen else first
                if since is not None and last > last_seen:
                    new_events += _events(session, job_id, last_seen, last)
                seen[job_id] = (max(last, last_seen), now)
        self._progresses, self._since = running, now
        self._seen = {job_id: entry for job_id, entry in seen.items() if entry[1] >= now - _SEEN_TTL_MS}
        return new_events


def _events(session: Session, job_id: str, after: int, last: int) -> list[FeedEvent]:
    owner = session.scalar(select(Job.owner).where(Job.id == job_id))
    rows = events.read(session, job_id, after=after, limit=last - after)
    return [FeedEvent(job_id, owner, row.seq, message(row.type, event_document(row, job_id=job_id))) for row in rows]


@dataclass(frozen=True, slots=True)
class JobSelection:
    """The jobs that one client follows.

    Attributes:
        owner: only this owner's; ``None``: of all owners.
        only: the ids of some jobs; empty: all jobs.
    """

    database: Database
    owner: str | None = None
    only: frozenset[str] = frozenset()

    def require_existing(self) -> None:
        """Check the ids.

        Raises:
            JobNotFound: one of the jobs does not exist, or belongs to another owner.
        """
        with self.database.read() as session:
            missing = self.only - lookup.existing(session, self.only, owner=self.owner)
        if missing:
            raise JobNotFound(min(missing))

    def includes(self, event: FeedEvent) -> bool:
        """Whether an event belongs to one of the jobs."""
        return (not self.only or event.job_id in self.only) and (self.owner is None or event.owner == self.owner)

    def snapshot(self) -> tuple[dict[str, Any], dict[str, int]]:
        """The current state of the jobs, and by job the number of its last event."""
        with self.database.read() as session:
            if self.only:
                rows, has_more = lookup.several(session, self.only, owner=self.owner), False
            else:
                page = listing.find(session, JobFilter(status=_UNFINISHED), owner=self.owner, limit=_SNAPSHOT_SIZE)
                rows, has_more = page.jobs, page.next_cursor is not None
            documents = [job_summary(job).model_dump(mode="json") for job in rows]
            return {"jobs": documents, "has_more": has_more}, {job.id: job.last_seq for job in rows}


def follow_all(stream: AllJobsStream, selection: JobSelection, client: StreamClient) -> Iterator[str]:
    """The text of one client's stream."""
    with stream.listen() as wake_up:
        yield RETRY + "\n"
        ping = PingTimer(stream.ping_s)
        position: int | None = None
        last_seqs: dict[str, int] = {}
        while not stream.closing and client.permission:
            buffered = stream.since(position) if position is not None else None
            try:
                if buffered is None:
                    position = stream.end  # before the snapshot: events that it contains are skipped below
                    document, last_seqs = selection.snapshot()
                    yield message("snapshot", document)
                    ping.restart()
                    continue
            except SQLAlchemyError:  # logged by the reader thread
                position = None
                wake_up.wait(_WAIT_S)
                continue
            new_events, position = buffered
            texts = []
            for event in new_events:
                if not selection.includes(event) or (event.seq and event.seq <= last_seqs.get(event.job_id, 0)):
                    continue
                if event.seq:
                    last_seqs[event.job_id] = event.seq
                texts.append(event.text)
            yield from chunks(texts)
            if texts:
                ping.restart()
            if ping.is_due():
                yield PING
            wake_up.wait(_WAIT_S)
            wake_up.clear()
            if client.has_left:
                return
