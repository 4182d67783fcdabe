"""The pages a person opens: plain HTML made here, kept fresh by small scripts."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, render_template, request

from service import datasets
from service.contract import events, jobs, leases
from service.contract.artifacts import ArtifactKind
from service.contract.errors import JobNotFound
from service.contract.events import EventType
from service.contract.orders import Sort
from service.contract.spec import Kind
from service.contract.states import TERMINAL
from service.contract.tables import Epoch, Event, Job
from service.datasets import BUILT_IN
from service.web import queries
from service.web.operations import documented
from service.web.queries import MAX_COMPARED, CompareQuery, ListQuery, NewQuery
from service.web.representations import artifact_item, checkpoint_items, event_document, job_detail
from service.web.resources.jobs import list_jobs, next_page
from service.web.services import owner, services

blueprint: Final = Blueprint("pages", __name__)

TAG: Final = "Pages"
_FIRST: Final = 50
"""Jobs that the list shows before its script asks for more."""
_HISTORY: Final = 60
"""Events that a job's page shows; the log has all."""
_ORDERS: Final[dict[Sort, str]] = {
    "-created_at": "Newest first",
    "created_at": "Oldest first",
    "name": "Name, A to Z",
    "-name": "Name, Z to A",
    "status": "Running first",
    "-status": "Running last",
    "-started_at": "Last started",
    "started_at": "First started",
    "-finished_at": "Last finished",
    "finished_at": "First finished",
    "-priority": "Highest priority",
    "priority": "Lowest priority",
    "-duration": "Longest training",
    "duration": "Shortest training",
    "-epoch": "Most epochs",
    "epoch": "Fewest epochs",
    "-val_accuracy": "Highest accuracy",
    "val_accuracy": "Lowest accuracy",
    "val_loss": "Lowest loss",
    "-val_loss": "Highest loss",
    "frechet_distance": "Lowest Fréchet distance",
    "-frechet_distance": "Highest Fréchet distance",
}
_COLUMNS: Final[tuple[tuple[str, str, Sort], ...]] = (
    ("job", "Job", "name"),
    ("status", "Status", "status"),
    ("progress", "Progress", "-epoch"),
    ("metrics", "Last metrics", "-val_accuracy"),
    ("created", "Created", "-created_at"),
)
"""The columns of the list of jobs: class, heading, and how a click sorts it; a second click turns that round."""
_TILES: Final = (
    "val_accuracy", "val_loss", "train_accuracy", "train_loss", "frechet_distance", "mode_coverage", "sample_diversity",
    "g_loss", "d_loss", "d_real", "d_fake",
)  # fmt: skip
"""The metrics that say most of a job."""
_TOLD: Final = (EventType.STATUS, EventType.LOG, EventType.HEALTH)
_HEATS: Final = 5
_COMPARED: Final = {"id", "name", "kind", "status", "created_at", "tags", "start_epoch", "resolved", "urls"}
"""What the page that compares jobs is told of each."""


@blueprint.get("/")
@documented(TAG, "text/html", query=ListQuery)
def index() -> Response:
    """Show the jobs to a person."""
    query = queries.read_query(ListQuery)
    limit = query.limit if "limit" in query.model_fields_set else _FIRST
    first = list_jobs(query.model_copy(update={"limit": limit, "counts": True}))
    with services().database.read() as session:
        workers = leases.live_workers(session)
    return _html(
        "index.html",
        first=first,
        next_address=next_page("/", first) if first.has_more else None,
        workers=workers,
        kinds=list(Kind),
        orders=_ORDERS,
        columns=_COLUMNS,
        address=request.host_url.rstrip("/"),
    )


@blueprint.get("/ui/new")
@documented(TAG, "text/html", query=NewQuery)
def new() -> Response:
    """Let a person put a job together."""
    queries.read_query(NewQuery)
    return _html("new.html", keys_required=services().settings.keys_required)


@blueprint.get("/ui/jobs/<job_id>")
@documented(TAG, "text/html", problems=("job_not_found",))
def job(job_id: str) -> Response:
    """Show a job to a person, live."""
    queries.read_query(queries.NoQuery)
    try:
        with services().database.read() as session:
            row = jobs.get(session, job_id, owner=owner())
            checkpoints = jobs.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
            samples = jobs.artifacts(session, job_id, ArtifactKind.SAMPLE)
            last = session.get(Epoch, (job_id, row.epoch))
            told = [event for kind in _TOLD for event in events.of_type(session, job_id, kind)]
    except JobNotFound:
        if _wants_json():
            raise
        return _html("missing.html", status=404, job_id=job_id)
    shown = job_detail(row)
    resumed = _resumed(told)
    history = sorted(told, key=lambda event: event.seq, reverse=True)[:_HISTORY]
    facts = {
        "id": job_id,
        "kind": row.kind,
        "urls": shown.urls.model_dump(),
        "over": row.status in TERMINAL,
        "epoch": row.epoch,
        "last_seq": row.last_seq,
        "samples": [sample.epoch for sample in samples],
        "resumed": resumed,
        "judged": _is_judged(row),
    }
    return _html(
        "job.html",
        job=shown,
        facts=facts,
        took=(row.finished_ms - row.started_ms) / 1000 if row.started_ms and row.finished_ms else None,
        tiles=[name for name in _TILES if name in shown.metrics],
        checkpoints=checkpoint_items(row, checkpoints)[::-1],
        artifacts=[artifact_item(artifact) for artifact in (*checkpoints, *samples)],
        confusion=_confusion(row, last),
        history=[event_document(event, job_id=job_id) for event in history],
        resumed=resumed,
    )


@blueprint.get("/ui/play/<job_id>")
@documented(TAG, "text/html", problems=("job_not_found",))
def play(job_id: str) -> Response:
    """Let a person draw for a classifier, or walk a GAN's latent space."""
    queries.read_query(queries.NoQuery)
    try:
        with services().database.read() as session:
            row = jobs.get(session, job_id, owner=owner())
            files = jobs.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
    except JobNotFound:
        if _wants_json():
            raise
        return _html("missing.html", status=404, job_id=job_id)
    shown = job_detail(row)
    checkpoints = [
        {"epoch": item.epoch, "best": item.best, "latest": item.latest} for item in checkpoint_items(row, files)
    ]
    facts = {
        "urls": shown.urls.model_dump(),
        "checkpoints": checkpoints,
        "start": next((place for place, item in enumerate(checkpoints) if item["best"]), 0),
        "seed": row.resolved["seed"],
        "latent": row.resolved.get("latent"),
        "class_names": _class_names(row),
    }
    return _html("play.html", job=shown, facts=facts)


@blueprint.get("/ui/compare")
@documented(TAG, "text/html", query=CompareQuery)
def compare() -> Response:
    """Show jobs beside each other."""
    asked = list(dict.fromkeys(queries.read_query(CompareQuery).jobs))
    if len(asked) > MAX_COMPARED:
        return _html("compare.html", status=400, facts=[], asked=asked, too_many=len(asked), most=MAX_COMPARED)
    with services().database.read() as session:
        rows = jobs.several(session, asked, owner=owner())
        samples = jobs.artifact_epochs(session, [row.id for row in rows], ArtifactKind.SAMPLE)
    facts = [
        job_detail(row).model_dump(mode="json", include=_COMPARED) | {"samples": samples.get(row.id, [])}
        for row in sorted(rows, key=lambda row: asked.index(row.id))
    ]
    return _html("compare.html", facts=facts, asked=asked, missing=len(asked) - len(facts))


def _resumed(told: list[Event]) -> list[int]:
    """The epochs after which the job went on: on another worker, after a pause, or from another job's checkpoint."""
    claims = [event.data for event in told if event.type == EventType.STATUS and event.data.get("reason") == "claimed"]
    return [data["epoch"] for data in claims if data["epoch"]]


def _is_judged(row: Job) -> bool:
    known = BUILT_IN.get(str(row.resolved["dataset"]["name"]))
    return row.kind == Kind.GAN and known is not None and known.judge is not None


def _confusion(row: Job, last: Epoch | None) -> dict[str, Any] | None:
    """The matrix of the last epoch, with the names of the classes, and how strongly to tint each cell."""
    if last is None or last.confusion is None:
        return None
    names = _class_names(row)
    if len(names) != len(last.confusion):  # the data set is gone, or another by now
        names = [str(number) for number in range(len(last.confusion))]
    rows = []
    for actual, counts in enumerate(last.confusion):
        # Mistakes are tinted among themselves: beside what is right, none of them would show.
        most = max((count for predicted, count in enumerate(counts) if predicted != actual), default=0)
        cells = []
        for predicted, count in enumerate(counts):
            right = predicted == actual
            share = count / (sum(counts) if right else max(most, 5)) if count else 0.0
            heat = 0 if not count else max(1, round(_HEATS * share))
            cells.append({"count": count, "right": right, "heat": heat, "name": names[predicted]})
        rows.append({"index": actual, "name": names[actual], "cells": cells})
    return {"epoch": last.epoch, "names": names, "rows": rows}


def _class_names(job: Job) -> list[str]:
    try:
        return list(services().shelf.describe(str(job.resolved["dataset"]["name"]), job.owner).class_names)
    except datasets.DatasetError:
        return []


def _wants_json() -> bool:
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) != "text/html"


def _html(template: str, *, status: int = 200, **values: object) -> Response:
    return Response(render_template(template, **values), status, content_type="text/html; charset=utf-8")
