"""Pictures drawn on request from a job's rows and files, and cached in the job's folder."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog

from service.datasets.errors import DatasetError
from service.datasets.info import DatasetInfo
from service.datasets.repository import DatasetRepository
from service.errors import JobNotFound
from service.jobs import events
from service.jobs.events import EventType
from service.jobs.queries import listing, lookup
from service.pictures import animations, grids
from service.spec.metric_info import describe
from service.spec.schema import Kind
from service.states import DatasetKind, Severity
from service.storage.artifacts import ArtifactKind, ArtifactStore
from service.storage.database import Database
from service.storage.sweep_tables import Sweep
from service.storage.tables import Artifact, Job
from service.sweeps.curves import Curve
from service.web import slots
from service.web.middleware.problems import Problem
from service.web.schemas.epochs import metric_table

Format = Literal["png", "svg"]
MEDIA_TYPES: Final[Mapping[str, str]] = {"png": "image/png", "svg": "image/svg+xml"}
Plot = Literal["curves", "confusion"]

_MAX_PREVIEWS: Final = 32
"""Number of dataset previews cached in memory."""

_log = structlog.get_logger("tapeline.web")


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn picture and its ETag."""

    data: bytes
    etag: str


class Drawings:
    """Draws pictures, and caches those of jobs by epoch in the job's folder."""

    def __init__(self, repository: DatasetRepository, database: Database, artifacts: ArtifactStore) -> None:
        self._repository, self._database, self._artifacts = repository, database, artifacts
        self._preview = functools.lru_cache(_MAX_PREVIEWS)(self._draw_preview)

    def film(self, job: Job, fmt: animations.AnimationFormat) -> Picture:
        """The animation of all sample grids of a job."""
        with self._database.read() as session:
            rows = lookup.artifacts(session, job.id, ArtifactKind.SAMPLE)
        if not rows:
            raise Problem("not_yet", "the job has no samples yet: the first ones are made at the end of an epoch")

        def draw() -> bytes:
            pngs, epochs = _LazyFiles(self._artifacts, rows), [row.epoch for row in rows]
            return animations.animate(pngs, epochs=epochs, fmt=fmt, is_colour=self._is_colour(job))

        return self.cached_picture(job.id, "samples", rows[-1].epoch, fmt, draw)

    def classified_samples(self, job: Job, sample: Artifact) -> Picture:
        """A GAN's sample grid, labelled with the classes that the reference classifier predicted; they are stored in
        the file."""
        png = self._artifacts.read(sample.path, sample.sha256)
        info = self._repository.of_job(job)
        try:
            with slots.hold(slots.DRAWING):
                data = grids.classified_grid(png, classes=info.classes, class_names=info.class_names)
        except grids.NotClassified as error:
            raise Problem(
                "no_verdicts", f"the samples of epoch {sample.epoch} were not scored by a reference classifier"
            ) from error
        return picture(data)

    def plot(self, job: Job, plot_name: Plot, fmt: Format, which: str = "latest") -> Picture:
        """A plot of a job's curves, or of the confusion matrix named by ``which``."""
        with self._database.read() as session:
            rows, found = lookup.epochs(session, job.id), lookup.matrix(session, job, which)
            health_events = events.of_type(session, job.id, EventType.HEALTH)
        if plot_name == "confusion" and job.kind != Kind.CLASSIFIER:
            raise Problem("not_found", f"a {job.kind} has no confusion matrix")
        if not rows:
            raise Problem("not_yet", "the job has not finished its first epoch")
        title = listing.title(job.id, job.name, job.kind)
        if plot_name == "curves":
            table = metric_table(job, rows, health_events)

            def draw() -> bytes:
                from service.pictures import plots  # loads Matplotlib, which takes most of a second

                marks = [
                    plots.Mark(
                        label=item.code.replace("_", " "),
                        since=item.since,
                        until=item.until,
                        is_error=item.severity is Severity.ERROR,
                    )
                    for item in table.findings
                ]
                return plots.curves(
                    job.kind, table.epochs, table.series, title=title, fmt=fmt, best_epoch=job.best_epoch, marks=marks
                )

            return self.cached_picture(job.id, plot_name, rows[-1].epoch, fmt, draw)
        if found is None:
            raise Problem("not_yet", "this epoch has no confusion matrix: it is computed at the end of an epoch")
        epoch, matrix = found
        names = self._class_names(job)

        def draw_confusion() -> bytes:
            from service.pictures import plots  # loads Matplotlib, which takes most of a second

            class_names = names if names is not None and len(names) == len(matrix) else None
            return plots.confusion(matrix, class_names=class_names, title=f"{title}, epoch {epoch}", fmt=fmt)

        return self.cached_picture(job.id, plot_name, epoch, fmt, draw_confusion)

    def preview(self, info: DatasetInfo) -> Picture:
        """Examples of each class of a dataset whose files are available."""
        require_images(info)
        require_available(info)
        with slots.hold(slots.DRAWING):
            return self._preview(info)

    def validation_picture(self, info: DatasetInfo, index: int) -> Picture:
        """One image of the validation split, unscaled."""
        require_images(info)
        require_available(info)
        dataset = self._repository.load(info)
        return picture(grids.image_png(dataset.validation.inputs[index]))

    def _draw_preview(self, info: DatasetInfo) -> Picture:
        return picture(grids.preview_png(self._repository.load(info), scale=2))

    def _is_colour(self, job: Job) -> bool:
        try:
            return len(self._repository.of_job(job).image_shape) > 2
        except DatasetError:  # its folder was removed; datasets in colour are uploads, which cannot be removed
            # while jobs use them
            return False

    def _class_names(self, job: Job) -> tuple[str, ...] | None:
        try:
            return self._repository.of_job(job).class_names
        except DatasetError:  # it may have been removed; class numbers are shown then
            return None

    def cached_picture(self, job_id: str, name: str, epoch: int, suffix: str, draw: Callable[[], bytes]) -> Picture:
        """The cached picture of this name and epoch; if there is none, ``draw`` creates it."""
        version = f"{epoch:06d}.{suffix}"
        with slots.hold(slots.DRAWING):
            data = self._artifacts.cached_image(job_id, name, version)
            if data is None:
                data = draw()
                self._cache(job_id, name, version, data)
        return picture(data)

    def _cache(self, job_id: str, name: str, version: str, data: bytes) -> None:
        try:
            self._artifacts.cache_image(job_id, name, version, data)
        except OSError as error:  # not fatal: the next request draws it again
            _log.warning("picture not kept", job=job_id, error=str(error))
        try:
            with self._database.read() as session:
                lookup.get(session, job_id)
        except JobNotFound:  # deleted while this was drawn: leave nothing behind
            self._artifacts.remove_job(job_id)


_BANDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "range": ("low", "high", "; band: lowest to highest seed"),
    "interval": ("interval_low", "interval_high", "; band: 95% interval of the mean"),
}


def sweep_curves(sweep: Sweep, metric: str, curves: Sequence[Curve], *, band: str, fmt: Format) -> Picture:
    """A plot of the best trials of a sweep. It is not cached: a sweep has no folder."""
    from service.pictures import plots  # loads Matplotlib, which takes most of a second

    seeds = len(sweep.resolved["seeds"])
    low, high, band_note = _BANDS.get(band, ("mean", "mean", "")) if seeds > 1 else ("mean", "mean", "")
    lines = [
        plots.BandedLine(
            label=f"trial {curve.trial}",
            epochs=curve.epochs,
            mean=curve.mean,
            low=getattr(curve, low),
            high=getattr(curve, high),
        )
        for curve in curves
    ]
    title = f"{sweep.name or f'sweep {sweep.id[-6:].lower()}'}: {describe(metric).label}"
    caption = f"mean of {seeds} seeds{band_note}" if seeds > 1 else "one seed"
    rungs = sweep.resolved["rungs"][:-1]
    with slots.hold(slots.DRAWING):
        return picture(plots.banded(lines, metric=metric, title=title, caption=caption, rungs=rungs, fmt=fmt))


def require_available(info: DatasetInfo) -> None:
    """Require a dataset whose files are available; only workers download datasets.

    Raises:
        Problem: the dataset is not downloaded yet.
    """
    if not info.available:
        raise Problem(
            "not_yet", "the dataset is not downloaded yet: a worker downloads it for the first job that uses it"
        )


def require_images(info: DatasetInfo) -> None:
    """Require a dataset of images.

    Raises:
        Problem: the dataset is a table.
    """
    if info.kind is DatasetKind.TABLE:
        raise Problem("not_found", f"{info.name} is a table: there are no images of it")


class _LazyFiles(Sequence[bytes]):
    """Files that are read one at a time, on access."""

    def __init__(self, artifacts: ArtifactStore, rows: Sequence[Artifact]) -> None:
        self._artifacts, self._rows = artifacts, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        row = self._rows[index]
        return self._artifacts.read(row.path, row.sha256)


def picture(data: bytes) -> Picture:
    """A picture with the ETag of its content."""
    return Picture(data, hashlib.sha256(data).hexdigest()[:32])
