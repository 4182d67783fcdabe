"""The page that compares jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from flask import Blueprint, Response
from pydantic import BeforeValidator, Field

from service import kinds
from service.jobs.queries import listing, lookup
from service.spec import splits
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Job
from service.web.core.core import core, owner
from service.web.core.rooms import Pages
from service.web.gate.access_checks import is_shared
from service.web.http.endpoint import endpoint
from service.web.http.queries import MAX_COMPARED, JobId, Query, Text, split
from service.web.http.responses import as_page
from service.web.jobs.schemas import job_detail, metric_intervals

blueprint: Final = Blueprint("comparing_pages", __name__)

TAG: Final = "Pages"
_COMPARED_FIELDS: Final = {
    "id",
    "name",
    "kind",
    "status",
    "stopped_by_sweep",
    "created_at",
    "tags",
    "start_epoch",
    "resolved",
    "urls",
}
"""Fields of each job on the Compare page."""


class CompareQuery(Query):
    """Which jobs to compare, and what to plot."""

    jobs: Annotated[list[JobId], BeforeValidator(split)] = Field(
        default=[], description=f"Ids, repeated or comma-separated; at most {MAX_COMPARED}."
    )
    x: Text | None = Field(None, description="A setting, for example `optimizer.learning_rate`.")
    y: Text | None = Field(None, description="A metric, for example `val_accuracy`.")
    of: Literal["best", "last"] = Field("best", description="Which value of the metric.")


@blueprint.get("/ui/compare")
@endpoint(TAG, "text/html", name="pages.compare", query=CompareQuery, compares=("jobs",))
def compare(query: CompareQuery) -> Response:
    """Show the page that compares jobs."""
    job_ids = list(dict.fromkeys(query.jobs))
    if len(job_ids) > MAX_COMPARED:
        return as_page(
            "comparing/compare.html", status=400, facts=[], asked=job_ids, too_many=len(job_ids), most=MAX_COMPARED
        )
    return as_page("comparing/compare.html", asked=job_ids, **_compared(job_ids))


def _compared(job_ids: Sequence[str]) -> dict[str, Any]:
    """The facts of each existing job, and why none of them is the best; predictions are only named."""
    with core().database.read() as session:
        found = lookup.several(session, job_ids, owner=owner())
    trained = [row for row in found if kinds.of(row.kind).trains]
    predictions = [listing.title(row.id, row.name, row.kind) for row in found if row not in trained]
    facts, why_not = _job_facts(sorted(trained, key=lambda row: job_ids.index(row.id)))
    missing, same = len(job_ids) - len(found), why_not == splits.SAME_JOBS
    return {"facts": facts, "why_not": why_not, "same": same, "missing": missing, "predictions": predictions}


def _job_facts(rows: Sequence[Job]) -> tuple[list[dict[str, Any]], str | None]:
    """The facts of jobs, in this order, and why none of them is the best."""
    with core().database.read() as session:
        samples = lookup.artifact_epochs(session, [row.id for row in rows], ArtifactKind.SAMPLE)
        stopped = lookup.stopped_by_sweep(session, rows)
        counts = lookup.validation_counts(session, rows)
    facts = [
        job_detail(row, stopped_by_sweep=row.id in stopped).model_dump(mode="json", include=_COMPARED_FIELDS)
        | _sample_facts(row, samples.get(row.id, []))
        | {"best_intervals": _best_intervals(row, counts.get(row.id))}
        for row in rows
    ]
    return facts, splits.why_not_compared(
        [{name: getattr(row, name) for name in splits.COMPARED_FACTS} for row in rows]
    )


def _sample_facts(job: Job, epochs: Sequence[int]) -> dict[str, Any]:
    """The epochs of a job's samples; those of a classifier are examples of its dataset, which are not shared."""
    is_hidden = is_shared() and not kinds.of(job.kind).shares_samples
    return {"samples": [] if is_hidden else epochs, "hides_samples": is_hidden}


def _best_intervals(job: Job, validation_count: int | None) -> dict[str, Any]:
    """The interval of the best accuracy of all epochs."""
    best = {"val_accuracy": job.extremes.get("val_accuracy", {}).get("max")}
    return {name: interval.model_dump() for name, interval in metric_intervals(best, validation_count).items()}


PAGES: Final = Pages(blueprint=blueprint)
