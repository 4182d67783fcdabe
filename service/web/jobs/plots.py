"""Plots of a job and animations of its samples, drawn on request and cached in the job's folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

from service import kinds
from service.errors import JobNotFound
from service.jobs import events
from service.jobs.events import EventType
from service.jobs.queries import listing, lookup
from service.pictures import animations, grids
from service.states import Severity
from service.storage.artifacts import ArtifactKind, ArtifactStore
from service.storage.tables import Artifact, Job
from service.web.core.core import core
from service.web.http import slots
from service.web.http.downloads import Picture, picture
from service.web.http.problems import Problem
from service.web.inference import validation_results
from service.web.inference.loading import dataset_of, dataset_or_none, inference, require_available, with_network
from service.web.jobs.result_schemas import metric_table

if TYPE_CHECKING:
    from service.web.inference.model_runner import LoadedModel

Format = Literal["png", "svg"]
MEDIA_TYPES: Final[Mapping[str, str]] = {"png": "image/png", "svg": "image/svg+xml"}
_NO_EPOCH: Final = "the job has not finished its first epoch"

_log = structlog.get_logger("tapeline.web")


def film(job: Job, fmt: animations.AnimationFormat) -> Picture:
    """The animation of all sample grids of a job."""
    with core().database.read() as session:
        rows = lookup.artifacts(session, job.id, ArtifactKind.SAMPLE)
    if not rows:
        raise Problem("not_yet", "the job has no samples yet: the first ones are made at the end of an epoch")

    def draw() -> bytes:
        info = dataset_or_none(job)
        pngs, epochs = _LazyFiles(core().artifacts, rows), [row.epoch for row in rows]
        return animations.animate(
            pngs, epochs=epochs, fmt=fmt, is_colour=info is not None and len(info.image_shape) > 2
        )

    return _cached_picture(job.id, "samples", rows[-1].epoch, fmt, draw)


def shown_samples(grid: bytes) -> bytes:
    """A stored sample grid as it is shown: that of a classifier with its predictions."""
    if not grids.has_captions(grid):
        return grid
    with slots.hold(slots.GRIDS):
        return _drawn(grid) if len(grid) <= _MAX_KEPT_BYTES else grids.as_shown(grid)


_drawn: Final = functools.lru_cache(32)(grids.as_shown)
"""The grids that were shown last, for clients that ask whether theirs is still the latest."""
_MAX_KEPT_BYTES: Final = 2**17


def classified_samples(job: Job, sample: Artifact) -> Picture:
    """A GAN's sample grid, labelled with the classes that the reference classifier predicted; they are stored in
    the file."""
    png = core().artifacts.read(sample.path, sample.sha256)
    info = dataset_of(job)
    try:
        with slots.hold(slots.DRAWING):
            data = grids.classified_grid(png, classes=info.classes, class_names=info.class_names)
    except grids.NotClassified as error:
        raise Problem(
            "no_verdicts", f"the samples of epoch {sample.epoch} were not scored by a reference classifier"
        ) from error
    return picture(data)


def draw(job: Job, name: str, fmt: Format, checkpoint: str | None) -> Picture:
    """A plot of a job, by default the confusion matrix of its latest epoch, or an evaluation of its best checkpoint."""
    match name:
        case "curves":
            return draw_curves(job, fmt)
        case "confusion":
            return _draw_confusion(job, fmt, checkpoint or "latest")
        case _:
            return _draw_evaluation(job, name, fmt, checkpoint or "best")


def draw_curves(job: Job, fmt: Format) -> Picture:
    """The curves of a job, with its findings."""
    with core().database.read() as session:
        rows, health_events = lookup.epochs(session, job.id), events.of_type(session, job.id, EventType.HEALTH)
    if not rows:
        raise Problem("not_yet", _NO_EPOCH)
    table = metric_table(job, rows, health_events)

    def draw() -> bytes:
        from service.pictures import plots  # loads Matplotlib, which takes most of a second

        marks = [
            plots.Mark(item.code.replace("_", " "), item.since, item.until, is_error=item.severity is Severity.ERROR)
            for item in table.findings
        ]
        title = listing.title(job.id, job.name, job.kind)
        return plots.curves(
            job.kind, table.epochs, table.series, title=title, fmt=fmt, best_epoch=job.best_epoch, marks=marks
        )

    return _cached_picture(job.id, "curves", rows[-1].epoch, fmt, draw)


def _draw_confusion(job: Job, fmt: Format, which: str) -> Picture:
    """The confusion matrix of an epoch: ``best``, ``latest`` or its number."""
    if "confusion" not in kinds.of(job.kind).plots:
        raise Problem("not_found", f"a {job.kind} has no confusion matrix")
    if not job.epoch:
        raise Problem("not_yet", _NO_EPOCH)
    with core().database.read() as session:
        found = lookup.matrix(session, job, which)
    if found is None:
        raise Problem("not_yet", "this epoch has no confusion matrix: it is computed at the end of an epoch")
    epoch, matrix = found
    info = dataset_or_none(job)

    def draw() -> bytes:
        from service.pictures import plots

        class_names = info.class_names if info is not None and len(info.class_names) == len(matrix) else None
        title = f"{listing.title(job.id, job.name, job.kind)}, epoch {epoch}"
        return plots.confusion(matrix, class_names=class_names, title=title, fmt=fmt)

    return _cached_picture(job.id, "confusion", epoch, fmt, draw)


def _cached_picture(job_id: str, name: str, epoch: int, suffix: str, draw: Callable[[], bytes]) -> Picture:
    """The cached picture of this name and epoch; if there is none, ``draw`` creates it."""
    version = f"{epoch:06d}.{suffix}"
    with slots.hold(slots.DRAWING):
        data = core().artifacts.cached_image(job_id, name, version)
        if data is None:
            data = draw()
            _cache(job_id, name, version, data)
    return picture(data)


def _cache(job_id: str, name: str, version: str, data: bytes) -> None:
    try:
        core().artifacts.cache_image(job_id, name, version, data)
    except OSError as error:  # not fatal: the next request draws it again
        _log.warning("picture not kept", job=job_id, error=str(error))
    try:
        with core().database.read() as session:
            lookup.get(session, job_id)
    except JobNotFound:  # deleted while this was drawn: leave nothing behind
        core().artifacts.remove_folder(job_id)


class _LazyFiles(Sequence[bytes]):
    """Files that are read one at a time, on access."""

    def __init__(self, artifacts: ArtifactStore, rows: Sequence[Artifact]) -> None:
        self._artifacts, self._rows = artifacts, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        row = self._rows[index]
        return self._artifacts.read(row.path, row.sha256)


def _draw_evaluation(job: Job, plot_name: str, fmt: Format, checkpoint: str) -> Picture:
    """``calibration``, ``residuals`` or ``importance`` of a checkpoint, drawn.

    Raises:
        Problem: there is no such plot of this job, or not yet.
    """
    if plot_name not in kinds.of(job.kind).plots:
        raise Problem("not_found", f"a {job.kind} has no plot {plot_name}")
    info = validation_results.table_of(job) if plot_name == "importance" else dataset_of(job)
    require_available(info)

    def draw(model: LoadedModel, row: Artifact) -> Picture:
        def render() -> bytes:
            from service.pictures import plots  # loads Matplotlib, which takes most of a second

            dataset = core().repository.load(info)
            if plot_name == "importance":
                column_importances = inference().importances(row, model, dataset)
                bars = [(item.column, item.mean, item.deviation) for item in column_importances.columns]
                scores = {"accuracy": column_importances.accuracy, "rmse": column_importances.rmse}
                return plots.importance(bars, **scores, epoch=row.epoch, fmt=fmt)
            if plot_name == "residuals":
                found = validation_results.residuals_of(model, row, info, limit=0)
                return plots.residuals(
                    found.targets, found.predictions, target=info.target, epoch=row.epoch, rmse=found.rmse, fmt=fmt
                )
            diagram = inference().calibration(row, model, dataset)
            points = [(item.confidence, item.accuracy, item.count) for item in diagram.bins]
            return plots.calibration(points, error=diagram.expected_error, epoch=row.epoch, fmt=fmt)

        return _cached_picture(job.id, plot_name, row.epoch, fmt, render)

    return with_network(job, checkpoint, info, draw)
