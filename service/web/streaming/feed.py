"""What happens to all jobs, for a page that shows many: one reader a process, as for the streams of single jobs.

There is no number over all jobs that a client could go on from. So whoever comes, or comes back, gets a snapshot,
and then every event that is not in it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.jobs import events
from service.states import Status
from service.storage.database import Database, now_ms
from service.storage.tables import Event, Job
from service.web.schemas.epochs import event_document
from service.web.streaming.polling import DATABASE_POLL_INTERVAL_S, DatabasePoller
from service.web.streaming.stream import (
    PING_S,
    PROGRESS_COLUMNS,
    RETRY_MS,
    JobProgress,
    Permission,
    dump,
    is_closed,
)

_KEPT: Final = 2000
"""So many events are kept for slow clients; whoever is slower gets a new snapshot."""
_LATE_MS: Final = 3000
"""An event's time is taken before its transaction commits: so long after, it is still looked for."""
_VERY_LATE_MS: Final = 35_000
"""In some looks, so long: no transaction waits longer for a disk, or for others."""
_WIDE_LOOK: Final = 10
"""Every so many looks."""
_REMEMBERED_MS: Final = 60_000
_WAIT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event, or a running job's progress, and whose job it is."""

    job_id: str
    owner: str | None
    type: str
    seq: int
    """0: progress, which is passing."""
    data: dict[str, Any]


class AllJobsStream:
    """Reads the log of all jobs, and only while somebody listens."""

    def __init__(
        self, database: Database, *, poll_interval_s: float = DATABASE_POLL_INTERVAL_S, ping_s: float = PING_S
    ) -> None:
        self.ping_s = ping_s
        self.closing = False
        self._database = database
        self._listeners: set[threading.Event] = set()
        self._kept: list[FeedEvent] = []
        self._dropped = 0
        """How many came before the first that is kept."""
        self._poller = DatabasePoller(
            "feed", self._new_poll, is_needed=lambda: bool(self._listeners), interval_s=poll_interval_s
        )

    @property
    def clients(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    @property
    def is_reading(self) -> bool:
        """Whether the reader's thread runs; it ends by itself after the last client."""
        return self._poller.is_running

    @contextmanager
    def listen(self) -> Iterator[threading.Event]:
        """Gives an event that is set when something new is there."""
        wake_up = threading.Event()
        with self._poller.lock:
            self._listeners.add(wake_up)
            self._poller.ensure_running()
        self._poller.wait_for_first_poll(5)  # what happens from here on is heard
        try:
            yield wake_up
        finally:
            with self._poller.lock:
                self._listeners.discard(wake_up)
            self._poller.wake_up()

    @property
    def end(self) -> int:
        """The place after the newest event."""
        with self._poller.lock:
            return self._dropped + len(self._kept)

    def since(self, place: int) -> tuple[Sequence[FeedEvent], int] | None:
        """What came after a place, and the place after it; ``None`` where not all of that is kept any more."""
        with self._poller.lock:
            if place < self._dropped:
                return None
            return self._kept[place - self._dropped :], self._dropped + len(self._kept)

    def _new_poll(self) -> Callable[[], None]:
        reader = LogReader(self._database)
        return lambda: self._tell(reader.read())

    def _tell(self, news: list[FeedEvent]) -> None:
        if not news:
            return
        with self._poller.lock:
            self._kept += news
            spare = max(0, len(self._kept) - _KEPT)
            del self._kept[:spare]
            self._dropped += spare
            listeners = list(self._listeners)
        for wake_up in listeners:
            wake_up.set()


class LogReader:
    """Reads what is new in the log of all jobs, again and again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[int, int]] = {}
        """By job: the number of the last event that was read, and when."""
        self._progresses: dict[str, JobProgress] = {}
        self._since: int | None = None
        self._reads = 0

    def read(self) -> list[FeedEvent]:
        """What is new since the last time; the first only takes note of where everything stands.

        New are the events of late and, whatever their time, those of jobs that run or ran the last time: a worker may
        be held up for long between an event and its commit.
        """
        since, is_wide = self._since, self._reads % _WIDE_LOOK == 0
        self._reads += 1
        known = dict(self._known)  # replaced at the end only: what a failed read found is found again
        late_ms = _VERY_LATE_MS if since is None or is_wide else _LATE_MS
        with self._database.read() as session:
            now: int = session.scalar(select(now_ms())) or 0
            late = select(Event.job_id, func.min(Event.seq), func.max(Event.seq)).where(
                Event.created_ms > (now if since is None else since) - late_ms
            )
            found = {job_id: (first - 1, last) for job_id, first, last in session.execute(late.group_by(Event.job_id))}
            news: list[FeedEvent] = []
            running: dict[str, JobProgress] = {}
            watched = or_(Job.status == Status.RUNNING, Job.id.in_(list(self._progresses)))
            for job_id, owner, *values in session.execute(select(Job.id, Job.owner, *PROGRESS_COLUMNS).where(watched)):
                progress = JobProgress.from_row(values)
                before = self._progresses.get(job_id)
                first = before.last_seq if before else found.get(job_id, (progress.last_seq - 1,))[0]
                found[job_id] = (first, progress.last_seq)
                if progress.status == Status.RUNNING:
                    running[job_id] = progress
                    if before is not None and before.step != progress.step:
                        data = {"job": job_id, **progress.progress.model_dump()}
                        news.append(FeedEvent(job_id, owner, "progress", 0, data))
            for job_id, (first, last) in found.items():
                heard = known[job_id][0] if job_id in known else first
                if since is not None and last > heard:
                    news += _events(session, job_id, heard, last)
                known[job_id] = (max(last, heard), now)
        self._progresses, self._since = running, now
        self._known = {job_id: item for job_id, item in known.items() if item[1] >= now - _REMEMBERED_MS}
        return news


def _events(session: Session, job_id: str, after: int, last: int) -> list[FeedEvent]:
    owner = session.scalar(select(Job.owner).where(Job.id == job_id))
    rows = events.read(session, job_id, after=after, limit=last - after)
    return [FeedEvent(job_id, owner, row.type, row.seq, event_document(row, job_id=job_id)) for row in rows]


def follow_all(
    feed: AllJobsStream,
    snapshot: Callable[[], tuple[dict[str, Any], dict[str, int]]],
    *,
    owner: str | None,
    only: frozenset[str] | None,
    connection: socket.socket | None,
    may_go_on: Callable[[], bool],
) -> Iterator[str]:
    """The text of one client's stream.

    Args:
        snapshot: gives the document that shows where the jobs stand, and each one's last event.
        owner: whose jobs; ``None`` means all.
        only: ids of the jobs to tell of; ``None`` means all.
        may_go_on: the stream ends some seconds after it says no.
    """
    allowed = Permission(may_go_on)
    with feed.listen() as wake_up:
        yield f"retry: {RETRY_MS}\n\n"
        written = time.monotonic()
        place: int | None = None
        last: dict[str, int] = {}
        while not feed.closing and allowed:
            news = feed.since(place) if place is not None else None
            try:
                if news is None:
                    place = feed.end  # before the snapshot: what is in both is left out below
                    document, last = snapshot()
                    yield f"event: snapshot\ndata: {dump(document)}\n\n"
                    written = time.monotonic()
                    continue
            except SQLAlchemyError:  # the reader's thread says so in the log
                place = None
                wake_up.wait(_WAIT_S)
                continue
            heard, place = news
            for item in heard:
                wanted = (only is None or item.job_id in only) and (owner is None or item.owner == owner)
                if not wanted or (item.seq and item.seq <= last.get(item.job_id, 0)):
                    continue
                if item.seq:
                    last[item.job_id] = item.seq
                yield f"event: {item.type}\ndata: {dump(item.data)}\n\n"
                written = time.monotonic()
            if time.monotonic() - written >= feed.ping_s:
                yield ": ping\n\n"
                written = time.monotonic()
            wake_up.wait(_WAIT_S)
            wake_up.clear()
            if is_closed(connection):
                return
