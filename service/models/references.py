"""What a reference to a model means: the checkpoint that it names now."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from service import hooks, kinds
from service.errors import ArtifactNotFound, JobNotFound, ModelNotFound
from service.jobs.queries import lookup
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Artifact, Job

NOTATION: Final = (
    "a version of a model, such as digits@champion or digits:3, or the id of a job: job_01J00000000000000000000000, "
    "job_…@best, @latest or @7"
)
_JOB: Final = re.compile(r"(job_[0-9A-Za-z]{1,36})(?:@(best|latest|[0-9]{1,9}))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The checkpoint that a reference names.

    Attributes:
        version: the name that it keeps, such as ``digits:3``, if the reference was not the id of a job.
    """

    job: Job
    checkpoint: Artifact
    version: str | None = None


def resolve(session: Session, reference: str, *, owner: str | None) -> Model:
    """The model that a reference names now.

    Args:
        owner: only models of this owner; ``None``: any.

    Raises:
        ModelNotFound: there is none, it belongs to another owner, or its checkpoint is not stored.
    """
    job, which, version = _named(session, reference, owner)
    if not kinds.of(job.kind).trains:
        raise ModelNotFound(f"is a prediction, which has no model; it used {job.resolved['model']['job']}")
    try:
        return Model(job=job, checkpoint=lookup.checkpoint(session, job, which), version=version)
    except ArtifactNotFound as error:
        if not lookup.artifacts(session, job.id, ArtifactKind.CHECKPOINT):
            detail = f"the job is {job.status} and has no checkpoint: the first one follows its first epoch"
            raise ModelNotFound(detail) from error
        raise ModelNotFound(str(error)) from error


def _named(session: Session, reference: str, owner: str | None) -> tuple[Job, str, str | None]:
    """The job that a reference means, which of its checkpoints, and the name that it keeps."""
    if (match := _JOB.fullmatch(reference)) is not None:
        try:
            return lookup.get(session, match[1], owner=owner), match[2] or "best", None
        except JobNotFound as error:
            raise ModelNotFound(f"there is no job {match[1]!r}") from error
    if (named := hooks.resolve(session, reference, owner=owner)) is None:
        raise ModelNotFound(f"is not a reference to a model: give {NOTATION}")
    return lookup.get(session, named.job_id), str(named.epoch), named.name
