"""Load the network of a job's checkpoint, named as in a request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, cast

from flask import current_app
from sqlalchemy.orm import Session

from service import kinds
from service.datasets.errors import DatasetError
from service.datasets.info import DatasetInfo
from service.errors import ArtifactNotFound
from service.jobs.queries import lookup
from service.kinds.kind import Ability
from service.states import DatasetKind
from service.storage.artifact_rows import use_current
from service.storage.artifacts import ArtifactDamaged, ArtifactKind
from service.storage.tables import Artifact, Job
from service.web.core.core import core, read_job
from service.web.http import slots
from service.web.http.problems import Problem

if TYPE_CHECKING:
    from service.models.predicting import LoadedModel
    from service.web.inference.model_runner import Inference

PROBLEMS: Final = (
    "job_not_found",
    "wrong_kind",
    "not_yet",
    "artifact_not_found",
    "artifact_damaged",
    "store_unavailable",
    "dataset_not_found",
    "busy",
)
"""Problems that every endpoint with inference documents."""

_EXTENSION: Final = "tapeline.inference"
_loading_lock = threading.Lock()

T = TypeVar("T")


def inference() -> Inference:
    """The app's ``Inference``. The engine is imported on first use."""
    with _loading_lock:
        if _EXTENSION not in current_app.extensions:
            from service.web.inference.model_runner import Inference  # loads the engine

            current_app.extensions[_EXTENSION] = Inference(core().artifacts)
        return cast("Inference", current_app.extensions[_EXTENSION])


def job_of(job_id: str, ability: Ability | None = None) -> Job:
    """The job with this id, whose kind must have this ability, if one is named.

    Raises:
        Problem: the job is of another kind.
    """
    with read_job(job_id) as (_, job):
        kind = kinds.of(job.kind)
    if ability is None or ability in kind.abilities:
        return job
    raise Problem("wrong_kind", f"the job is a {kind.title}; {kind.remedy(ability, job)}")


def dataset_of(job: Job) -> DatasetInfo:
    """The dataset that a job is trained on.

    Raises:
        DatasetNotFound: it no longer exists.
        DatasetChanged: its files have changed.
    """
    return core().repository.of_job(job)


def dataset_or_none(job: Job) -> DatasetInfo | None:
    """The dataset that a job is trained on; ``None`` if it no longer exists, or its files have changed."""
    try:
        return dataset_of(job)
    except DatasetError:
        return None


def is_table(job: Job, info: DatasetInfo | None) -> bool:
    """Whether a job is trained on a table; if its dataset no longer exists, its provenance decides."""
    return info.kind is DatasetKind.TABLE if info is not None else "preprocessing" in (job.provenance or {})


def class_names(job: Job, count: int | None) -> list[str]:
    """The names of a job's classes; numbers if the dataset no longer exists, or no longer has ``count`` classes.

    Args:
        count: ``None`` allows any number.
    """
    try:
        names = list(dataset_of(job).class_names)
    except DatasetError:
        names = []
    return names if count is None or len(names) == count else [str(index) for index in range(count)]


def with_network(job: Job, checkpoint: str, info: DatasetInfo, run: Callable[[LoadedModel, Artifact], T]) -> T:
    """Call ``run`` with the network of a checkpoint, in a slot for computations.

    Raises:
        Problem: the job has no checkpoint yet.
        ArtifactNotFound: it has others, but not this one.
        ArtifactDamaged: it cannot be read.
        Busy: too many requests wait for a slot.
    """

    def load_and_run(row: Artifact) -> T:
        with slots.hold(slots.COMPUTING):
            model = inference().load(row, info.input_shape, info.classes)
            if model.spec.kind != job.kind:
                raise ArtifactDamaged(row.path, f"it holds a {model.spec.kind}")
            return run(model, row)

    return use_current(lambda: _checkpoint(job, checkpoint), load_and_run)


def _checkpoint(job: Job, checkpoint: str) -> Artifact:
    with core().database.read() as session:
        job = lookup.get(session, job.id)  # which epoch is the best may have changed, and its file have been removed
        try:
            return lookup.checkpoint(session, job, checkpoint)
        except ArtifactNotFound as error:
            require_a_checkpoint(session, job, error)
            raise


def require_a_checkpoint(session: Session, job: Job, error: ArtifactNotFound) -> None:
    """Raise the problem ``not_yet`` if a file is missing because the job has no checkpoint at all."""
    if not lookup.artifacts(session, job.id, ArtifactKind.CHECKPOINT):
        detail = f"the job is {job.status} and has no checkpoint yet: the first one follows its first epoch"
        raise Problem("not_yet", detail) from error


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
