"""What one worker asks of the database. A change of how workers use it changes this module only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fleet.job_data import epoch_record
from benchmarks.fleet.measuring import Recorder
from service.jobs import commits, epoch_commits, leases, renewals, worker_registry
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Claim, Position, Usage
from service.jobs.renewals import Renewal
from service.maintenance import store_id
from service.spec.schema import KEEP_LAST
from service.storage.database import Database
from service.storage.stores import ArtifactFolder
from service.storage.tables import Worker
from workers import operations
from workers.operations import Execution
from workers.supervisor.job_monitor import RETRY_INTERVAL_S
from workers.supervisor.lease_keeper import LeaseKeeper


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What all simulated workers have in common."""

    url: str
    store: str
    datasets: Sequence[str]
    provenance: Mapping[str, Any]
    slots: int
    lease_s: float
    epochs: int


class WorkerOperations:
    """The operations of one simulated worker: the product's own functions, through its one connection."""

    def __init__(self, fleet: Fleet, number: int, recorder: Recorder) -> None:
        self._fleet, self._recorder = fleet, recorder
        self._id = f"simulated-{number}-00000000"
        self._store = ArtifactFolder(Path(fleet.store))
        # As in workers.supervisor.worker.
        self._database = Database(fleet.url, application="tapeline-worker", idle_connections=1, connections=1)
        self.keeper = LeaseKeeper(self._database)

    def heartbeat(self, running: int, *, draining: bool = False) -> None:
        with self._recorder.timed("heartbeat"):
            worker = Worker(
                id=self._id,
                host="simulated",
                pid=1,
                slots=self._fleet.slots,
                running=running,
                draining=draining,
                provenance=dict(self._fleet.provenance),
                blocked=None,
                version="simulated",
                cpu="simulated",
                datasets=list(self._fleet.datasets),
                cache={"used_bytes": 0, "limit_bytes": 0},
                drain=None,
            )
            worker_registry.record_heartbeat(self._database, worker)

    def check_machine(self) -> None:
        """The check of the store's id, which each worker repeats."""
        with self._recorder.timed("store check"):
            store_id.verify(self._database, self._store)

    def claim(self) -> Claim | None:
        with self._recorder.timed("claim"):
            return leases.claim(self._database, self._id, self._fleet.lease_s, datasets=self._fleet.datasets)

    def keep_leases(self) -> None:
        """Renew all leases, or read what is requested."""
        with self._recorder.timed("renewal or poll"):
            self.keeper.keep()

    def renew(self, due: Sequence[Renewal]) -> None:
        """Renew some leases."""
        renewals.renew(self._database, due)

    def read_requests(self, claims: Sequence[Claim]) -> None:
        """Read what is requested of some jobs."""
        renewals.requested(self._database, claims)

    def begin(self, claim: Claim) -> int:
        """What is read and written before the first batch; returns the last epoch so far."""
        with self._recorder.timed("begin"):
            job = self._call(claim, leases.begin, self._fleet.provenance)
            if job.epoch > 0:
                self._call(claim, commits.checkpoints)
            return int(job.epoch)

    def epoch_record(self, claim: Claim, epoch: int) -> EpochRecord:
        """The record of an epoch whose files are stored."""
        return epoch_record(claim, epoch, self._fleet.epochs, self._store.read_id())

    def commit_epochs(self, claim: Claim, records: Sequence[EpochRecord]) -> None:
        with self._recorder.timed("epoch commit"):
            self._call(claim, epoch_commits.commit, records, keep_last=KEEP_LAST, at_most=0)

    def succeed(self, claim: Claim) -> None:
        with self._recorder.timed("result"):
            used = Usage(cpu_seconds=1.0, peak_memory_bytes=2**27)
            self._call(claim, epoch_commits.succeed, claim.job_id, used=used, keep_last=1)

    def release(self, claim: Claim) -> None:
        """Give a job back, as after a lease that could not be renewed in time."""
        leases.release_lease(self._database, claim, None)

    def close(self) -> None:
        """Deregister the worker, and close its connections."""
        worker_registry.deregister(self._database, self._id)
        self._database.close()

    def _call(self, claim: Claim, operation: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Execute an operation as a supervisor does for its child, whose values cross as JSON."""
        execution = Execution(operations.call(operation, *arguments, is_interruptible=True, **named))
        while (reply := execution.attempt(self._database, claim, is_stopping=False)) is None:
            self._recorder.count_retry()
            time.sleep(RETRY_INTERVAL_S)
        return reply.result()


def usage(position: Position) -> Usage:
    """Of a job at this position."""
    return Usage(cpu_seconds=position.step / 100, peak_memory_bytes=2**27)
