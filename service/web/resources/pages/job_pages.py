"""Pages about parts of a job: its log, metrics, files and results. ``browsers`` shows them at the API's addresses."""

from __future__ import annotations

from typing import Any, Final

from flask import Response

from service.jobs import events, extremes
from service.jobs.events import EventFilter, EventType, Level, LogPage
from service.jobs.queries import files, listing, lookup
from service.states import TERMINAL
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Artifact, Event, Job
from service.web.core.core import core, owner
from service.web.http.responses import as_page, next_address
from service.web.schemas.epochs import event_document
from service.web.schemas.files import artifact_item, checkpoint_item, film_urls, sample_item
from service.web.schemas.jobs import job_detail
from service.web.schemas.queries import EventQuery, FilesQuery
from service.web.schemas.results import read_results

_SHOWN_EPOCHS: Final = 1000
_SHOWN_SAMPLES: Final = 240
_VIEWS: Final[dict[str, EventFilter]] = {
    "All": EventFilter(),
    "Status": EventFilter(types=(EventType.STATUS, EventType.END)),
    "Metrics": EventFilter(types=(EventType.METRICS,)),
    "Files": EventFilter(types=(EventType.SAMPLE, EventType.CHECKPOINT)),
    "Warnings and errors": EventFilter(level=Level.WARNING),
    "Errors": EventFilter(level=Level.ERROR),
}
"""The filters of the log's page."""


def log(job_id: str, query: EventQuery) -> Response:
    """The log of a job, by default the newest events."""
    before = query.before or (None if query.after else events.MAX_SEQ)
    with core().database.read() as session:
        job = lookup.get(session, job_id, owner=owner())
        page = events.page(session, job_id, query.event_filter, after=query.after, before=before, limit=query.limit)
    return _page(
        "job/log.html", job, "Log", **_log_filters(query), **_log_part(job, query, page, is_end=before is not None)
    )


def _log_filters(query: EventQuery) -> dict[str, Any]:
    """The selected filters, and those to choose from."""
    selected = {"type": [kind.value for kind in query.type], "level": query.level, "q": query.q}
    return {
        "views": [
            (name, _parameters(view, query.q), _is_same_filter(view, query.event_filter))
            for name, view in _VIEWS.items()
        ],
        "selected": {name: value for name, value in selected.items() if value},
        "q": query.q or "",
    }


def _log_part(job: Job, query: EventQuery, page: LogPage, *, is_end: bool) -> dict[str, Any]:
    """The selected events, and where earlier or later ones are.

    Args:
        is_end: whether they are the last events before a number, instead of the first events after one.
    """
    rows = page.rows
    return {
        "events": [_line(row, job.id) for row in rows],
        "older": rows[0].seq if page.has_more and is_end else None,
        "newer": rows[-1].seq if page.has_more and not is_end else None,
        "facts": {
            "stream": f"/jobs/{job.id}/stream",
            "last_seq": max(job.last_seq, rows[-1].seq if rows else 0),
            "follows": job.status not in TERMINAL and query.before is None and not (page.has_more and query.after),
        },
    }


def metrics(job_id: str) -> Response:
    """The metrics of all epochs as a table, newest first."""
    with core().database.read() as session:
        job = lookup.get(session, job_id, owner=owner())
        rows = lookup.epochs(session, job_id, last=_SHOWN_EPOCHS)
        total = lookup.count_epochs(session, job_id)
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    best = {name: _best_epoch(job, name) for name in names}
    return _page("job/metrics.html", job, "Metrics", rows=rows[::-1], total=total, names=names, best=best)


def artifacts(job_id: str, query: FilesQuery) -> Response:
    """The files of a job."""
    return _files(job_id, "Files", None, query)


def checkpoints(job_id: str, query: FilesQuery) -> Response:
    """The checkpoints of a job."""
    return _files(job_id, "Checkpoints", ArtifactKind.CHECKPOINT, query)


def samples(job_id: str, query: FilesQuery) -> Response:
    """The sample grids of a job."""
    limit = min(query.limit, _SHOWN_SAMPLES)
    with core().database.read() as session:
        job = lookup.get(session, job_id, owner=owner())
        page = files.page(session, job_id, ArtifactKind.SAMPLE, limit=limit, cursor=query.cursor, newest_first=True)
        total = files.totals(session, job_id).count(ArtifactKind.SAMPLE)
    items, films = [sample_item(row) for row in page.rows], film_urls(job_id, exists=total > 0)
    older = next_address(page.next_cursor)
    return _page("job/samples.html", job, "Samples", samples=items, total=total, films=films, older=older)


def results(job_id: str, query: FilesQuery) -> Response:
    """The results of a job so far."""
    with core().database.read() as session:
        job = lookup.get(session, job_id, owner=owner())
        job_results = read_results(session, job, query)
    return _page("job/results.html", job, "Results", results=job_results)


def _files(job_id: str, section: str, kind: ArtifactKind | None, query: FilesQuery) -> Response:
    """A page of files, newest first."""
    with core().database.read() as session:
        job = lookup.get(session, job_id, owner=owner())
        page = files.page(session, job_id, kind, limit=query.limit, cursor=query.cursor, newest_first=True)
        totals = files.totals(session, job_id)
        latest = files.latest_epoch(session, job_id, ArtifactKind.CHECKPOINT)
    return _page(
        "job/files.html",
        job,
        section,
        files=[artifact_item(row) for row in page.rows],
        marks={row.id: _marks(job, row, latest) for row in page.rows if row.kind == ArtifactKind.CHECKPOINT},
        total=totals.count(kind),
        size_bytes=totals.size_bytes(kind),
        older=next_address(page.next_cursor),
    )


def _marks(job: Job, row: Artifact, latest: int) -> list[str]:
    """The labels of a checkpoint: ``best``, ``latest``."""
    item = checkpoint_item(job, row, latest=latest)
    return [word for word, applies in (("best", item.best), ("latest", item.latest)) if applies]


def _page(template: str, job: Job, section: str, **values: Any) -> Response:
    title = listing.title(job.id, job.name, job.kind)
    sections = {
        "Overview": f"/ui/jobs/{job.id}",
        "Metrics": f"/jobs/{job.id}/metrics",
        "Log": f"/jobs/{job.id}/events",
        "Checkpoints": f"/jobs/{job.id}/checkpoints",
        "Samples": f"/jobs/{job.id}/samples",
        "Files": f"/jobs/{job.id}/artifacts",
        "Results": f"/jobs/{job.id}/results",
    }
    detail = job_detail(job)
    return as_page(template, job=detail, title=title, section=section, sections=sections, **values)


def _line(row: Event, job_id: str) -> dict[str, Any]:
    return event_document(row, job_id=job_id) | {"level": events.level_of(row).value}


def _parameters(view: EventFilter, q: str | None) -> dict[str, str]:
    values = {"type": ",".join(view.types), "level": view.level.value if view.level is not None else "", "q": q or ""}
    return {name: value for name, value in values.items() if value}


def _is_same_filter(view: EventFilter, selected: EventFilter) -> bool:
    return set(view.types) == set(selected.types) and view.level == selected.level


def _best_epoch(job: Job, name: str) -> int | None:
    """The epoch in which a metric was best; ``None`` if neither direction is better."""
    best = extremes.best(job, name)
    return best[1] if best is not None else None
