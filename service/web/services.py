"""The objects that requests share, stored in the Flask app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from flask import current_app, g

from service.application.datasets import DatasetUploads
from service.application.exports import Exports
from service.application.jobs import Jobs
from service.application.sweeps import Sweeps
from service.datasets.exploration import DatasetExplorer
from service.datasets.repository import DatasetRepository
from service.runtime.settings import Settings
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.web.files.drawings import Drawings
from service.web.files.upload_progress import ProgressBoard
from service.web.metrics import Metrics
from service.web.middleware.keyring import Keyring
from service.web.middleware.quotas import Quotas
from service.web.publisher import Publisher
from service.web.streaming.all_jobs import AllJobsStream
from service.web.streaming.job_stream import MAX_CLIENTS, Hub

EXTENSION: Final = "tapeline"


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """The shared objects of a web process."""

    settings: Settings
    database: Database
    keyring: Keyring
    quotas: Quotas
    artifacts: ArtifactStore
    repository: DatasetRepository
    jobs: Jobs
    sweeps: Sweeps
    dataset_uploads: DatasetUploads
    progress: ProgressBoard
    exports: Exports
    drawings: Drawings
    explorer: DatasetExplorer
    publisher: Publisher
    hub: Hub
    all_jobs_stream: AllJobsStream
    metrics: Metrics
    max_clients: int = MAX_CLIENTS

    @property
    def is_full(self) -> bool:
        """Whether another stream or delayed response would occupy a thread that is reserved for quick requests."""
        return self.hub.clients + self.all_jobs_stream.clients >= self.max_clients


def services() -> Services:
    """The services of the current app."""
    return cast(Services, current_app.extensions[EXTENSION])


def owner() -> str | None:
    """The owner whose jobs the current request may access; ``None`` means all, without API keys."""
    return cast("str | None", g.get("owner"))
