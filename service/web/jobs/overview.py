"""The page of one job: its rows, and what the template and its scripts make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import kinds
from service.datasets.builtins import BUILT_IN
from service.jobs import events, leases, worker_registry
from service.jobs.events import EventFilter, EventType
from service.jobs.queries import files, folds, lookup, queue
from service.jobs.worker_registry import Impediment
from service.runtime.settings import Settings
from service.spec.metric_info import TILES
from service.states import TERMINAL, Reason, Status
from service.storage.artifacts import EXPORTS, ArtifactKind
from service.storage.database import now_ms
from service.storage.tables import Epoch, Event, Job
from service.web.core.core import core, owner, read_job
from service.web.core.rooms import read_for_job
from service.web.gate.access_checks import identity, is_shared, share_link
from service.web.http.queries import ModelName
from service.web.inference.loading import class_names, dataset_or_none, is_table
from service.web.jobs import tiles
from service.web.jobs.result_schemas import ConfusionMatrix, artifact_item, checkpoint_items, event_document
from service.web.jobs.schemas import FoldSet, JobUrls, job_detail

_MAX_SHOWN_EVENTS: Final = 60
"""Events that the page shows; the log has all."""
_MAX_SHOWN_FILES: Final = 100
"""Files that the page lists besides the checkpoints; the API has all."""
_MAX_SHOWN_CHILDREN: Final = 12
"""Forks and reproductions that the page names."""
REASONS: Final = {
    "claimed": "started by a worker",
    "done": "training finished",
    "changed": "edited",
    "handed back": "released by its worker",  # until 0.2
    Reason.RELEASED: "released by its worker",
    Reason.LOST: "its worker was lost",
    Reason.PREEMPTED: "made room for an urgent job",
    Reason.PAUSED_BY_SWEEP: "paused by its sweep",
    Reason.BUDGET: "paused: its budget of CPU time is spent",
    Reason.STORAGE: "its machine cannot store or read files",
    Reason.MEMORY: "its machine has no memory left",
}
"""Display texts of machine-readable event reasons."""
_SHOWN_EVENTS: Final = EventFilter(types=(EventType.STATUS, EventType.LOG, EventType.HEALTH))


@dataclass(frozen=True, slots=True)
class ShownModel:
    """The model that all parts of the page show."""

    checkpoint: ModelName
    epoch: int
    choices: Mapping[ModelName, int]
    """The epochs of both models; empty if there is only one."""
    row: Epoch | None
    """Its epoch; ``None`` if no epoch is finished."""

    @property
    def label(self) -> str:
        """``best: epoch 7``."""
        return f"{self.checkpoint}: epoch {self.epoch}"


def values(job_id: str, choice: ModelName) -> dict[str, Any]:
    """The values of the template."""
    with read_job(job_id) as (session, row):
        checkpoints = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
        other_files = files.beside_checkpoints(session, job_id, limit=_MAX_SHOWN_FILES)
        samples = lookup.artifact_epochs(session, [job_id], ArtifactKind.SAMPLE).get(job_id, [])
        file_count = files.totals(session, job_id).count()
        shown = _shown(session, row, [checkpoint.epoch for checkpoint in checkpoints], choice)
        metric_tiles, trained_s = tiles.read(session, row, shown.row), lookup.trained_s(session, row)
        stopped_by_sweep = bool(lookup.stopped_by_sweep(session, [row]))
        history = events.select_from_log(session, job_id, _SHOWN_EVENTS, before=events.MAX_SEQ, limit=_MAX_SHOWN_EVENTS)
        resumed = events.resumed(session, job_id)
        # A share link shows this job alone.
        is_alone = is_shared()
        parent = lookup.parent(session, row, owner=owner()) if not is_alone else None
        has_folds = row.fold_group is not None and not is_alone
        fold_jobs = folds.jobs(session, str(row.fold_group), owner=owner()) if has_folds else []
        children, children_count = lookup.children(session, job_id, owner=owner(), limit=_MAX_SHOWN_CHILDREN)
        of_features = read_for_job(session, row) if not is_alone else {}
        impediment = _impediment(session, row, core().settings) if not is_alone else None
        wait = _wait(session, row) if impediment is None else None
        reason = events.reason_to_wait(session, row)
    return {
        "job": job_detail(row, stopped_by_sweep=stopped_by_sweep, reason=reason),
        "wait": wait,
        "budget_s": row.budget_seconds,
        "is_budget_spent": (row.status == Status.FAILED or reason is Reason.BUDGET) and leases.is_budget_spent(row),
        "facts": _facts(row, samples, resumed),
        "of_features": of_features,
        "impediment": impediment,
        "took": (row.finished_ms - row.started_ms) / 1000 if row.started_ms and row.finished_ms else None,
        "shown": shown,
        "tiles": metric_tiles,
        "resources": tiles.resources(row, trained_s),
        "trained": trained_s,
        "confusion": confusion_table(row, shown.row),
        "checkpoints": checkpoint_items(row, checkpoints)[::-1],
        "other_files": [artifact_item(file) for file in other_files],
        "artifact_count": file_count,
        "history": [event_document(event, job_id=job_id, link=share_link()) for event in reversed(history)],
        "reasons": REASONS,
        "resumed": resumed,
        "stopped_by_sweep": stopped_by_sweep,
        "why_stopped": _stop_reason(history),
        "parent": parent,
        "folds": FoldSet.of(str(row.fold_group), fold_jobs) if fold_jobs else None,
        "children": children if not is_alone else [],
        "children_count": children_count,
        "export_formats": EXPORTS,
    }


def _impediment(session: Session, job: Job, settings: Settings) -> Impediment | None:
    """Why no worker trains the job, which is queued, or has lost its worker."""
    is_queued = Job.status == Status.QUEUED
    is_waiting = select(is_queued | (Job.lease_expires_ms < now_ms())).where(Job.id == job.id)
    return worker_registry.impediment(session, settings) if session.scalar(is_waiting) else None


def _wait(session: Session, job: Job) -> str | None:
    """A queued job's place and expected start in words; ``None``: it is not queued."""
    if job.status != Status.QUEUED:
        return None
    caller = identity()
    waiting = queue.read_one(session, job)
    return waiting.sentence(is_own=caller is None or (caller.owner == job.owner and not is_shared()))


def _shown(session: Session, job: Job, stored: Sequence[int], choice: ModelName) -> ShownModel:
    """The chosen model; the latest one, without a choice, if its kind shows no other, and while the best checkpoint is
    not stored.

    Args:
        stored: the epochs of the checkpoints, ascending.
    """
    shows_best, choices = kinds.of(job.kind).shows_best, dict[ModelName, int]()
    latest = stored[-1] if stored and shows_best else job.epoch
    if shows_best and job.best_epoch is not None and job.best_epoch in stored:
        choices = {"best": job.best_epoch, "latest": latest}
    name = choice if choices else "latest"
    epoch = choices.get(name, latest)
    return ShownModel(name, epoch, choices, session.get(Epoch, (job.id, epoch)))


def _facts(job: Job, samples: Sequence[int], resumed: Sequence[int]) -> dict[str, Any]:
    """The facts about the job for the scripts of the page.

    Args:
        samples: the epochs of its samples.
        resumed: the epochs after which it resumed.
    """
    info, hides_samples = dataset_or_none(job), is_shared() and not kinds.of(job.kind).shares_samples
    return {
        "id": job.id,
        "kind": job.kind,
        "urls": JobUrls.of(job.id).model_dump(),
        "over": job.status in TERMINAL,
        "epoch": job.epoch,
        "last_seq": job.last_seq,
        "tiles": TILES,
        "reused_epochs": job.reused_epochs,
        "samples": samples if not hides_samples else [],
        "resumed": resumed,
        "has_reference_classifier": _has_reference_classifier(job),
        "is_table": is_table(job, info),
        "has_photos": info is not None and info.has_photos,
        "hides_samples": hides_samples,
    }


def _stop_reason(history: Sequence[Event]) -> str | None:
    """The sweep's reason; ``None`` for a job that was running: its worker learns only that the job is
    cancelled."""
    cancellations = (event.data for event in history if event.data.get("status") == Status.CANCELLED)
    reason = next(cancellations, {}).get("reason")
    return None if reason == "cancelled" else reason


def _has_reference_classifier(job: Job) -> bool:
    """Whether the samples are evaluated by a reference classifier of their dataset."""
    builtin = BUILT_IN.get(str(job.resolved["dataset"]["name"]))
    is_scored = kinds.of(job.kind).has_reference_classifier
    return is_scored and builtin is not None and builtin.reference_classifier is not None


_HEAT_LEVELS: Final = 5
_FEW_CLASSES: Final = 12
"""A matrix with at most this many classes fits on a phone."""


def confusion_table(job: Job, shown: Epoch | None) -> dict[str, Any] | None:
    """The matrix and scores of an epoch, with a tint for each cell."""
    if shown is None or shown.confusion is None:
        return None
    names = class_names(job, len(shown.confusion))
    scores = ConfusionMatrix.of(shown.epoch, names, shown.confusion)
    return matrix_table(names, shown.confusion) | {"scores": scores}


def matrix_table(names: Sequence[str], counts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """A confusion matrix with a tint for each cell."""
    return {
        "names": names,
        "rows": [_row(actual, row, names) for actual, row in enumerate(counts)],
        "is_small": len(names) <= _FEW_CLASSES,
        "total": sum(map(sum, counts)),
    }


def _row(actual: int, counts: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    return {"index": actual, "name": names[actual], "cells": _cells(actual, counts, names)}


def _cells(actual: int, counts: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    # Mistakes have a scale of their own: next to correct predictions, none would be visible.
    max_mistakes = max((count for predicted, count in enumerate(counts) if predicted != actual), default=0)
    cells = []
    for predicted, count in enumerate(counts):
        is_correct = predicted == actual
        ratio = count / (sum(counts) if is_correct else max(max_mistakes, 5)) if count else 0.0
        heat = 0 if not count else max(1, round(_HEAT_LEVELS * ratio))
        cells.append({"count": count, "right": is_correct, "heat": heat, "name": names[predicted]})
    return cells
