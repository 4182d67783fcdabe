"""From a job and what a person calls a checkpoint to its network, ready to answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, cast

from flask import current_app
from sqlalchemy.orm import Session

from service.datasets import DatasetError, DatasetInfo
from service.errors import ArtifactNotFound
from service.jobs.queries import lookup
from service.spec.schema import Kind
from service.states import DatasetKind
from service.storage.artifacts import ArtifactDamaged, ArtifactKind
from service.storage.tables import Artifact, Job
from service.web.middleware.problems import Problem
from service.web.services import owner, services

if TYPE_CHECKING:
    from service.web.inference.answering import Inference, LoadedModel

PROBLEMS: Final = (
    "job_not_found",
    "wrong_kind",
    "not_yet",
    "artifact_not_found",
    "artifact_damaged",
    "dataset_not_found",
)
"""What the documentation says of every endpoint that asks a checkpoint."""

_EXTENSION: Final = "tapeline.inference"
_loading = threading.Lock()

T = TypeVar("T")


def inference() -> Inference:
    """The app's one ``Inference``. The engine is imported lazily: a process that is never asked does without."""
    with _loading:
        if _EXTENSION not in current_app.extensions:
            from service.web.inference.answering import Inference  # loads the engine

            current_app.extensions[_EXTENSION] = Inference(services().artifacts)
        return cast("Inference", current_app.extensions[_EXTENSION])


def job_of(job_id: str, kind: Kind) -> Job:
    """A job of this kind.

    Raises:
        Problem: it is of the other kind.
    """
    with services().database.read() as session:
        job = lookup.get(session, job_id, owner=owner())
    if job.kind != kind:
        verb = "it generates: POST" if job.kind == Kind.GAN else "it predicts: POST"
        path = "generate" if job.kind == Kind.GAN else "predict"
        raise Problem("wrong_kind", f"the job is a {job.kind}; {verb} /jobs/{job_id}/{path}")
    return job


def dataset_of(job: Job) -> DatasetInfo:
    """What is known of the dataset that a job is trained on.

    Raises:
        DatasetNotFound: it is there no more.
        DatasetChanged: it is another one by now.
    """
    return services().repository.of_job(job)


def is_table(job: Job) -> bool:
    """Whether a job is trained on a table; also known of one whose dataset is gone, once it has begun."""
    try:
        return dataset_of(job).kind is DatasetKind.TABLE
    except DatasetError:
        return "preprocessing" in (job.provenance or {})


def class_names(job: Job, count: int | None) -> list[str]:
    """The names of a job's classes; numbers where the dataset is gone or does not have ``count`` classes any more.

    Args:
        count: ``None``: however many the dataset has.
    """
    try:
        names = list(dataset_of(job).class_names)
    except DatasetError:
        names = []
    return names if count is None or len(names) == count else [str(number) for number in range(count)]


def with_network(job: Job, which: str, info: DatasetInfo, answer: Callable[[LoadedModel, Artifact], T]) -> T:
    """Answer from a checkpoint. A running job removes its older ones: what is gone may have a successor.

    Raises:
        Problem: the job has none yet, or not this one.
        ArtifactDamaged: it cannot be read.
    """
    row = _checkpoint(job, which)
    while True:
        try:
            model = inference().load(row, info.input_shape, info.classes)
            if model.spec.kind != job.kind:
                raise ArtifactDamaged(row.path, f"it holds a {model.spec.kind}")
            return answer(model, row)
        except ArtifactDamaged:
            gone, row = row, _checkpoint(job, which)
            if row.id == gone.id:
                raise


def _checkpoint(job: Job, which: str) -> Artifact:
    with services().database.read() as session:
        try:
            return lookup.checkpoint(session, job, which)
        except ArtifactNotFound as error:
            raise missing_checkpoint(session, job, which) from error


def missing_checkpoint(session: Session, job: Job, which: str) -> Problem:
    """Why a job does not have a checkpoint, and which ones it has."""
    kept = [row.epoch for row in lookup.artifacts(session, job.id, ArtifactKind.CHECKPOINT)]
    if not kept:
        detail = f"the job is {job.status} and has no checkpoint yet: the first one follows its first epoch"
        return Problem("not_yet", detail)
    listed = ", ".join(map(str, kept[-20:]))
    detail = (
        f"there is no checkpoint of epoch {which}; available epochs: {listed}. "
        'To keep all checkpoints, set "checkpoint": {"keep_last": 1000} in the spec'
    )
    return Problem("artifact_not_found", detail)
