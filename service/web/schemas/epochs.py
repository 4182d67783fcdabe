"""The metrics of a job's epochs, and its log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from service.jobs.events import LogPage
from service.states import FindingCode, Severity
from service.storage.tables import Epoch, Event, Job
from service.storage.times import at_time
from service.web.http.schemas import Answer, Seconds, finite


class EventList(Answer):
    """Part of a job's log."""

    data: list[dict[str, Any]] = Field(description="Each has `job`, `seq`, `type`, `at` and the fields of its type.")
    has_more: bool
    next_after: int = Field(description="`after` of the next request.")


class FoundItem(Answer):
    """The period of a finding."""

    code: FindingCode
    severity: Severity
    message: str
    since: int = Field(description="The epoch after which it was detected.")
    until: int | None = Field(description="The epoch after which it was resolved; null if it is not.")


class ResourceSeries(Answer):
    """Resources used by each finished epoch. Unlike metrics, they vary between runs."""

    cpu_seconds: list[Seconds | None] = Field(description="CPU time of the training process during the epoch.")
    memory_bytes: list[int | None] = Field(description="Its resident memory at the end of the epoch.")


class MetricTable(Answer):
    """The metrics of all finished epochs, as columns."""

    job: str
    epochs: list[int]
    series: dict[str, list[float | None]]
    seconds: list[Seconds]
    resources: ResourceSeries
    best_epoch: int | None
    findings: list[FoundItem] = Field(description="Findings with their periods, in order of detection.")


def event_document(event: Event, *, job_id: str) -> dict[str, Any]:
    """An event as in the log and the stream, with the URL of its file."""
    data = finite(event.data)
    document = {"job": job_id, "seq": event.seq, "type": event.type, "at": at_time(event.created_ms), **data}
    if event.type == "sample":
        document["url"] = f"/jobs/{job_id}/samples/{data['epoch']}.png"
    elif event.type == "checkpoint":
        document["url"] = f"/jobs/{job_id}/checkpoints/{data['epoch']}"
    return document


def event_list(job_id: str, page: LogPage, *, after: int) -> EventList:
    """A page of a job's log.

    Args:
        after: where the next request starts if the page is empty.
    """
    data = [event_document(row, job_id=job_id) for row in page.rows]
    return EventList(data=data, has_more=page.has_more, next_after=data[-1]["seq"] if data else after)


def metric_table(job: Job, rows: Sequence[Epoch], health_events: Sequence[Event]) -> MetricTable:
    """Rows as columns, with null for missing values.

    Args:
        health_events: the job's events of type ``health``.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    return MetricTable(
        job=job.id,
        epochs=[row.epoch for row in rows],
        series={name: [finite(row.metrics.get(name)) for row in rows] for name in names},
        seconds=[row.seconds for row in rows],
        resources=ResourceSeries(
            cpu_seconds=[row.cpu_seconds for row in rows], memory_bytes=[row.memory_bytes for row in rows]
        ),
        best_epoch=job.best_epoch,
        findings=_findings(health_events),
    )


def _findings(health_events: Sequence[Event]) -> list[FoundItem]:
    findings: list[dict[str, Any]] = []
    for event in health_events:
        data = event.data
        if data["state"] == "found":
            finding = {name: data[name] for name in ("code", "severity", "message")}
            findings.append({**finding, "since": data["epoch"], "until": None})
            continue
        for item in findings:
            if (item["code"], item["since"]) == (data["code"], data["since"]):
                item["until"] = data["epoch"]
    return [FoundItem(**item) for item in findings]
