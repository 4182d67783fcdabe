"""The streams of one job and of all jobs, and long polling: the response is delayed until the job changes.

Events are numbered per job, so there is no position in the stream of all jobs from which a client could resume: one
that connects or reconnects gets a snapshot, then every event that is not in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Self

from flask import Response
from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.access.shares import Shared
from service.errors import JobNotFound
from service.jobs import events
from service.jobs.events import EventType
from service.jobs.queries import listing, lookup
from service.jobs.queries.listing import JobFilter
from service.states import TERMINAL, ListedStatus, Status
from service.storage.database import Database, now_ms
from service.storage.tables import Event, Job
from service.web.core.core import provided, read_job
from service.web.gate import shared_view
from service.web.gate.access_checks import count_stream, key_required_problem, permission_check
from service.web.http.responses import tagged_json
from service.web.jobs.result_schemas import event_document
from service.web.jobs.schemas import PROGRESS_COLUMNS, JobDetail, JobProgress, Progress, job_summary, read_detail
from service.web.streaming.logs import Head, LogEvent, LogSource, follow
from service.web.streaming.loop import News, stream
from service.web.streaming.messages import RETRY, message
from service.web.streaming.poller import Poller, View
from service.web.streaming.response import Permission, StreamClient

_BUFFER_SIZE: Final = 2000
"""Number of buffered events; a client that falls further behind gets a new snapshot."""
_LOOKBACK_MS: Final = 3000
"""How far back a read searches: an event gets its time before its transaction commits."""
_LONG_LOOKBACK_MS: Final = 35_000
"""How far back some reads search: no transaction waits longer for the disk or for locks."""
_LONG_LOOKBACK_EVERY: Final = 10
"""Number of reads per read with the long lookback."""
_SEEN_TTL_MS: Final = 60_000
_SNAPSHOT_SIZE: Final = 500
_UNFINISHED: Final = [ListedStatus(status) for status in Status if status not in TERMINAL]


class JobSource(LogSource):
    """Reads the logs of jobs."""

    def heads(self, session: Session, keys: Sequence[str]) -> Mapping[str, JobProgress]:
        """The progress of the jobs that exist."""
        rows = session.execute(select(Job.id, *PROGRESS_COLUMNS).where(Job.id.in_(keys)))
        return {job_id: JobProgress(*values) for job_id, *values in rows}

    def events(self, session: Session, key: str, *, after: int, limit: int) -> list[LogEvent]:
        """The events of a job after a number."""
        rows = events.read(session, key, after=after, limit=limit)
        return [LogEvent.of(event_document(row, job_id=key)) for row in rows]

    def as_of(self, event: LogEvent, head: Head, database: Database) -> LogEvent:
        """The event; the end event of an attempt that was retried becomes a status event."""
        if event.document["type"] != EventType.END or _is_final(database, head, event):
            return event
        return LogEvent.of(event.document | {"type": EventType.STATUS.value, "superseded": True})

    def text(self, event: LogEvent, key: str, link: Shared | None) -> str:
        """The encoded event."""
        if link is None:
            return event.text
        return LogEvent.of(shared_view.of_event(event.document, link, job_id=key)).text

    def progress(self, key: str, head: JobProgress) -> str:
        """The encoded progress."""
        return message("progress", {"job": key, **Progress.of(head).model_dump()})


JOBS: Final = JobSource()


def follow_job(poller: Poller, job: Job, snapshot: JobDetail, client: StreamClient, *, after: int) -> Iterator[str]:
    """The text of one client's stream of a job."""
    text = message("snapshot", snapshot.model_dump(mode="json"))
    return follow(poller, JOBS, job.id, text, JobProgress.of(job), client, after=after)


def _is_final(database: Database, head: Head, event: LogEvent) -> bool:
    """Whether the job ended with this event and was not retried; other events may follow, such as a new name."""
    if not head.has_ended or event.seq == head.last_seq:
        return head.has_ended
    with database.read() as session:
        end_events = events.of_type(session, event.document["job"], EventType.END)
    return bool(end_events) and end_events[-1].seq == event.seq


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event or the progress of a job, with the job's owner."""

    job_id: str
    owner: str | None
    seq: int
    """0: progress, which is not in the log."""
    type: str
    document: dict[str, Any]
    text: str
    """The encoded event, the same for all clients that may see all of it."""

    @classmethod
    def of(cls, owner: str | None, kind: str, document: dict[str, Any], *, seq: int = 0) -> Self:
        """The event of a document with ``job``."""
        return cls(document["job"], owner, seq, kind, document, message(kind, document))


class LogReader:
    """Reads new events of all jobs from the database, incrementally."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}
        """By job: the number of the last event that was read, and when (ms)."""
        self._progresses: dict[str, JobProgress] = {}
        self._since: int | None = None
        self._reads = 0

    def read(self, session: Session) -> list[FeedEvent]:
        """The events since the last read; the first read returns none and only records the current state.

        It searches recent events of all jobs and, whatever their age, those of jobs that run or ran at the last read:
        a worker may be delayed for long between an event and its commit.
        """
        since, is_long = self._since, self._reads % _LONG_LOOKBACK_EVERY == 0
        self._reads += 1
        seen = dict(self._seen)  # assigned at the end, so that the next read repeats a failed one
        lookback_ms = _LONG_LOOKBACK_MS if since is None or is_long else _LOOKBACK_MS
        now: int = session.scalar(select(now_ms())) or 0
        recent = select(Event.job_id, func.min(Event.seq), func.max(Event.seq)).where(
            Event.created_ms > (now if since is None else since) - lookback_ms
        )
        ranges = {job_id: (first - 1, last) for job_id, first, last in session.execute(recent.group_by(Event.job_id))}
        new_events: list[FeedEvent] = []
        running: dict[str, JobProgress] = {}
        is_watched = or_(Job.status == Status.RUNNING, Job.id.in_(list(self._progresses)))
        for job_id, owner, *values in session.execute(select(Job.id, Job.owner, *PROGRESS_COLUMNS).where(is_watched)):
            progress = JobProgress(*values)
            previous = self._progresses.get(job_id)
            first = previous.last_seq if previous else ranges.get(job_id, (progress.last_seq - 1,))[0]
            ranges[job_id] = (first, progress.last_seq)
            if progress.status == Status.RUNNING:
                running[job_id] = progress
                if previous is not None and previous.step != progress.step:
                    data = {"job": job_id, **Progress.of(progress).model_dump()}
                    new_events.append(FeedEvent.of(owner, "progress", data))
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
    return [FeedEvent.of(owner, row.type, event_document(row, job_id=job_id), seq=row.seq) for row in rows]


class AllJobsSource:
    """Reads the events of all jobs, under the key ``""``."""

    is_quick = False

    def read(self, session: Session, views: Mapping[str, View]) -> Mapping[str, View]:
        """The new view."""
        view = views[""]
        reader: LogReader = view.state or LogReader()
        new = reader.read(session)
        if view.state is not None and not new:
            return views
        return {"": View(reader, (*view.events, *new)[-_BUFFER_SIZE:], view.end + len(new))}


ALL_JOBS: Final = AllJobsSource()


@dataclass(frozen=True, slots=True)
class JobSelection:
    """The jobs that one client follows.

    Attributes:
        owner: only this owner's; ``None``: of all owners; ``""``: of everybody without a key.
        only: the ids of some jobs; empty: all jobs.
        link: the share link that permits to read them, if one does.
    """

    database: Database
    owner: str | None = None
    only: frozenset[str] = frozenset()
    link: Shared | None = None

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
        return (not self.only or event.job_id in self.only) and self.owner in (None, event.owner or "")

    def text(self, event: FeedEvent) -> str:
        """The encoded event."""
        if self.link is None:
            return event.text
        return message(event.type, shared_view.of_event(event.document, self.link, job_id=event.job_id))

    def snapshot(self) -> tuple[dict[str, Any], dict[str, int]]:
        """The current state of the jobs, and by job the number of its last event."""
        with self.database.read() as session:
            if self.only:
                rows, has_more = lookup.several(session, self.only, owner=self.owner), False
            else:
                page = listing.find(session, JobFilter(status=_UNFINISHED), owner=self.owner, limit=_SNAPSHOT_SIZE)
                rows, has_more = page.jobs, page.next_cursor is not None
            documents = [shared_view.of_model(job_summary(job), self.link).model_dump(mode="json") for job in rows]
            return {"jobs": documents, "has_more": has_more}, {job.id: job.last_seq for job in rows}


def follow_all(poller: Poller, selection: JobSelection, client: StreamClient) -> Iterator[str]:
    """The text of one client's stream."""
    with poller.listen(ALL_JOBS) as listener:
        yield RETRY + "\n"
        yield from stream(poller, listener, client, _FeedReader(selection).read)


@dataclass(slots=True)
class _FeedReader:
    """Reads the events of all jobs for one client."""

    selection: JobSelection
    position: int | None = None
    """``None``: it needs a snapshot."""
    last_seqs: dict[str, int] = field(default_factory=dict)
    """By job, the number of the last event that was sent."""

    def read(self, view: View) -> News:
        """A snapshot, or the events that were not sent."""
        buffered = view.since(self.position) if self.position is not None else None
        if view.state is not None and buffered is None:
            try:
                self.position = view.end  # before the snapshot: events that it contains are skipped below
                document, self.last_seqs = self.selection.snapshot()
            except SQLAlchemyError:  # logged by the polling thread
                self.position = None
                return News()
            return News([message("snapshot", document)], has_more=True)
        if buffered:
            self.position = view.end
        return News([self.selection.text(event) for event in buffered or () if self._is_new(event)])

    def _is_new(self, event: FeedEvent) -> bool:
        if not self.selection.includes(event) or (event.seq and event.seq <= self.last_seqs.get(event.job_id, 0)):
            return False
        if event.seq:
            self.last_seqs[event.job_id] = event.seq
        return True


def wait_for_change(job_id: str, wait_s: float) -> Response:
    """The job, as soon as it differs from the client's copy; 304 if it does not change within ``wait_s``."""
    deadline = time.monotonic() + wait_s
    permission = Permission(permission_check())
    poller = provided(Poller)
    with ExitStack() as occupied:
        occupied.callback(count_stream())  # a delayed response occupies a thread, too
        listener = occupied.enter_context(poller.listen(JOBS, job_id, is_stream=False))
        while True:
            if not permission:
                raise key_required_problem("the key was revoked, or has expired, while the response was delayed")
            # Read after the watch has begun, so that a change in between wakes this thread.
            with read_job(job_id) as (session, job):
                response = tagged_json(read_detail(session, job))
            remaining_s = deadline - time.monotonic()
            if response.status_code != 304 or remaining_s <= 0 or poller.closing:
                return response
            listener.wait(min(remaining_s, 1.0))
