"""What one worker asks of the database. A change of how workers use it changes this module only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.fleet.job_data import epoch_record
from benchmarks.fleet.measuring import Recorder
from service.jobs import commits, leases, worker_registry
from service.jobs.leases import Claim, Position, Usage
from service.jobs.reuse import reused_epochs
from service.maintenance import store_id
from service.spec.schema import KEEP_LAST
from service.spec.validation import read_resolved
from service.storage.database import Database
from service.storage.stores import ArtifactFolder
from service.storage.tables import Worker
from service.sweeps import decisions
from workers.lease_session import LeaseSession

MONITORS_EACH_JOB: Final = True
"""Whether each running job has a loop of its own that renews its lease and reads its requests; otherwise a worker has
one loop for all of its jobs."""


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
    """The operations of one simulated worker: the product's own functions, through the connections that they get.

    Args:
        children: the database of training processes, which keep no connection open: those of a whole process of the
            simulator may share the object.
    """

    def __init__(self, fleet: Fleet, number: int, children: Database, recorder: Recorder) -> None:
        self._fleet, self._children, self._recorder = fleet, children, recorder
        self._id = f"simulated-{number}-00000000"
        self._store = ArtifactFolder(Path(fleet.store))
        # As in workers.__main__.
        self._database = Database(fleet.url, application="tapeline-worker", idle_connections=2, connections=4)

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

    def renew(self, positions: Mapping[Claim, Position]) -> None:
        """Renew the leases of some jobs, and read the requests to them."""
        for claim, position in positions.items():
            with self._recorder.timed("renewal"):
                leases.renew(self._database, claim, position, _usage(position))

    def read_requests(self, claims: Sequence[Claim]) -> None:
        """Read the requests to some jobs."""
        for claim in claims:
            with self._recorder.timed("request poll"):
                leases.requested(self._database, claim)

    def begin(self, claim: Claim) -> int:
        """What a training process reads and writes before the first batch; returns the last epoch so far."""
        session = self._session(claim)
        with self._recorder.timed("begin"):
            job = session.call(leases.read_job)
            session.call(leases.begin, self._fleet.provenance)
            session.call(reused_epochs.find, read_resolved(job.resolved), self._fleet.provenance)
            session.call(commits.checkpoints)
            return job.epoch

    def commit_epoch(self, claim: Claim, epoch: int) -> None:
        record = epoch_record(claim, epoch, self._fleet.epochs, self._store.read_id())
        with self._recorder.timed("epoch commit"):
            self._session(claim).call(
                commits.commit_epoch, record, keep_last=KEEP_LAST, at_most=0, then=decisions.after_result
            )

    def succeed(self, claim: Claim) -> None:
        session = self._session(claim)
        with self._recorder.timed("result"):
            session.call(
                commits.succeed,
                session.call(commits.digest, claim.job_id, None),
                used=Usage(cpu_seconds=1.0, peak_memory_bytes=2**27),
                keep_last=1,
                then=decisions.after_result,
            )

    def release(self, claim: Claim) -> None:
        """Give a job back, as after a lease that could not be renewed in time."""
        leases.release_lease(self._database, claim, None)

    def close(self) -> None:
        """Deregister the worker, and close its connections."""
        worker_registry.deregister(self._database, self._id)
        self._database.close()

    def _session(self, claim: Claim) -> LeaseSession:
        return LeaseSession(
            self._children, claim, timeout_s=self._fleet.lease_s, before_retry=self._recorder.count_retry
        )


def children_database(url: str) -> Database:
    """As in workers.training.child: a connection for each transaction."""
    return Database(url, application="tapeline-child", idle_connections=0)


def _usage(position: Position) -> Usage:
    return Usage(cpu_seconds=position.step / 100, peak_memory_bytes=2**27)
