"""Taking back the jobs of workers that fell silent. Only the database's clock decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import or_, select

from service.jobs import leases
from service.states import Status
from service.storage.database import Database, now_ms
from service.storage.tables import Job

CALL_MS: Final = 2000
"""So long before its lease is over, a worker is called."""
_ANSWER_MS: Final = 1000
"""So long it has at least to renew after the call. It tries every half a second or more often."""
_RENEWAL_MS: Final = 500
"""A lease's end that moves by less was moved by a call: a renewal is worth more than a second, as no lease is shorter
than three and none is called earlier than two before its end."""
_GAP_MS: Final = 3000
"""No round for so long is an outage, not a busy machine."""


class LeaseExpiryPolicy:
    """Whether a lease that is over means a silent worker; one for all rounds of a scheduler.

    Where the database, this process or the whole machine stood still, nobody could renew, and every lease seems to
    be over at once: the living get one lease time to renew. And a database may answer, but take no writes (its disk
    is full): so before a job is taken, its worker gets a *last call*, a write of ours that moves the lease's end by a
    millisecond. Once that has landed, a living worker can renew as well, which moves the end again.
    """

    def __init__(self, lease_s: float) -> None:
        self.lease_ms = int(lease_s * 1000)
        self._gap_ms = max(self.lease_ms // 2, _GAP_MS)
        self._last_ms: int | None = None
        self._from_ms = 0
        self._calls: dict[tuple[str, int], tuple[int, int]] = {}
        """Of a job's lease: when it got its last call, and the end that it had then."""

    def allows_rescue(self, now_ms: int) -> bool:
        """Told the database's time in every round."""
        if self._last_ms is None or not 0 <= now_ms - self._last_ms <= self._gap_ms:  # it may be set back, too
            self._from_ms = now_ms + self.lease_ms
        self._last_ms = now_ms
        return now_ms >= self._from_ms

    def called_ms(self, job: Job) -> int | None:
        """When the job got its last call; ``None`` where it got none, or was renewed since. Another scheduler may have
        called it, too."""
        called, end = self._calls.get((job.id, job.lease), (None, 0))
        return called if abs(_end_ms(job) - end) < _RENEWAL_MS else None

    def settle(self, called: Sequence[Job], now_ms: int) -> None:
        """The round is committed, and these are the jobs that have had their call now."""
        self._calls = {(job.id, job.lease): (self.called_ms(job) or now_ms, _end_ms(job)) for job in called}


def rescue(database: Database, policy: LeaseExpiryPolicy | None = None) -> list[str]:
    """Take back the jobs of workers that fell silent; gives their ids.

    Args:
        policy: without any, a lease that is over is over.
    """
    ends = Job.lease_expires_ms
    late = ends < now_ms()
    if policy:  # a lease that is far from its end was given before the clock was set back
        late = or_(ends < now_ms() + CALL_MS, ends > now_ms() + 2 * policy.lease_ms)
    due = select(Job).where(Job.status == Status.RUNNING, late).with_for_update(skip_locked=True)
    silent, called = [], []
    with database.write() as session:
        found = session.scalars(due).all()
        # Asked once the rows are locked: the transaction may have waited long for others to write, and then workers
        # could not renew either, though reading went on.
        now = session.scalar(select(now_ms())) or 0
        if policy and not policy.allows_rescue(now):
            return []
        for job in found:
            if policy and _end_ms(job) > now + CALL_MS:
                job.lease_expires_ms = now + policy.lease_ms
                continue
            since = policy.called_ms(job) if policy else 0
            if since is None:
                job.lease_expires_ms = _end_ms(job) + 1
            if since is not None and _end_ms(job) < now and now - since >= _ANSWER_MS:
                leases.record_worker_loss(session, job, f"worker {job.lease_owner} fell silent")
                silent.append(job.id)
            else:
                called.append(job)
    if policy:
        policy.settle(called, now)
    return silent


def _end_ms(job: Job) -> int:
    return job.lease_expires_ms or 0
