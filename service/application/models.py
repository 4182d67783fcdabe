"""Trained models: requests for predictions and images, and exports to the formats of other programs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.access import audit, storage_quota
from service.access.audit import Actor, AuditAction, owner_of
from service.errors import ArtifactNotFound, JobNotFound, StorageQuotaExceeded, WrongStore
from service.jobs.queries import lookup
from service.jobs.request_bodies import Which
from service.models.certificates import contents
from service.runtime.slots import SlotPool
from service.spec.schema import StrictModel
from service.spec.strict_json import canonical
from service.storage import artifact_rows
from service.storage.artifacts import EXPORTS, SUFFIXES, ArtifactKind, ArtifactStore
from service.storage.database import Database, locking
from service.storage.tables import Artifact, Epoch, Job
from tapeline.images.files import SENT_UNCHANGED_PIXELS

MAX_IMAGES: Final = 256
"""Maximum number of images of one request, sent or generated."""
MAX_ROWS: Final = 1000
"""Maximum number of table rows of one request."""
MAX_PIXELS: Final = SENT_UNCHANGED_PIXELS
"""Maximum number of pixels of all images of one request together, sent or generated."""
MAX_PHOTO_PIXELS: Final = 2**26
"""The same limit for JPEG, WebP, BMP and GIF files, which are scaled down while they are decoded."""
MAX_NUMBERS: Final = 2**21
"""Maximum number of pixels of a request whose response consists of numbers."""

Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]


# One fault per point is enough: a body may contain half a million numbers.
_Point = Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(fail_fast=True)]


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    raise PydanticCustomError("cell", "must be a number, a text, true, false or null")


Cell = Annotated[Any, AfterValidator(_cell), WithJsonSchema({"type": ["string", "number", "boolean", "null"]})]
"""A value of a row, validated with a single fault; a union would report one fault per type."""


class PredictRequest(StrictModel):
    """Images or rows of a table to classify."""

    images: Annotated[list[Any], Field(min_length=1, max_length=MAX_IMAGES)] | None = None
    """Each image is a PNG, JPEG, WebP, BMP or GIF file in base64 (or a data URL), or numbers in [0, 1], where 0 is
    black, as rows (in colour, rows of triples) or as one flat list."""
    rows: Annotated[list[dict[str, Cell]], Field(min_length=1, max_length=MAX_ROWS)] | None = None
    """For a job trained on a table: each row is an object with values by column name. Numbers may be sent as text;
    dates have the format of the data. A value is missing if its column is left out, or if it is null, an empty text or
    one of the texts `NA`, `NaN`, `null`, `?` and `-`."""
    checkpoint: Which = "best"
    fit: bool = False
    """For arrays in grey, such as MNIST: crop the drawing, scale it, and centre its centre of mass, like MNIST digits.
    For arrays in colour: scale each image to cover the dataset's size and centre-crop it. Without effect for a dataset
    that was imported from image files: its images are always prepared as at the import."""
    invert: bool = False
    """Invert the images: use it for dark drawings on a light background."""
    explain: bool = False
    """Also return a saliency map: the gradient of the predicted class's logit with respect to each pixel."""


class GenerateRequest(StrictModel):
    """The latent points of the images to generate: from one seed, from several seeds, or given as numbers."""

    count: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = None
    """Number of images to generate from ``seed`` (default: 16)."""
    seed: Seed | None = None
    """Seed of the latent points (default: 0). The job's own seed gives the images of its sample grids."""
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MAX_IMAGES)] | None = None
    latent: Annotated[list[_Point], Field(min_length=1, max_length=MAX_IMAGES)] | None = None
    """Latent points, each as a list of numbers."""
    steps: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = None
    """Interpolate from each point to the next in this many steps: along a great circle for normal noise, otherwise
    along a straight line."""
    class_: Annotated[
        Annotated[int, Field(ge=0)] | Annotated[str, Field(max_length=200)] | None, Field(alias="class")
    ] = None
    """For a conditional GAN: the class of all images, by name or number. Without it, the classes alternate."""
    format: Literal["png", "array", "grid", "film"] = "png"
    """``png``: each image in base64; ``array``: numbers in [0, 1]; ``grid``: one PNG; ``film``: an animated GIF."""
    scale: Annotated[int, Field(ge=1, le=16)] = 1
    """Scale factor of PNGs and GIFs."""
    with_latent: bool = False
    """Also return the latent points."""
    checkpoint: Which = "best"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = [name for name in ("seed", "seeds", "latent") if getattr(self, name) is not None]
        if self.count is not None and "seed" not in sources:
            sources.append("count")
        if len(sources) > 1:
            raise PydanticCustomError("two_sources", "{names} cannot be combined", {"names": " and ".join(sources)})
        return self


_LAYOUT: Final = 4
"""Version of the exported files. Increase it when their content changes, so that they are created again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to export.

    Attributes:
        checkpoint: ``None`` for a format without weights.
        epochs, samples: all those of the job.
        license: SPDX identifier from the client's request.
        checkpoints: all those of the job, for a certificate.
        kid: the id of the key that signs a certificate.
    """

    job: Job
    format: ArtifactKind
    checkpoint: Artifact | None
    epochs: Sequence[Epoch]
    samples: Sequence[Artifact]
    license: str | None
    checkpoints: Sequence[Artifact] = ()
    kid: str | None = None

    @property
    def epoch(self) -> int:
        """The epoch of the exported model."""
        return self.epochs[-1].epoch if self.checkpoint is None else self.checkpoint.epoch

    @property
    def name(self) -> str:
        """The name of the file. Exports with different content have different names."""
        digest = hashlib.sha256(canonical(self._content).encode()).hexdigest()
        return f"{self.format}-{self.epoch:04d}-{digest[:8]}.{SUFFIXES[self.format]}"

    @property
    def _content(self) -> dict[str, Any]:
        """Everything that the content depends on, except immutable facts of the job."""
        facts: dict[str, Any] = {"layout": _LAYOUT, "name": self.job.name}
        if self.checkpoint is not None:
            facts["checkpoint"] = self.checkpoint.sha256
        if EXPORTS[self.format].has_history:
            facts |= {"tags": self.job.tags, "epochs": len(self.epochs), "status": self.job.status}
        if EXPORTS[self.format].has_card:
            facts |= {"license": self.license, "best": self.job.best_epoch}
        if self.kid is not None:
            facts["kid"] = self.kid
        return facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """Exports of jobs.

    Attributes:
        make: creates the bytes of an export.
        at_most: maximum bytes of the files of all jobs of an owner; 0: no limit.
        slots: one of which is occupied while an export is created; an owner has one at a time.
        signing_key: the id of the key that signs certificates, which is made and published if there is none.
    """

    database: Database
    artifacts: ArtifactStore
    make: Callable[[ExportRequest], bytes]
    slots: SlotPool
    signing_key: Callable[[Actor | None], str]
    at_most: int = 0

    def export(
        self,
        job_id: str,
        target: ArtifactKind,
        *,
        which: str = "best",
        license: str | None = None,  # noqa: A002 - what model cards call it
        by: Actor | None = None,
    ) -> Artifact:
        """The file of an export, created if it does not exist yet.

        Args:
            which: the checkpoint: ``best``, ``latest`` or an epoch number. Ignored by formats without weights.

        Raises:
            ArtifactNotFound: the checkpoint does not exist, or no epoch is finished.
            StorageFull: there is no space to store the export.
            StorageQuotaExceeded: the export does not fit into the quota of the owner.
            Busy: too many exports wait to be created.
            NotCertifiable, SigningUnavailable: there is no certificate.
        """
        is_signed = EXPORTS[target].is_signed
        kid = self._signing_key(job_id, by) if is_signed else None

        def find() -> ExportRequest:
            with self.database.read() as session:
                job = lookup.get(session, job_id, owner=owner_of(by))
                weights = EXPORTS[target].has_weights
                checkpoint = lookup.checkpoint(session, job, which) if weights else None
                epochs = lookup.epochs(session, job_id)
                if not weights and not epochs:
                    raise ArtifactNotFound(job_id, "finished epoch")
                samples = lookup.artifacts(session, job_id, ArtifactKind.SAMPLE)
                checkpoints = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT) if is_signed else ()
                return ExportRequest(
                    job=job,
                    format=target,
                    checkpoint=checkpoint,
                    epochs=epochs,
                    samples=samples,
                    license=license,
                    checkpoints=checkpoints,
                    kid=kid,
                )

        def create(request: ExportRequest) -> Artifact:
            existing = self._find_existing(request)
            return existing if existing is not None else self._store(request, self.make(request), by)

        existing = self._find_existing(find())
        if existing is not None:
            return existing
        with self.slots.slot(owner_of(by)):
            return artifact_rows.use_current(find, create, key=lambda request: request.epoch)

    def _signing_key(self, job_id: str, by: Actor | None) -> str:
        """The key for a certificate of a job, which must be able to have one: no key is made for a refusal."""
        with self.database.read() as session:
            refusal = contents.refusal(lookup.get(session, job_id, owner=owner_of(by)))
        if refusal is not None:
            raise refusal
        return self.signing_key(by)

    def _find_existing(self, request: ExportRequest) -> Artifact | None:
        """The file, if the same was exported before."""
        with self.database.read() as session:
            row = _find_export(session, request)
        return row if row is not None and row.name == request.name else None

    def _store(self, request: ExportRequest, data: bytes, by: Actor | None) -> Artifact:
        job_id, kind = request.job.id, request.format
        try:
            written = self.artifacts.write(job_id, kind, request.epoch, 0, data)
        except OSError as error:
            raise self.artifacts.refusal(error) from error
        file = replace(written, name=request.name)
        try:
            with self.database.write() as session:
                job = session.scalar(locking(select(Job).where(Job.id == job_id)))
                if job is not None:
                    previous = _find_export(session, request)
                    row = artifact_rows.replace(session, job_id, file)
                    added = file.size_bytes - (previous.size_bytes if previous is not None else 0)
                    storage_quota.check_growth(session, job.owner, added, self.at_most)
                    detail = {"format": request.format.value, "epoch": request.epoch, "size_bytes": file.size_bytes}
                    audit.record(session, by, AuditAction.EXPORT, job_id, **detail)
        except (StorageQuotaExceeded, WrongStore):
            self._discard(file.path)
            raise
        if job is None:  # deleted in the meantime: leave no file behind
            self.artifacts.remove_folder(job_id)
            raise JobNotFound(job_id)
        if previous is not None and previous.path != file.path:
            self._discard(previous.path)
        return row

    def _discard(self, path: str) -> None:
        with suppress(OSError):  # the scheduler removes it
            self.artifacts.remove([path])


def _find_export(session: Session, request: ExportRequest) -> Artifact | None:
    conditions = (
        Artifact.job_id == request.job.id,
        Artifact.kind == request.format.value,
        Artifact.epoch == request.epoch,
    )
    return session.scalar(select(Artifact).where(*conditions))
