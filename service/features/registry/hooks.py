"""What the registry keeps: the jobs that are versions of models, and the checkpoints of these versions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import Select, SQLColumnExpression, select
from sqlalchemy.orm import Session

from service.features.registry.errors import JobRegistered
from service.hooks import Hooks
from service.storage.model_tables import Model, ModelVersion


def _require_unregistered(session: Session, job_ids: Collection[str]) -> None:
    query = select(ModelVersion.job_id, Model.name, ModelVersion.version).join(Model, Model.id == ModelVersion.model_id)
    query = query.where(ModelVersion.job_id.in_(job_ids)).order_by(Model.name, ModelVersion.version)
    by_job: dict[str, list[str]] = {}
    for row in session.execute(query):
        by_job.setdefault(row.job_id, []).append(f"{row.name}:{row.version}")
    if by_job:
        raise JobRegistered(by_job)


def _versions(job_id: SQLColumnExpression[str]) -> Select[int]:
    return select(ModelVersion.epoch).where(ModelVersion.job_id == job_id)


HOOKS: Final = Hooks(before_deletion=_require_unregistered, kept_epochs=_versions)
