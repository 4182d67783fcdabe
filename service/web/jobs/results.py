"""Results and metrics of a job, its log, and streams of events."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from flask import Blueprint, Response

from service.access.shares import Shared
from service.jobs import events
from service.jobs.events import EventFilter, EventType
from service.jobs.queries import lookup
from service.states import TERMINAL
from service.storage.database import Database
from service.web.core.core import core, owner, provided, read_job
from service.web.gate.access_checks import share_link
from service.web.http import downloads, requests
from service.web.http.endpoint import Result, endpoint
from service.web.http.queries import StreamQuery
from service.web.jobs.result_schemas import (
    EventList,
    EventQuery,
    FeedQuery,
    FilesQuery,
    MetricsQuery,
    MetricTable,
    Results,
    event_document,
    event_list,
    metric_table,
    read_results,
)
from service.web.jobs.schemas import read_detail
from service.web.jobs.stream import JobSelection, follow_all, follow_job
from service.web.streaming.poller import Poller
from service.web.streaming.response import refuse_if_full, stream_response

blueprint: Final = Blueprint("results", __name__)

TAG: Final = "Results"


@blueprint.get("/jobs/<job_id>/results")
@endpoint(
    TAG,
    Results,
    query=FilesQuery,
    problems=("job_not_found", "invalid_cursor"),
    page="/ui/jobs/{job_id}#tiles",
    client="Job.results",
    is_shown_by_links=True,
)
def results(job_id: str, query: FilesQuery) -> Results:
    """Show the results of a job so far; `final` says whether the job has ended.

    `artifacts` is one page of its files, selected by `limit` and `cursor`.
    """
    with read_job(job_id) as (session, job):
        return read_results(session, job, query)


@blueprint.get("/jobs/<job_id>/metrics")
@endpoint(
    TAG,
    MetricTable,
    query=MetricsQuery,
    other_media=("text/csv",),
    other_responses={
        200: "With `format=csv`: one line per epoch: `epoch`, then the metrics, `seconds`, `cpu_seconds` and "
        "`memory_bytes`; empty where a value is not finite or not known."
    },
    problems=("job_not_found",),
    page="/ui/jobs/{job_id}#curves",
    is_shown_by_links=True,
)
def metrics(job_id: str, query: MetricsQuery) -> Result:
    """Show the metrics of all finished epochs."""
    with read_job(job_id) as (session, job):
        health_events = events.of_type(session, job_id, EventType.HEALTH)
        table = metric_table(job, lookup.epochs(session, job_id), health_events)
    if query.format == "json":
        return table
    return downloads.send_text(_csv(table), name=f"{job_id}-metrics.csv", media_type="text/csv")


def _csv(table: MetricTable) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns: dict[str, Sequence[float | None]] = {**table.series, "seconds": table.seconds}
    columns |= table.resources.model_dump()
    writer.writerow(["epoch", *columns])
    for index, epoch in enumerate(table.epochs):
        values = [column[index] for column in columns.values()]
        writer.writerow([epoch, *("" if value is None else repr(value) for value in values)])
    return text.getvalue()


events_blueprint: Final = Blueprint("events", __name__)

_BATCH_SIZE: Final = 1000
"""Events that a download reads in one query."""


@events_blueprint.get("/jobs/<job_id>/events")
@endpoint(
    TAG,
    EventList,
    query=EventQuery,
    other_media=("application/x-ndjson",),
    problems=("job_not_found",),
    page="/ui/jobs/{job_id}/log",
    is_shown_by_links=True,
)
def log(job_id: str, query: EventQuery) -> Result:
    """List the events of a job's append-only log.

    `has_more` says whether there are further events: later ones, or earlier ones with `before`.
    """
    event_filter = query.event_filter
    with read_job(job_id) as (session, _):
        if query.format == "jsonl":
            lines = _lines(core().database, job_id, query, event_filter, share_link())  # read while they are sent
            return downloads.send_text(lines, name=f"{job_id}-events.jsonl", media_type="application/x-ndjson")
        page = events.page(session, job_id, event_filter, after=query.after, before=query.before, limit=query.limit)
    return event_list(job_id, page, after=query.after)


def _lines(
    database: Database, job_id: str, query: EventQuery, event_filter: EventFilter, link: Shared | None
) -> Iterator[str]:
    """The selected events as lines of JSON, read in batches: neither memory nor a transaction holds all of them."""
    after = query.after
    while True:
        with database.read() as session:
            rows = events.select_from_log(session, job_id, event_filter, after=after, limit=_BATCH_SIZE)
        rows = [row for row in rows if query.before is None or row.seq < query.before]
        for row in rows:
            document = event_document(row, job_id=job_id, link=link)
            yield json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"
        if len(rows) < _BATCH_SIZE:
            return
        after = rows[-1].seq


@events_blueprint.get("/jobs/<job_id>/stream")
@endpoint(
    TAG,
    "text/event-stream",
    query=StreamQuery,
    headers=("Last-Event-ID",),
    other_responses={204: "The job has ended, and the client has all its events."},
    problems=("job_not_found", "too_many_streams", "quota_exceeded"),
    is_shown_by_links=True,
)
def stream(job_id: str, query: StreamQuery) -> Response:
    """Follow a job by server-sent events.

    The first event is `snapshot` (the job). Then every event of the log is sent with its `seq` as `id`, from the first
    or after `Last-Event-ID`: `status`, `metrics`, `sample`, `checkpoint`, `health` and `log`. `progress` has no `id`
    and is not replayed. `end` is the last event of a run. In the stream of an ended job, events that describe later
    changes, such as a new name, may follow it.
    """
    after = requests.last_event_id(query)
    refuse_if_full()
    with read_job(job_id) as (session, job):
        if job.status in TERMINAL and after is not None and after >= job.last_seq:
            return Response(status=204)
        snapshot = read_detail(session, job)
    return stream_response(partial(follow_job, provided(Poller), job, snapshot, after=after or 0))


@events_blueprint.get("/stream")
@endpoint(
    TAG,
    "text/event-stream",
    query=FeedQuery,
    compares=("jobs",),
    problems=("job_not_found", "too_many_streams", "quota_exceeded"),
)
def stream_all(query: FeedQuery) -> Response:
    """Follow all jobs, or some, by server-sent events.

    The first event is `snapshot`: the jobs named in `jobs`, or else the newest 500 unfinished ones. Then the log
    events and `progress` of every job follow, each with `job`. They have no ids: after a reconnection, or when a client
    reads too slowly, a new snapshot is sent.
    """
    refuse_if_full()
    selection = JobSelection(core().database, owner(), frozenset(query.jobs), share_link())
    selection.require_existing()
    return stream_response(partial(follow_all, provided(Poller), selection))
