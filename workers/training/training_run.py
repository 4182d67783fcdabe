"""The context of training one job under one lease."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from service.jobs.leases import Claim
from service.spec.schema import Spec
from service.storage.artifacts import ArtifactStore
from workers.lease_session import LeaseSession
from workers.messages import ChildEndpoint
from workers.usage import OwnMeter

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One job under one lease."""

    lease: LeaseSession
    """Its retries end when a stop is ordered."""
    artifacts: ArtifactStore
    endpoint: ChildEndpoint
    spec: Spec
    meter: OwnMeter

    @property
    def claim(self) -> Claim:
        """The claim of the lease."""
        return self.lease.claim

    def discard(self, paths: Iterable[str]) -> None:
        """Remove files without rows. A failure does not stop the job: the scheduler removes orphaned files."""
        try:
            self.artifacts.remove(paths)
        except OSError as error:
            log.warning("files not removed", error=str(error))
