"""The objects that all subjects of a web process share, stored in the Flask app."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from flask import Flask, current_app, g
from sqlalchemy.orm import Session

from service.datasets.repository import DatasetRepository
from service.jobs.queries import lookup
from service.runtime.settings import Settings
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.tables import Job
from service.web.core.keyring import Keyring
from service.web.core.metrics import Metrics
from service.web.core.publisher import Publisher
from service.web.core.quotas import Quotas

EXTENSION: Final = "tapeline"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Core:
    """What every subject needs."""

    settings: Settings
    database: Database
    artifacts: ArtifactStore
    repository: DatasetRepository
    keyring: Keyring
    quotas: Quotas
    publisher: Publisher
    metrics: Metrics


def core() -> Core:
    """The shared objects of the current app."""
    return cast(Core, current_app.extensions[EXTENSION])


def provide(app: Flask, *objects: object) -> None:
    """Add the objects of a subject to an app, for ``provided``."""
    for item in objects:
        app.extensions[f"{EXTENSION}.{type(item).__name__}"] = item


def provided(kind: type[T], app: Flask | None = None) -> T:
    """The object of this class that a subject has added to an app, by default the current one."""
    return cast(T, (app or current_app).extensions[f"{EXTENSION}.{kind.__name__}"])


@contextmanager
def read_job(job_id: str) -> Iterator[tuple[Session, Job]]:
    """A job that the current request may access, and the session that reads it.

    Raises:
        JobNotFound: the job does not exist, or belongs to another owner.
    """
    with core().database.read() as session:
        yield session, lookup.get(session, job_id, owner=owner())


def owner() -> str | None:
    """The owner whose jobs the current request may access; ``None`` means all, without API keys."""
    return cast("str | None", g.get("owner"))
