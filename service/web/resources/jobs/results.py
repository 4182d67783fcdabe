"""Results and metrics of a job."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Final

from flask import Blueprint

from service.jobs import events
from service.jobs.events import EventType
from service.jobs.queries import lookup
from service.web.core.core import core, owner
from service.web.http import downloads
from service.web.http.endpoint import Result, endpoint
from service.web.resources.pages import job_pages
from service.web.schemas.epochs import MetricTable, metric_table
from service.web.schemas.queries import FilesQuery, MetricsQuery
from service.web.schemas.results import Results, read_results

blueprint: Final = Blueprint("results", __name__)

TAG: Final = "Results"


@blueprint.get("/jobs/<job_id>/results")
@endpoint(TAG, Results, query=FilesQuery, problems=("job_not_found", "invalid_cursor"), page=job_pages.results)
def results(job_id: str, query: FilesQuery) -> Results:
    """Show the results of a job so far; `final` says whether the job has ended.

    `artifacts` is one page of its files, selected by `limit` and `cursor`.
    """
    with core().database.read() as session:
        return read_results(session, lookup.get(session, job_id, owner=owner()), query)


@blueprint.get("/jobs/<job_id>/metrics")
@endpoint(
    TAG,
    MetricTable,
    query=MetricsQuery,
    other_media=("text/csv",),
    also={
        200: "With `format=csv`: one line per epoch: `epoch`, then the metrics, `seconds`, `cpu_seconds` and "
        "`memory_bytes`; empty where a value is not finite or not known."
    },
    problems=("job_not_found",),
    page=job_pages.metrics,
)
def metrics(job_id: str, query: MetricsQuery) -> Result:
    """Show the metrics of all finished epochs."""
    with core().database.read() as session:
        job = lookup.get(session, job_id, owner=owner())
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
