"""Errors that several packages raise, with their facts as attributes; ``web/http/problems`` maps them to HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from service.states import Action, Status


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One kind of problem.

    Attributes:
        meaning: the remedy.
        for_people: the remedy for a page, if ``meaning`` names fields or endpoints.
        link: label and address of a page from which to continue.
    """

    status: int
    title: str
    meaning: str
    for_people: str | None = None
    link: tuple[str, str] | None = None


class ServiceError(Exception):
    """Base class of the errors of ``service``.

    Attributes:
        code: of the problem that a client gets, whose detail is the message; ``internal``: clients get no message.
        kind: what documents say of that problem; ``None``: it is in the table of ``web/http/problem_kinds``.
        members: further fields of that problem.
    """

    code: str = "internal"
    kind: ProblemKind | None = None
    members: Mapping[str, Any] = MappingProxyType({})


class SettingsError(ServiceError, ValueError):
    """The settings in the environment are not valid."""


class UnknownSchema(SettingsError):
    """The database has a schema that this version cannot upgrade. It is unchanged."""

    def __init__(self, revision: str, problem: str, remedy: str) -> None:
        super().__init__(f"the database is at revision {revision}, {problem}: {remedy}. Nothing was changed.")
        self.revision, self.problem, self.remedy = revision, problem, remedy


class WrongStore(ServiceError):
    """The artifact store of this process is not the one that the database knows."""

    code = "store_unavailable"


class MalformedJson(ServiceError, ValueError):
    """The text is not valid JSON (RFC 8259), without NaN, Infinity and duplicate keys."""

    code = "malformed_json"

    def __init__(self, detail: str, line: int, column: int) -> None:
        super().__init__(f"{detail} (line {line}, column {column})")
        self.detail, self.line, self.column = detail, line, column
        self.members = {"line": line, "column": column}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An error in a spec, with its location."""

    pointer: str
    """JSON pointer (RFC 6901) into the document as sent, as a URI fragment: ``#/layers/0/units``."""
    detail: str
    code: str
    suggestion: str | None = None


class SpecError(ServiceError, ValueError):
    """A spec is not valid; ``faults`` has all faults, or the first hundred of ``total``."""

    def __init__(self, faults: Sequence[Fault], *, total: int | None = None) -> None:
        super().__init__("; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults))
        self.faults = tuple(faults)
        self.total = len(faults) if total is None else total


class KeyNotFound(ServiceError, LookupError):
    """No valid key has this id or name, or several have the name."""

    def __init__(self, id_or_name: str, several: Sequence[str] = (), *, similar: str = "") -> None:
        if several:
            super().__init__(
                f"{len(several)} valid keys are named {id_or_name!r}: use an id, one of {', '.join(several)}"
            )
        else:
            super().__init__(f"no valid key has the id or name {id_or_name!r}; `tapeline keys list` shows all{similar}")
        self.id_or_name = id_or_name


class OwnerNotFound(ServiceError, LookupError):
    """There is no such owner, or several have the name."""

    code = "owner_not_found"

    def __init__(self, owner: str, similar: Sequence[str] = (), *, several: Sequence[str] = ()) -> None:
        self.owner, self.several = owner, several
        self.similar = f"; similar owners: {', '.join(similar)}" if similar else ""
        if several:
            super().__init__(f"{len(several)} owners are named {owner[:64]!r}: use an id, one of {', '.join(several)}")
        else:
            remedy = self.similar or "; `tapeline owners` lists all, `tapeline keys create` makes a key of one"
            super().__init__(f"there is no owner {owner[:64]!r}{remedy}")


class CapExceeded(ServiceError, ValueError):
    """More jobs of an owner run than a new cap allows."""

    code = "cap_exceeded"

    def __init__(self, running: int, cap: int) -> None:
        super().__init__(f"{running} jobs run now: pause {running - cap} of them first, or choose a higher cap")
        self.members = {"running": running}


class WorkerNotFound(ServiceError, LookupError):
    """No worker has this id, or its process is gone."""

    code = "worker_not_found"

    def __init__(self, worker_id: str, silent_s: int | None = None) -> None:
        if silent_s is None:
            super().__init__(
                f"there is no worker {worker_id[:80]!r}: it stopped, or never ran; `tapeline workers` lists all"
            )
        else:
            super().__init__(
                f"the worker {worker_id} is gone: its last heartbeat was {silent_s} seconds ago; its jobs are queued "
                "when their leases expire"
            )


class TokenRefused(ServiceError):
    """The token of a link is not valid. Whoever sends such tokens may be guessing."""


class LinkNotUsable(TokenRefused):
    """A sign-in link cannot be used."""

    code = "link_not_usable"


class KeyNotRotatable(ServiceError):
    """The key is not valid, or was already rotated."""

    code = "key_not_rotatable"

    def __init__(self, key_id: str, state: str, replaced_by: str | None) -> None:
        if state != "valid":
            super().__init__(f"the key {key_id} is {state}: create a new key")
        else:
            super().__init__(f"the key {key_id} was already rotated: rotate its successor {replaced_by}")
        self.key_id, self.state, self.replaced_by = key_id, state, replaced_by
        allowed = [] if state == "revoked" else ["revoke"]
        self.members = {"state": state, "replaced_by": replaced_by, "allowed_actions": allowed}


class AuditFileDamaged(ServiceError, ValueError):
    """The file is not an exported audit log, or is truncated."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


class FoldsNotFound(ServiceError, LookupError):
    """There is no such cross-validation, or none of the caller's."""

    code = "folds_not_found"

    def __init__(self, group: str) -> None:
        super().__init__(f"there is no cross-validation {group!r}")
        self.group = group


_PARTICIPLES: Final = {
    "cancel": "cancelled",
    "pause": "paused",
    "resume": "resumed",
    "retry": "retried",
    "fork": "forked",
    "reproduce": "reproduced",
    "delete": "deleted",
}
_ENDINGS: Final = {"succeeded": "has succeeded", "failed": "has failed", "cancelled": "was cancelled"}


def _refusal(status: str, action: str) -> str:
    """Why an action is not possible, such as ``has succeeded and cannot be cancelled``."""
    return f"{_ENDINGS.get(status, f'is {status}')} and cannot be {_PARTICIPLES[action]}"


class JobNotFound(ServiceError, LookupError):
    """No job has this id, or it belongs to another owner."""

    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id!r}")
        self.job_id = job_id


class ModelNotFound(ServiceError, LookupError):
    """A reference to a model, a version or an alias names nothing, or what belongs to another owner."""

    code = "model_not_found"


class SweepNotFound(ServiceError, LookupError):
    """No sweep has this id, or it belongs to another owner."""

    code = "sweep_not_found"

    def __init__(self, sweep_id: str) -> None:
        super().__init__(f"there is no sweep {sweep_id!r}")
        self.sweep_id = sweep_id


class TrialNotFound(ServiceError, LookupError):
    """The sweep has no trial of this number, or no best one yet."""

    code = "trial_not_found"

    def __init__(self, sweep_id: str, trial: str, *, count: int) -> None:
        trials = "none yet" if not count else "only trial 0" if count == 1 else f"trials 0 to {count - 1}"
        problem = f"has no trial {trial!r}; it has {trials}" if trial else "has no best trial yet; name one"
        super().__init__(f"sweep {sweep_id} {problem}")
        self.sweep_id, self.trial = sweep_id, trial


class IllegalSweepAction(ServiceError):
    """The sweep is not in a state from which this action is possible."""

    code = "illegal_transition"

    def __init__(self, sweep_id: str, action: str, status: str, allowed: Sequence[str]) -> None:
        legal = ", ".join(allowed) or "none until its jobs have stopped"
        super().__init__(f"sweep {sweep_id} {_refusal(status, action)}; possible actions: {legal}")
        self.sweep_id, self.action, self.status, self.allowed = sweep_id, action, status, tuple(allowed)
        self.members = {"status_now": status, "allowed_actions": list(allowed)}


class DeletionRefused(ServiceError):
    """Something needs the jobs that are to be deleted."""


class ArtifactNotFound(ServiceError, LookupError):
    """The job has no such checkpoint, sample or artifact; it may have been removed."""

    code = "artifact_not_found"

    def __init__(self, job_id: str, item: str) -> None:
        super().__init__(f"job {job_id} has no {item}")
        self.job_id, self.item = job_id, item


class IllegalTransition(ServiceError):
    """The job's state does not permit the action."""

    code = "illegal_transition"

    def __init__(self, job_id: str, action: Action, status: Status, allowed: Sequence[Action]) -> None:
        legal = ", ".join(allowed) or "none"
        super().__init__(f"job {job_id} {_refusal(status, action)}; possible actions: {legal}")
        self.job_id, self.action, self.status, self.allowed = job_id, action, status, tuple(allowed)
        self.members = {"job_status": status, "allowed_actions": list(allowed)}


class NotCertifiable(ServiceError):
    """The job has no certificate."""

    code = "not_certifiable"

    def __init__(self, job_id: str, reason: str, **members: object) -> None:
        super().__init__(f"job {job_id} cannot be certified: {reason}")
        self.members = members


class SigningUnavailable(ServiceError):
    """Certificates cannot be signed: the key or the command does not work."""

    code = "signing_unavailable"


class SigningKeyNotFound(ServiceError, LookupError):
    """No public key with this id was ever registered."""


class BudgetSpent(ServiceError):
    """The job has used the CPU time of its budget."""

    code = "budget_spent"

    def __init__(self, job_id: str, used_s: float, budget_s: float) -> None:
        super().__init__(
            f"job {job_id} has used {used_s:.0f} CPU seconds, its budget is {budget_s:g}: "
            'raise it first with PATCH {"budget": {"seconds": ...}}'
        )
        self.members = {"used_seconds": round(used_s, 1), "budget_seconds": budget_s}


class IdempotencyConflict(ServiceError):
    """The idempotency key was already used with another body."""

    code = "idempotency_conflict"

    def __init__(self, key: str) -> None:
        super().__init__(f"the idempotency key {key!r} was used with another body; use a new key")
        self.key = key


class UnusableParameter(ServiceError, ValueError):
    """A parameter is valid by itself, but not for the jobs that the request names."""

    code = "invalid_parameter"

    def __init__(self, parameter: str, reason: str) -> None:
        super().__init__(f"{parameter}: {reason}")
        self.members = {"errors": [{"parameter": parameter, "detail": reason, "code": "invalid_value"}]}


class InvalidCursor(ServiceError, ValueError):
    """The pagination cursor was not issued by this service, or belongs to another list."""

    code = "invalid_cursor"


class UploadExists(ServiceError):
    """The owner already has the same data under this name, as ``version``."""

    code = "dataset_exists"

    def __init__(self, name: str, sha256: str) -> None:
        super().__init__(f"there is already a dataset {name!r} with exactly this data")
        self.name = name
        self.version = f"{name}@{sha256.removeprefix('sha256:')[:12]}"
        self.members = {"version": self.version}


class DatasetNameTaken(ServiceError):
    """A built-in dataset or a folder of the operator has this name."""

    code = "dataset_exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is already a dataset {name!r}; use another name")
        self.name = name


class DatasetFixed(ServiceError):
    """The dataset was not uploaded, so it cannot be deleted."""

    code = "dataset_fixed"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not an uploaded dataset")
        self.name = name


class StorageFull(ServiceError):
    """The files of an upload could not be written."""

    code = "storage_full"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the upload could not be stored ({reason})")
        self.reason = reason


class NoSpaceLeft(ServiceError):
    """The owner's datasets would exceed their size limit."""

    code = "dataset_space_exceeded"

    def __init__(self, owner: str, used: int, additional: int, limit: int) -> None:
        used_up = f"the datasets of {owner} take {used:,} of {limit:,} bytes"
        super().__init__(f"{used_up}, and this one takes {additional:,}" if additional else used_up)
        self.used, self.limit = used, limit


class AdmissionRefused(ServiceError):
    """A quota of the owner does not allow these jobs now."""


class StorageQuotaExceeded(ServiceError):
    """The files of an owner's jobs would exceed their size limit."""

    def __init__(self, owner: str, stored: int, added: int, limit: int) -> None:
        super().__init__(
            f"the files of {owner}'s jobs take {stored:,} of {limit:,} bytes (TAPELINE_OWNER_ARTIFACTS), and "
            f"{added:,} more do not fit"
        )
        self.owner, self.stored, self.added, self.limit = owner, stored, added, limit


class UploadInUse(ServiceError):
    """Unfinished jobs use the dataset."""

    code = "dataset_in_use"

    def __init__(self, name: str, jobs: Sequence[str]) -> None:
        shown = ", ".join(jobs[:10]) + (f" and {len(jobs) - 10} more" if len(jobs) > 10 else "")
        super().__init__(f"the dataset {name!r} is used by unfinished jobs: {shown}")
        self.name, self.jobs = name, tuple(jobs)
        self.members = {"jobs": list(jobs[:100])}


class Busy(ServiceError):
    """All slots for work of one kind are taken, and so are the places to wait for one."""

    def __init__(self, code: str, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.code, self.members = code, {"retry_after_s": retry_after_s}


class LeaseLost(ServiceError):
    """The job no longer runs under this lease; the worker must stop and leave nothing behind."""

    def __init__(self, job_id: str, lease: int) -> None:
        super().__init__(f"job {job_id} no longer runs under lease {lease}")
        self.job_id, self.lease = job_id, lease
