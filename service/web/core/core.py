"""The objects that all subjects of a web process share, stored in the Flask app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar, cast

from flask import Flask, current_app, g

from service.datasets.repository import DatasetRepository
from service.runtime.settings import Settings
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
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


def owner() -> str | None:
    """The owner whose jobs the current request may access; ``None`` means all, without API keys."""
    return cast("str | None", g.get("owner"))
