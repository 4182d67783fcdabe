"""What the registry keeps: the jobs that are versions of models, and the checkpoints of these versions; what its
references mean; and models without an owner."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import Select, SQLColumnExpression, func, select
from sqlalchemy.orm import Session

from service.features.registry import queries
from service.features.registry.errors import JobRegistered
from service.features.registry.tables import Model, ModelVersion
from service.hooks import Hooks, NamedCheckpoint, Unowned
from service.storage.database import locking


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


def _count_unowned(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Model).where(Model.owner == "")) or 0


def _adopt(session: Session, owner: str) -> int:
    """Change the owner of models. One whose name the owner has already gets a number added."""
    taken = set(session.scalars(select(Model.name).where(Model.owner == owner)))
    rows = session.scalars(locking(select(Model).where(Model.owner == "").order_by(Model.id))).all()
    for row in rows:
        stem, number = row.name[:56], 2
        while row.name in taken:
            row.name, number = f"{stem}-{number}", number + 1
        taken.add(row.name)
        row.owner = owner
    session.flush()
    return len(rows)


def _resolve(session: Session, reference: str, owner: str | None) -> NamedCheckpoint | None:
    if queries.Reference.parse(reference) is None:
        return None
    model, version = queries.resolve(session, reference, owner=owner)
    return NamedCheckpoint(name=f"{model.name}:{version.version}", job_id=version.job_id, epoch=version.epoch)


HOOKS: Final = Hooks(
    before_deletion=_require_unregistered,
    kept_epochs=_versions,
    unowned=Unowned(name="model", count=_count_unowned, adopt=_adopt),
    resolve=_resolve,
)
