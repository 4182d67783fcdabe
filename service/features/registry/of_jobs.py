"""The versions of models that a job is registered as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.features.registry import queries
from service.features.registry.tables import Model, ModelVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A version that is a checkpoint of the job."""

    name: str
    version: int
    epoch: int
    aliases: Sequence[str]
    """That hold it now."""

    @property
    def reference(self) -> str:
        """``digits:3``."""
        return f"{self.name}:{self.version}"


def registrations(session: Session, job_id: str) -> list[Registration]:
    """The versions that a job is registered as, by model and number."""
    columns = (Model.id, Model.name, ModelVersion.version, ModelVersion.epoch)
    query = select(*columns).join(ModelVersion, Model.id == ModelVersion.model_id).where(ModelVersion.job_id == job_id)
    rows = session.execute(query.order_by(Model.name, ModelVersion.version)).all()
    aliases = queries.aliases(session, {row.id for row in rows})
    return [
        Registration(
            name=row.name,
            version=row.version,
            epoch=row.epoch,
            aliases=[item.alias for item in aliases if (item.model_id, item.version) == (row.id, row.version)],
        )
        for row in rows
    ]
