"""The pages of one job: what it did and does, and its network to play with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from flask import Blueprint, Response

from service.datasets import BUILT_IN, DatasetError
from service.datasets.tables.values import written
from service.jobs import events
from service.jobs.events import EventType, Wanted
from service.jobs.queries import files, folds, lineage, lookup
from service.spec.schema import Kind
from service.states import TERMINAL
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Epoch, Job
from service.web.answers import as_page
from service.web.endpoints import endpoint
from service.web.inference.loading import class_names, dataset_of, is_table
from service.web.resources.pages import tiles
from service.web.schemas.epochs import event_document
from service.web.schemas.files import checkpoint_items
from service.web.schemas.folds import FoldSet
from service.web.schemas.inference import ConfusionMatrix
from service.web.schemas.jobs import job_detail
from service.web.services import owner, services

blueprint: Final = Blueprint("job_view", __name__)

TAG: Final = "Pages"
_HISTORY: Final = 60
"""Events that a job's page shows; the log has all."""
_CHILDREN: Final = 12
"""Forks and reproductions that a job's page names."""
_REASONS: Final = {
    "claimed": "started by a worker",
    "done": "training finished",
    "changed": "edited",
    "handed back": "released by its worker",
}
"""Reasons of events that are made for programs, in words."""
_TOLD: Final = (EventType.STATUS, EventType.LOG, EventType.HEALTH)
_HEATS: Final = 5
_FEW_CLASSES: Final = 12
"""The matrix of so many classes fits on a phone."""


@blueprint.get("/ui/jobs/<job_id>")
@endpoint(TAG, "text/html", problems=("job_not_found",))
def job(job_id: str) -> Response:
    """Show the page of a job, updated live."""
    with services().database.read() as session:
        row = lookup.get(session, job_id, owner=owner())
        checkpoints = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
        samples = lookup.artifacts(session, job_id, ArtifactKind.SAMPLE)
        file_count = files.totals(session, job_id).count()
        last = session.get(Epoch, (job_id, row.epoch))
        history = events.select_from_log(session, job_id, Wanted(types=_TOLD), before=events.MAX_SEQ, limit=_HISTORY)
        resumed = events.resumed(session, job_id)
        parent = lineage.parent(session, row, owner=owner())
        fold_set = folds.jobs(session, row.fold_group, owner=owner()) if row.fold_group is not None else []
        children, children_count = lineage.children(session, job_id, owner=owner(), limit=_CHILDREN)
    shown = job_detail(row)
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
        "checkpoints": len(checkpoints),
        "is_table": is_table(row),
    }
    return as_page(
        "job.html",
        job=shown,
        starred=row.starred,
        note=row.note,
        facts=facts,
        took=(row.finished_ms - row.started_ms) / 1000 if row.started_ms and row.finished_ms else None,
        tiles=tiles.metric_tiles(row),
        resources=tiles.resource_tiles(row, last),
        checkpoints=checkpoint_items(row, checkpoints)[::-1],
        artifact_count=file_count,
        confusion=_confusion(row, last),
        history=[event_document(event, job_id=job_id) for event in reversed(history)],
        reasons=_REASONS,
        resumed=resumed,
        parent=parent,
        folds=FoldSet.of(str(row.fold_group), fold_set) if fold_set else None,
        children=children,
        children_count=children_count,
    )


@blueprint.get("/ui/play/<job_id>")
@endpoint(TAG, "text/html", problems=("job_not_found",))
def play(job_id: str) -> Response:
    """Show the Play page: draw for a classifier, or walk through a GAN's latent space."""
    with services().database.read() as session:
        row = lookup.get(session, job_id, owner=owner())
        files = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
    shown = job_detail(row)
    checkpoints = [
        {"epoch": item.epoch, "best": item.best, "latest": item.latest} for item in checkpoint_items(row, files)
    ]
    facts = {
        "urls": shown.urls.model_dump(),
        "checkpoints": checkpoints,
        "start": next((place for place, item in enumerate(checkpoints) if item["best"]), 0),
        "seed": row.resolved["seed"],
        "conditional": row.resolved.get("conditional", False),
        "latent": row.resolved.get("latent"),
        "class_names": class_names(row, None),
        "colour": _is_colour(row),
        "fields": _fields(row),
    }
    return as_page("play.html", job=shown, facts=facts)


def _is_colour(row: Job) -> bool:
    try:
        return len(dataset_of(row).image_shape) > 2
    except DatasetError:
        return False


def _fields(job: Job) -> list[dict[str, Any]] | None:
    """The columns of a table that a row has, with a usual value of each; ``None``: the job is trained on images."""
    if not is_table(job):
        return None
    try:
        known = {column["name"]: column for column in dataset_of(job).columns}
    except DatasetError:
        known = {}
    fitted = (job.provenance or {}).get("preprocessing", {"columns": []})["columns"]
    return [_field(column, known.get(column["name"], {})) for column in fitted]


def _field(column: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    field = {"name": column["name"], "type": column["type"]}
    if "categories" in column:
        return field | {"categories": column["categories"], "usual": column["categories"][0]}
    ends = [known[name] for name in ("min", "max") if name in known]
    if column["type"] == "date":
        usual, shown = (
            written(round(column["mean"]), column["format"]),
            [written(end, column["format"]) for end in ends],
        )
    else:
        usual, shown = f"{column['mean']:.4g}", [f"{end:.6g}" for end in ends]
    return field | {"usual": usual, "range": " to ".join(shown)}


def _is_judged(row: Job) -> bool:
    known = BUILT_IN.get(str(row.resolved["dataset"]["name"]))
    return row.kind == Kind.GAN and known is not None and known.judge is not None


def _confusion(row: Job, last: Epoch | None) -> dict[str, Any] | None:
    """The matrix and the scores of the last epoch, and how strongly to tint each cell."""
    if last is None or last.confusion is None:
        return None
    names = class_names(row, len(last.confusion))
    rows = [
        {"index": actual, "name": names[actual], "cells": _cells(actual, counts, names)}
        for actual, counts in enumerate(last.confusion)
    ]
    scores = ConfusionMatrix.of(last.epoch, names, last.confusion)
    return {
        "epoch": last.epoch,
        "names": names,
        "rows": rows,
        "is_small": len(names) <= _FEW_CLASSES,
        "scores": scores,
        "total": sum(map(sum, last.confusion)),
    }


def _cells(actual: int, counts: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    # Mistakes are tinted among themselves: beside what is right, none of them would show.
    most = max((count for predicted, count in enumerate(counts) if predicted != actual), default=0)
    cells = []
    for predicted, count in enumerate(counts):
        right = predicted == actual
        share = count / (sum(counts) if right else max(most, 5)) if count else 0.0
        heat = 0 if not count else max(1, round(_HEATS * share))
        cells.append({"count": count, "right": right, "heat": heat, "name": names[predicted]})
    return cells
