"""What a reference to a model means: the checkpoint that it names now."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from service.errors import ArtifactNotFound, JobNotFound, ServiceError
from service.jobs.queries import lookup
from service.states import JobKind
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Artifact, Job

NOTATION: Final = "the id of a job, such as job_01J00000000000000000000000, or job_…@best, @latest or @7"
_JOB: Final = re.compile(r"(job_[0-9A-Za-z]{1,36})(?:@(best|latest|[0-9]{1,9}))?", re.ASCII)


class ModelNotFound(ServiceError, LookupError):
    """A reference names no model of the owner, or one without this checkpoint."""

    code = "not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The checkpoint that a reference names."""

    job: Job
    checkpoint: Artifact

    @property
    def pinned(self) -> str:
        """The reference that always names this checkpoint."""
        return f"{self.job.id}@{self.checkpoint.epoch}"


def resolve(session: Session, reference: str, *, owner: str | None) -> Model:
    """The model that a reference names now.

    Args:
        owner: only models of this owner; ``None``: any.

    Raises:
        ModelNotFound: there is none, it belongs to another owner, or its checkpoint is not stored.
    """
    match = _JOB.fullmatch(reference)
    if match is None:
        raise ModelNotFound(f"is not a reference to a model: give {NOTATION}")
    job_id, which = match[1], match[2] or "best"
    try:
        job = lookup.get(session, job_id, owner=owner)
    except JobNotFound as error:
        raise ModelNotFound(f"there is no job {job_id!r}") from error
    if job.kind == JobKind.PREDICTION:
        raise ModelNotFound(f"is a prediction, which has no model; it used {job.resolved['model']['job']}")
    try:
        return Model(job=job, checkpoint=lookup.checkpoint(session, job, which))
    except ArtifactNotFound as error:
        if not lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT):
            detail = f"the job is {job.status} and has no checkpoint: the first one follows its first epoch"
            raise ModelNotFound(detail) from error
        raise ModelNotFound(str(error)) from error
