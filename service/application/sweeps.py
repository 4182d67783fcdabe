"""Use cases of sweeps: submit, control, delete. Each accepts the actor that requests it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.access.audit import Actor
from service.application import sweep_checks
from service.application.jobs import Submitted
from service.application.ports import AdmissionRefused, Admit, admit_all, owner_of
from service.application.specs import SpecChecks
from service.application.sweep_checks import CheckedSweep
from service.errors import SpecError
from service.jobs.submissions import IdempotencyKey
from service.runtime.failpoints import reach
from service.runtime.slots import SlotPool
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.sweep_tables import Sweep
from service.sweeps import actions
from service.sweeps.actions import NewSweep

_MAX_WAKE_UPS: Final = 32
"""Maximum number of messages per request; further workers find the jobs by polling, within seconds."""


def _only_id(sweep: Sweep) -> dict[str, Any]:
    return {"id": sweep.id}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweeps:
    """Operations on sweeps. The attributes are those of ``Jobs``, and ``slots``, one of which a check occupies."""

    database: Database
    artifacts: ArtifactStore
    specs: SpecChecks
    slots: SlotPool
    admit: Admit = admit_all
    wake_up: Callable[[str], None] = lambda job_id: None
    represent: Callable[[Sweep], dict[str, Any]] = _only_id

    def submit(self, document: Any, *, by: Actor | None = None, idempotency: IdempotencyKey | None = None) -> Submitted:
        """Store a new sweep and its first trials.

        Raises:
            SpecError: lists every fault.
            AdmissionRefused: a quota of the owner is exhausted.
            IdempotencyConflict: the key was used with another body.
        """
        owner = owner_of(by)
        try:
            checked = self.check(document, by=by)
            first_jobs = min(checked.trials, checked.spec.parallel) * len(checked.resolved["seeds"])
            self.admit(owner, first_jobs, checked.expected_bytes)
        except (SpecError, AdmissionRefused):
            # A request that was accepted once gets the same response, even if something has changed since.
            earlier = Submitted.earlier(self.database, idempotency, owner)
            if earlier is None:
                raise
            return earlier
        new = NewSweep(
            name=checked.spec.name or None,
            kind=checked.kind,
            spec=document,
            resolved=checked.resolved,
            data=checked.data,
            trials=checked.trials,
            owner=owner,
        )
        answer, replayed, queued = actions.submit(
            self.database, new, idempotency=idempotency, represent=self.represent, by=by
        )
        reach("submitted")
        self._wake(queued)
        return Submitted(answer, replayed)

    def check(self, document: Any, *, by: Actor | None = None) -> CheckedSweep:
        """Check a sweep without storing anything.

        Raises:
            SpecError: lists every fault.
            Busy: too many sweeps wait to be checked.
        """
        owner = owner_of(by)
        with self.slots.slot(owner):
            return sweep_checks.check(document, owner, self.specs)

    def pause(self, sweep_id: str, *, by: Actor | None = None) -> Sweep:
        """Pause a sweep and its jobs."""
        return actions.pause(self.database, sweep_id, owner=owner_of(by), by=by)

    def resume(self, sweep_id: str, *, by: Actor | None = None) -> Sweep:
        """Resume a paused sweep."""
        sweep, queued = actions.resume(self.database, sweep_id, owner=owner_of(by), by=by)
        self._wake(queued)
        return sweep

    def cancel(self, sweep_id: str, *, by: Actor | None = None) -> Sweep:
        """Cancel a sweep and its jobs."""
        return actions.cancel(self.database, sweep_id, owner=owner_of(by), by=by)

    def delete(self, sweep_id: str, *, by: Actor | None = None) -> None:
        """Delete an ended sweep with all its jobs and files."""
        for job_id in actions.remove(self.database, sweep_id, owner=owner_of(by), by=by):
            self.artifacts.remove_job(job_id)

    def _wake(self, queued: Sequence[str]) -> None:
        for job_id in queued[:_MAX_WAKE_UPS]:
            self.wake_up(job_id)
