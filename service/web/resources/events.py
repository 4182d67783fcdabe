"""A job's log, and the stream of what happens."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

from flask import Blueprint, Response, request

from service.contract import events, jobs, listing
from service.contract.listing import JobFilter
from service.contract.states import TERMINAL, Status
from service.web import queries, representations
from service.web.answers import as_json
from service.web.feed import follow_all
from service.web.guard import still_open
from service.web.metrics import STREAMS
from service.web.operations import documented
from service.web.problems import Problem
from service.web.queries import EventQuery, FeedQuery, StreamQuery
from service.web.representations import EventList
from service.web.services import owner, services
from service.web.stream import MAX_CLIENTS, follow

blueprint: Final = Blueprint("events", __name__)

TAG: Final = "Results"
_SNAPSHOT: Final = 500
_UNFINISHED: Final = [status for status in Status if status not in TERMINAL]


@blueprint.get("/jobs/<job_id>/events")
@documented(TAG, EventList, query=EventQuery, problems=("job_not_found",))
def log(job_id: str) -> Response:
    """Show a job's log, which only grows."""
    query = queries.read_query(EventQuery)
    with services().database.read() as session:
        jobs.get(session, job_id, owner=owner())
        rows = events.read(session, job_id, after=query.after, limit=query.limit + 1)
        data = [representations.event_document(row, job_id=job_id) for row in rows[: query.limit]]
    last = data[-1]["seq"] if data else query.after
    return as_json(EventList(data=data, has_more=len(rows) > query.limit, next_after=last))


@blueprint.get("/jobs/<job_id>/stream")
@documented(
    TAG,
    "text/event-stream",
    query=StreamQuery,
    headers=("Last-Event-ID",),
    also={204: "The job has ended, and the client has all its events."},
    problems=("job_not_found", "too_many_streams", "quota_exceeded"),
)
def stream(job_id: str) -> Response:
    """Follow a job by server-sent events.

    First comes `snapshot` (the job), then every event of the log with its `seq` as `id`, from the first or after
    `Last-Event-ID`, then what happens: `status`, `metrics`, `sample`, `checkpoint`, `health`, `log`, and
    `progress`, which has no `id` and is not repeated. `end` is the last.
    """
    after = queries.last_event_id(queries.read_query(StreamQuery))
    here = services()
    _refuse_if_full()
    with here.database.read() as session:
        job = jobs.get(session, job_id, owner=owner())
    if job.status in TERMINAL and after is not None and after >= job.last_seq:
        return Response(status=204)
    close = here.quotas.stream(owner())
    text = follow(
        here.hub,
        here.database,
        job,
        representations.job_detail(job),
        after=after or 0,
        connection=_connection(),
        may_go_on=still_open(),
    )
    return _as_stream(text, close)


@blueprint.get("/stream")
@documented(TAG, "text/event-stream", query=FeedQuery, problems=("job_not_found", "too_many_streams", "quota_exceeded"))
def stream_all() -> Response:
    """Follow all jobs, or some, by server-sent events.

    First comes `snapshot`: the jobs that `jobs` names or, where it names none, the newest 500 that have not ended.
    Then, for every job, the events of its log and `progress`, each with `job`. There are no ids: who comes back gets a
    new snapshot. A client that is too slow gets one too.
    """
    query = queries.read_query(FeedQuery)
    _refuse_if_full()
    here, whose, only = services(), owner(), frozenset(query.jobs)
    with here.database.read() as session:
        for job_id in only:
            jobs.get(session, job_id, owner=whose)

    def snapshot() -> tuple[dict[str, Any], dict[str, int]]:
        with here.database.read() as session:
            if only:
                rows, more = jobs.several(session, only, owner=whose), False
            else:
                page = listing.find(session, JobFilter(status=_UNFINISHED), owner=whose, limit=_SNAPSHOT)
                rows, more = page.jobs, page.next_cursor is not None
            shown = [representations.job_summary(job).model_dump(mode="json") for job in rows]
            return {"jobs": shown, "has_more": more}, {job.id: job.last_seq for job in rows}

    close = here.quotas.stream(whose)
    text = follow_all(
        here.feed, snapshot, owner=whose, only=only or None, connection=_connection(), may_go_on=still_open()
    )
    return _as_stream(text, close)


def _refuse_if_full() -> None:
    here = services()
    if here.hub.is_full or here.hub.clients + here.feed.clients >= MAX_CLIENTS:
        raise Problem("too_many_streams", "too many streams are open here", headers={"Retry-After": "10"})


def _as_stream(text: Iterator[str], close: Callable[[], None]) -> Response:
    response = Response(_counted(text), content_type="text/event-stream; charset=utf-8")
    response.call_on_close(close)
    response.headers["Cache-Control"] = "no-cache, no-transform"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _counted(text: Iterator[str]) -> Iterator[str]:
    with STREAMS.track_inprogress():
        yield from text


def _connection() -> socket.socket | None:
    found = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    return found if isinstance(found, socket.socket) else None
