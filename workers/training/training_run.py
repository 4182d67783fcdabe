"""What a child needs to train one job under one lease."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from service.jobs.leases import Claim
from service.spec.schema import Spec
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from workers.messages import ChildEndpoint
from workers.retry import retry_on_outage
from workers.usage import OwnMeter

T = TypeVar("T")
log = structlog.get_logger()


class Stopped(Exception):
    """The supervisor asked to let go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One job under one lease, and what is needed to train it."""

    database: Database
    artifacts: ArtifactStore
    held: Claim
    orders: ChildEndpoint
    spec: Spec
    meter: OwnMeter

    def retry_on_outage(self, ask: Callable[[], T]) -> T:
        """Ask the database until it answers, the supervisor wants us to let go, or the lease cannot hold any more."""
        return retry_on_outage(ask, patience_s=self.held.lease_s, between=self.obey)

    def discard(self, paths: Iterable[str]) -> None:
        """Remove files that no row names. Where that fails the job goes on: the scheduler removes orphaned files."""
        try:
            self.artifacts.remove(paths)
        except OSError as error:
            log.warning("files not removed", error=str(error))

    def obey(self) -> None:
        """Leave where the supervisor has asked to let go."""
        if self.orders.stopping:
            raise Stopped
