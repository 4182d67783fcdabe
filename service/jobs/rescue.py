"""What the scheduler does for jobs on which no worker can work: it requeues those whose leases have expired, by the
database's clock alone, and fails those that wait for a store which no worker can use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from service import hooks
from service.hooks import EVERY_OWNER, Happening, HappeningKind
from service.jobs import events, leases, transitions, worker_registry
from service.states import ErrorCode, MachineFaultReason, Reason, Status
from service.storage.database import Database, locking, now_ms
from service.storage.tables import Job

PROBE_LEAD_MS: Final = 2000
"""A renewal probe is sent this long before the lease expires."""
_PROBE_TIMEOUT_MS: Final = 1000
"""The minimum time that a worker has to renew after the probe. It tries at least every half second."""
_MIN_RENEWAL_MS: Final = 500
"""A smaller change of the expiry comes from a probe. A renewal changes it by more than a second: leases last
at least 3 s, and probes are sent at most 2 s before the expiry."""
_MIN_GAP_MS: Final = 3000
"""A shorter time without a round indicates a busy machine, not an outage."""


class LeaseExpiryPolicy:
    """Decides whether an expired lease means a lost worker. Use one object for all rounds of a scheduler.

    After an outage of the database, this process or the machine, all leases have expired only because no
    worker could renew them: workers then have the duration of a lease to do so. A database may also respond,
    but accept no writes (disk full). Therefore a lease first gets a *renewal probe*, a write that changes its
    expiry by a millisecond: once it is committed, a live worker can renew, too, which changes it again.
    """

    def __init__(self, lease_s: float) -> None:
        self.lease_ms = int(lease_s * 1000)
        self._gap_ms = max(self.lease_ms // 2, _MIN_GAP_MS)
        self._last_ms: int | None = None
        self._from_ms = 0
        self._probes: dict[tuple[str, int, str | None], tuple[int, int]] = {}
        """By job and lease (number and token): when the probe was sent, and the expiry at that time."""

    def allows_rescue(self, now_ms: int) -> bool:
        """Whether leases may expire now. Call it in every round, with the database's time."""
        if self._last_ms is None or not 0 <= now_ms - self._last_ms <= self._gap_ms:  # the clock may be set back, too
            self._from_ms = now_ms + self.lease_ms
        self._last_ms = now_ms
        return now_ms >= self._from_ms

    def probed_ms(self, job: Job) -> int | None:
        """When the probe of the job's lease was sent; ``None`` if there was none, or the lease was renewed since.
        Another scheduler may have sent a probe, too."""
        probed, expiry = self._probes.get(_lease_of(job), (None, 0))
        return probed if abs(_expiry_ms(job) - expiry) < _MIN_RENEWAL_MS else None

    def record_probes(self, probed: Sequence[Job], now_ms: int) -> None:
        """Record the jobs whose probes have been committed, now or in an earlier round."""
        self._probes = {_lease_of(job): (self.probed_ms(job) or now_ms, _expiry_ms(job)) for job in probed}


def rescue(database: Database, policy: LeaseExpiryPolicy | None = None) -> list[str]:
    """Requeue the jobs of lost workers; returns their ids.

    Args:
        policy: without one, every job with an expired lease is requeued at once.
    """
    expires = Job.lease_expires_ms
    is_late = expires < now_ms()
    if policy:  # an expiry far in the future dates from before the clock was set back
        is_late = or_(expires < now_ms() + PROBE_LEAD_MS, expires > now_ms() + 2 * policy.lease_ms)
    due = locking(select(Job).where(Job.status == Status.RUNNING, is_late), skip_locked=True)
    lost, probed = [], []
    with database.write() as session:
        jobs = session.scalars(due).all()
        # Read the time after locking the rows: the transaction may have waited for other writers, during which workers
        # could not renew either.
        now = session.scalar(select(now_ms())) or 0
        if policy and not policy.allows_rescue(now):
            return []
        for job in sorted(jobs, key=lambda job: (job.owner or "", job.id)):  # the order in which a commit locks owners
            if policy and _expiry_ms(job) > now + PROBE_LEAD_MS:
                job.lease_expires_ms = now + policy.lease_ms
                continue
            probed_ms = policy.probed_ms(job) if policy else 0
            if probed_ms is None:
                job.lease_expires_ms = _expiry_ms(job) + 1
            if probed_ms is not None and _expiry_ms(job) < now and now - probed_ms >= _PROBE_TIMEOUT_MS:
                worker = job.lease_owner or ""
                leases.record_worker_loss(session, job, f"worker {worker} {events.TIMED_OUT}")
                _announce_loss(session, worker)
                lost.append(job.id)
            else:
                probed.append(job)
    if policy:
        policy.record_probes(probed, now)
    return lost


def _announce_loss(session: Session, worker: str) -> None:
    data = {"id": worker, "url": "/ui/workers", "name": worker_registry.name_of(worker), "status": "lost"}
    hooks.happened(session, Happening(kind=HappeningKind.WORKER_LOST, owner=EVERY_OWNER, data=data, once=worker))


def fail_without_store(database: Database, timeout_s: float, *, then: Callable[[Session, Job], None]) -> list[str]:
    """Fail the jobs that were released because of the store, if no live worker could use it for ``timeout_s``; returns
    their ids. Jobs that have not begun wait: they lose nothing, and the queue tells why.

    A worker that starts in an outage counts from its start: a restart postpones the failure.
    """
    with database.read() as session:
        faults = [worker.blocked or {} for worker in worker_registry.live_workers(session)]
        if not faults or not all(
            fault.get("reason") == MachineFaultReason.STORE and fault.get("seconds", 0) >= timeout_s for fault in faults
        ):
            return []
        begun = select(Job).where(Job.status == Status.QUEUED, Job.started_ms.is_not(None)).order_by(Job.id)
        released = [job.id for job in session.scalars(begun) if events.reason_to_wait(session, job) is Reason.STORAGE]
    message = f"no worker could use the store for {timeout_s:g} s (TAPELINE_STORE_TIMEOUT_S): {faults[0]['message']}"
    return [job_id for job_id in released if _fail_for_store(database, job_id, message, then)]


def _fail_for_store(database: Database, job_id: str, message: str, then: Callable[[Session, Job], None]) -> bool:
    with database.write() as session:
        job = session.scalar(locking(select(Job).where(Job.id == job_id, Job.status == Status.QUEUED)))
        if job is None or events.reason_to_wait(session, job) is not Reason.STORAGE:
            return False
        job.error = {"code": ErrorCode.STORAGE, "message": message, "hint": leases.STORAGE_HINT, "epoch": job.epoch}
        transitions.finish(session, job, Status.FAILED, reason=ErrorCode.STORAGE)
        then(session, job)
        return True


def _lease_of(job: Job) -> tuple[str, int, str | None]:
    return job.id, job.lease, job.lease_token


def _expiry_ms(job: Job) -> int:
    return job.lease_expires_ms or 0
