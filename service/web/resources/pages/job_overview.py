"""The overview page of a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from service.datasets.builtins import BUILT_IN
from service.jobs import events
from service.jobs.events import EventFilter, EventType
from service.jobs.queries import files, folds, lineage, lookup
from service.spec.schema import Kind
from service.states import TERMINAL, Status
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Artifact, Epoch, Event, Job
from service.web.inference.loading import dataset_or_none, is_table
from service.web.resources.pages import confusion_table, tiles
from service.web.schemas.epochs import event_document
from service.web.schemas.files import checkpoint_items
from service.web.schemas.folds import FoldSet
from service.web.schemas.jobs import JobDetail, job_detail

_HISTORY: Final = 60
"""Events that the page shows; the log has all."""
_CHILDREN: Final = 12
"""Forks and reproductions that the page names."""
_REASONS: Final = {
    "claimed": "started by a worker",
    "done": "training finished",
    "changed": "edited",
    "handed back": "released by its worker",
}
"""Display texts of machine-readable event reasons."""
_SHOWN: Final = EventFilter(types=(EventType.STATUS, EventType.LOG, EventType.HEALTH))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOverview:
    """The rows that the page shows."""

    job: Job
    checkpoints: Sequence[Artifact]
    samples: Sequence[Artifact]
    file_count: int
    last_epoch: Epoch | None
    trained_s: float
    stopped_by_sweep: bool
    history: Sequence[Event]
    resumed: Sequence[int]
    """The epochs after which the job resumed."""
    parent: Job | None
    folds: Sequence[Job]
    """All jobs of its cross-validation."""
    children: tuple[Sequence[Job], int]
    """The first forks and reproductions, and the number of all."""


def read(session: Session, job_id: str, *, owner: str | None) -> JobOverview:
    """The overview of a job.

    Raises:
        JobNotFound: the job does not exist, or belongs to another owner.
    """
    job = lookup.get(session, job_id, owner=owner)
    return JobOverview(
        job=job,
        checkpoints=lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT),
        samples=lookup.artifacts(session, job_id, ArtifactKind.SAMPLE),
        file_count=files.totals(session, job_id).count(),
        last_epoch=session.get(Epoch, (job_id, job.epoch)),
        trained_s=lookup.trained_s(session, job),
        stopped_by_sweep=bool(lookup.stopped_by_sweep(session, [job])),
        history=events.select_from_log(session, job_id, _SHOWN, before=events.MAX_SEQ, limit=_HISTORY),
        resumed=events.resumed(session, job_id),
        parent=lineage.parent(session, job, owner=owner),
        folds=folds.jobs(session, job.fold_group, owner=owner) if job.fold_group is not None else [],
        children=lineage.children(session, job_id, owner=owner, limit=_CHILDREN),
    )


def represent(found: JobOverview) -> dict[str, Any]:
    """The values of the template."""
    job, shown = found.job, job_detail(found.job, stopped_by_sweep=found.stopped_by_sweep)
    return {
        "job": shown,
        "starred": job.starred,
        "note": job.note,
        "facts": _facts(found, shown),
        **_measured(found),
        "checkpoints": checkpoint_items(job, found.checkpoints)[::-1],
        "artifact_count": found.file_count,
        "confusion": confusion_table.represent(job, found.last_epoch),
        **_history(found),
        **_relatives(found),
    }


def _measured(found: JobOverview) -> dict[str, Any]:
    job = found.job
    return {
        "took": (job.finished_ms - job.started_ms) / 1000 if job.started_ms and job.finished_ms else None,
        "trained": found.trained_s,
        "tiles": tiles.metric_tiles(job),
        "resources": tiles.resource_tiles(job, found.trained_s),
    }


def _history(found: JobOverview) -> dict[str, Any]:
    return {
        "history": [event_document(event, job_id=found.job.id) for event in reversed(found.history)],
        "reasons": _REASONS,
        "resumed": found.resumed,
        "stopped_by_sweep": found.stopped_by_sweep,
        "why_stopped": _why_stopped(found),
    }


def _relatives(found: JobOverview) -> dict[str, Any]:
    children, count = found.children
    return {
        "parent": found.parent,
        "folds": FoldSet.of(str(found.job.fold_group), found.folds) if found.folds else None,
        "children": children,
        "children_count": count,
    }


def _facts(found: JobOverview, shown: JobDetail) -> dict[str, Any]:
    """What the scripts of the page know of the job."""
    job, info = found.job, dataset_or_none(found.job)
    return {
        "id": job.id,
        "kind": job.kind,
        "urls": shown.urls.model_dump(),
        "over": job.status in TERMINAL,
        "epoch": job.epoch,
        "last_seq": job.last_seq,
        "samples": [sample.epoch for sample in found.samples],
        "resumed": found.resumed,
        "has_reference_classifier": _has_reference_classifier(job),
        "checkpoints": len(found.checkpoints),
        "is_table": is_table(job, info),
        "has_photos": info is not None and info.has_photos,
    }


def _why_stopped(found: JobOverview) -> str | None:
    """The sweep's reason; ``None`` for a job that was running, whose worker only knows that it is cancelled."""
    ended = (event.data for event in found.history if event.data.get("status") == Status.CANCELLED)
    reason = next(ended, {}).get("reason")
    return None if reason == "cancelled" else reason


def _has_reference_classifier(job: Job) -> bool:
    """Whether the samples are evaluated by a reference classifier of their dataset."""
    known = BUILT_IN.get(str(job.resolved["dataset"]["name"]))
    return job.kind == Kind.GAN and known is not None and known.reference_classifier is not None
