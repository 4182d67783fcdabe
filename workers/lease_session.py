"""Database operations under a lease, retried during an outage. Used by the supervisor and its child."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from service.errors import LeaseLost
from service.jobs import commits, leases
from service.jobs.commits import EpochRecord
from service.jobs.differences import investigations
from service.jobs.leases import Claim, Position, Usage
from service.jobs.queries import lookup
from service.jobs.reuse import reused_epochs
from service.jobs.reuse.copies import Copied
from service.jobs.reuse.reused_epochs import Outcome
from service.jobs.reuse.sources import Source
from service.spec.schema import Spec
from service.states import MachineFaultReason, Request
from service.storage.artifacts import ArtifactKind, ArtifactStore
from service.storage.database import Database
from service.storage.tables import Artifact, Epoch, Job
from service.sweeps import decisions
from workers.retry import retry_on_outage

P = ParamSpec("P")
T = TypeVar("T")


class OutcomeUnknown(LeaseLost):
    """The lease was lost after an attempt whose response was lost, so it may have been committed."""


class LeaseSession:
    """The operations of a lease holder on its job.

    Each operation is one transaction, retried until the database responds. Writes raise ``LeaseLost`` if the job has
    ended or another worker has claimed it. ``renew`` and ``requested`` are not retried, since their caller polls.

    Args:
        timeout_s: how long one operation is retried.
        max_owner_bytes: maximum bytes of the files of all jobs of the job's owner; 0: no limit.
        before_retry: called before each retry; it may raise to give up.
    """

    def __init__(
        self,
        database: Database,
        claim: Claim,
        *,
        timeout_s: float,
        max_owner_bytes: int = 0,
        before_retry: Callable[[], None] = lambda: None,
    ) -> None:
        self.database, self.claim = database, claim
        self._timeout_s, self._max_owner_bytes, self._before_retry = timeout_s, max_owner_bytes, before_retry

    def interruptible(self, check: Callable[[], None]) -> LeaseSession:
        """A copy of the session, whose retries end when ``check`` raises."""
        return LeaseSession(
            self.database,
            self.claim,
            timeout_s=self._timeout_s,
            max_owner_bytes=self._max_owner_bytes,
            before_retry=check,
        )

    def renew(self, position: Position | None, used: Usage) -> Request | None:
        """Renew the lease; returns the pending request to the job."""
        return leases.renew(self.database, self.claim, position, used)

    def requested(self) -> Request | None:
        """The pending request to the job."""
        return leases.requested(self.database, self.claim)

    def read_job(self) -> Job:
        """The job's row."""
        return self._retry(_read_job)

    def finished_epochs(self) -> Sequence[Epoch]:
        """The job's committed epochs, in order."""
        return self._retry(_finished_epochs)

    def begin(self, provenance: Mapping[str, Any]) -> Job:
        """Record the provenance of this run."""
        return self._retry(leases.begin, provenance)

    def find_source(self, spec: Spec, provenance: Mapping[str, Any]) -> Source | None:
        """The job from which this one can take over epochs."""
        return self._retry(reused_epochs.find, spec, provenance)

    def result_of(self, source: Source) -> tuple[dict[int, Epoch], list[Artifact]]:
        """The epochs and the checkpoints of another job."""
        return self._retry(_result_of, source)

    def copy(self, source: Source, artifacts: ArtifactStore) -> Copied:
        """Copy the files that belong to epochs of another job, and read everything else."""
        return self._retry(reused_epochs.copy, source, artifacts)

    def take_over(self, copied: Copied, *, used: Usage) -> Outcome:
        """Store epochs of another job as this one's; raises ``StorageQuotaExceeded`` like ``commit_epoch``."""
        return self._retry(
            reused_epochs.store, copied, used=used, at_most=self._max_owner_bytes, then=decisions.after_result
        )

    def disable(self, source: Source, message: str) -> None:
        """Record that another job's epochs could not be repeated."""
        self._retry(reused_epochs.disable, source, message)

    def investigated(self) -> list[tuple[Job, dict[int, Epoch], dict[int, Artifact]]]:
        """The two jobs that this one investigates, with their epochs and checkpoints."""
        return self._retry(investigations.read_jobs)

    def conclude(self, result: Mapping[str, Any], sentence: str, *, used: Usage) -> None:
        """End an investigation."""
        self._retry(investigations.conclude, result, sentence, used=used)

    def checkpoints(self) -> Sequence[Artifact]:
        """The job's checkpoints, newest first."""
        return self._retry(commits.checkpoints)

    def drop_checkpoint(self, damaged: Artifact, reason: str) -> None:
        """Delete the row of a damaged checkpoint."""
        self._retry(commits.drop_checkpoint, damaged, reason)

    def log(self, level: str, code: str, message: str) -> None:
        """Append a line to the job's log."""
        self._retry(commits.log, level, code, message)

    def commit_epoch(self, record: EpochRecord, *, keep_last: int) -> list[str]:
        """Commit an epoch; returns the paths of files to remove.

        Raises:
            StorageQuotaExceeded: its files do not fit into the quota of the owner.
        """
        return self._retry(
            commits.commit_epoch,
            record,
            keep_last=keep_last,
            at_most=self._max_owner_bytes,
            then=decisions.after_result,
        )

    def digest(self, weights_digest: str, test_scores: Mapping[str, float] | None) -> str:
        """The digest of the whole result."""
        return self._retry(commits.digest, weights_digest, test_scores)

    def succeed(
        self,
        result_digest: str,
        *,
        test_scores: Mapping[str, float] | None,
        stopped_early: Mapping[str, Any] | None,
        used: Usage,
        keep_last: int | None,
    ) -> list[str]:
        """End the job as succeeded; returns the paths of files to remove."""
        return self._retry(
            commits.succeed,
            result_digest,
            test_scores=test_scores,
            stopped_early=stopped_early,
            used=used,
            keep_last=keep_last,
            then=decisions.after_result,
        )

    def fail(self, error: Mapping[str, Any], *, used: Usage) -> None:
        """End the job as failed."""
        self._retry(commits.fail, error, used=used, then=decisions.after_result)

    def release_lease(self, request: Request | None, *, used: Usage) -> None:
        """End the lease of an unfinished job."""
        self._retry(leases.release_lease, request, used=used)

    def hand_back(self, reason: MachineFaultReason, error: Mapping[str, Any], *, used: Usage) -> bool:
        """End the lease because of a fault of this machine; returns whether the job has failed."""
        return self._retry(leases.hand_back, reason, error, used=used, then=decisions.after_result)

    def record_child_loss(self, message: str, *, used: Usage) -> None:
        """End the lease of a job whose child died, or made no progress."""
        self._retry(leases.record_child_loss, message, used=used)

    def _retry(self, operation: Callable[Concatenate[Database, Claim, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        attempts = 0

        def attempt() -> T:
            nonlocal attempts
            attempts += 1
            return operation(self.database, self.claim, *args, **kwargs)

        try:
            return retry_on_outage(attempt, timeout_s=self._timeout_s, before_retry=self._before_retry)
        except LeaseLost as error:
            if attempts > 1:
                raise OutcomeUnknown(self.claim.job_id, self.claim.lease) from error
            raise


def _read_job(database: Database, claim: Claim) -> Job:
    with database.read() as session:
        return lookup.get(session, claim.job_id)


def _finished_epochs(database: Database, claim: Claim) -> Sequence[Epoch]:
    with database.read() as session:
        return lookup.epochs(session, claim.job_id)


def _result_of(database: Database, claim: Claim, source: Source) -> tuple[dict[int, Epoch], list[Artifact]]:
    with database.read() as session:
        rows = {row.epoch: row for row in lookup.epochs(session, source.job.id)}
        return rows, list(lookup.artifacts(session, source.job.id, ArtifactKind.CHECKPOINT))
