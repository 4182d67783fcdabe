"""A job's log, and streams of events."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

from flask import Blueprint, Response, request

from service.errors import JobNotFound
from service.jobs import events
from service.jobs.events import Wanted
from service.jobs.queries import listing, lookup
from service.jobs.queries.listing import JobFilter
from service.states import TERMINAL, Status
from service.web import requests
from service.web.endpoints import Result, endpoint
from service.web.files import downloads
from service.web.metrics import STREAMS
from service.web.middleware.guard import still_open
from service.web.middleware.problems import Problem
from service.web.resources.pages import job_pages
from service.web.schemas.epochs import EventList, event_document
from service.web.schemas.jobs import job_detail, job_summary
from service.web.schemas.queries import EventQuery, FeedQuery, StreamQuery
from service.web.services import owner, services
from service.web.streaming.feed import follow_all
from service.web.streaming.stream import follow

blueprint: Final = Blueprint("events", __name__)

TAG: Final = "Results"
_SNAPSHOT: Final = 500
_AT_ONCE: Final = 1000
"""Events that a download reads in one query."""
_UNFINISHED: Final = [status for status in Status if status not in TERMINAL]


@blueprint.get("/jobs/<job_id>/events")
@endpoint(
    TAG,
    EventList,
    query=EventQuery,
    other_media=("application/x-ndjson",),
    problems=("job_not_found",),
    page=job_pages.log,
)
def log(job_id: str, query: EventQuery) -> Result:
    """List the events of a job's append-only log.

    `has_more` says whether there are further events: later ones, or earlier ones with `before`.
    """
    wanted = job_pages.wanted_events(query)
    with services().database.read() as session:
        lookup.get(session, job_id, owner=owner())
        if query.format == "jsonl":
            return _as_lines(job_id, wanted, query)
        rows = events.select_from_log(
            session, job_id, wanted, after=query.after, before=query.before, limit=query.limit + 1
        )
    has_more = len(rows) > query.limit
    kept = rows[: query.limit] if query.before is None else rows[-query.limit :]
    data = [event_document(row, job_id=job_id) for row in kept]
    return EventList(data=data, has_more=has_more, next_after=data[-1]["seq"] if data else query.after)


def _as_lines(job_id: str, wanted: Wanted, query: EventQuery) -> Response:
    """The selected events as a file, read while it is sent."""
    database = services().database

    def lines() -> Iterator[str]:
        after = query.after
        while True:
            with database.read() as session:
                rows = events.select_from_log(session, job_id, wanted, after=after, limit=_AT_ONCE)
            rows = [row for row in rows if query.before is None or row.seq < query.before]
            for row in rows:
                document = event_document(row, job_id=job_id)
                yield json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"
            if len(rows) < _AT_ONCE:
                return
            after = rows[-1].seq

    response = Response(lines(), content_type="application/x-ndjson; charset=utf-8")
    response.headers["Content-Disposition"] = downloads.attachment(f"{job_id}-events.jsonl")
    return response


@blueprint.get("/jobs/<job_id>/stream")
@endpoint(
    TAG,
    "text/event-stream",
    query=StreamQuery,
    headers=("Last-Event-ID",),
    also={204: "The job has ended, and the client has all its events."},
    problems=("job_not_found", "too_many_streams", "quota_exceeded"),
)
def stream(job_id: str, query: StreamQuery) -> Response:
    """Follow a job by server-sent events.

    The first event is `snapshot` (the job). Then every event of the log is sent with its `seq` as `id`, from the first
    or after `Last-Event-ID`: `status`, `metrics`, `sample`, `checkpoint`, `health` and `log`. `progress` has no `id`
    and is not replayed. `end` is the last event.
    """
    after = requests.last_event_id(query)
    here = services()
    refuse_if_full()
    with here.database.read() as session:
        job = lookup.get(session, job_id, owner=owner())
    if job.status in TERMINAL and after is not None and after >= job.last_seq:
        return Response(status=204)
    close = here.quotas.stream(owner())
    text = follow(
        here.hub,
        here.database,
        job,
        job_detail(job),
        after=after or 0,
        connection=connection(),
        may_continue=still_open(),
    )
    return as_stream(text, close)


@blueprint.get("/stream")
@endpoint(TAG, "text/event-stream", query=FeedQuery, problems=("job_not_found", "too_many_streams", "quota_exceeded"))
def stream_all(query: FeedQuery) -> Response:
    """Follow all jobs, or some, by server-sent events.

    The first event is `snapshot`: the jobs named in `jobs`, or else the newest 500 unfinished ones. Then the log
    events and `progress` of every job follow, each with `job`. They have no ids: after a reconnection, or when a client
    reads too slowly, a new snapshot is sent.
    """
    refuse_if_full()
    here, whose, only = services(), owner(), frozenset(query.jobs)
    with here.database.read() as session:
        missing = only - lookup.existing(session, only, owner=whose)
    if missing:
        raise JobNotFound(min(missing))

    def snapshot() -> tuple[dict[str, Any], dict[str, int]]:
        with here.database.read() as session:
            if only:
                rows, more = lookup.several(session, only, owner=whose), False
            else:
                page = listing.find(session, JobFilter(status=_UNFINISHED), owner=whose, limit=_SNAPSHOT)
                rows, more = page.jobs, page.next_cursor is not None
            shown = [job_summary(job).model_dump(mode="json") for job in rows]
            return {"jobs": shown, "has_more": more}, {job.id: job.last_seq for job in rows}

    close = here.quotas.stream(whose)
    text = follow_all(
        here.feed, snapshot, owner=whose, only=only or None, connection=connection(), may_continue=still_open()
    )
    return as_stream(text, close)


def refuse_if_full() -> None:
    """Raise a ``Problem`` where one more stream would take a thread that quick answers need."""
    if services().is_full:
        raise Problem(
            "too_many_streams", "too many streams are open in this web process", headers={"Retry-After": "10"}
        )


def as_stream(text: Iterator[str], close: Callable[[], None]) -> Response:
    """The response of a stream.

    Args:
        close: called when the stream ends.
    """
    response = Response(_counted(text), content_type="text/event-stream; charset=utf-8")
    response.call_on_close(close)
    response.headers["Cache-Control"] = "no-cache, no-transform"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _counted(text: Iterator[str]) -> Iterator[str]:
    with STREAMS.track_inprogress():
        yield from text


def connection() -> socket.socket | None:
    """The connection of the current request, where the server shows it."""
    found = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    return found if isinstance(found, socket.socket) else None
