"""Why something cannot be done with a model, a version or an alias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.errors import DeletionRefused, ProblemKind, ServiceError


class VersionInUse(ServiceError):
    """An alias holds the version."""

    code = "version_in_use"
    kind = ProblemKind(
        409,
        "An alias holds the version, or has gates.",
        "Move or remove the aliases listed in `aliases` first; to delete a model, also remove their gates.",
    )

    def __init__(self, reference: str, aliases: Sequence[str]) -> None:
        held = ", ".join(f"@{alias}" for alias in aliases)
        super().__init__(f"{reference} is held by {held}: move or remove the alias first")
        self.members = {"aliases": list(aliases)}


class ModelGuarded(ServiceError):
    """Aliases of the model have gates, which only an admin may remove."""

    code = "version_in_use"

    def __init__(self, name: str, aliases: Sequence[str]) -> None:
        guarded = ", ".join(f"@{alias}" for alias in aliases)
        super().__init__(f"the model {name!r} has gates at {guarded}: an admin has to set them to an empty list first")
        self.members = {"aliases": list(aliases)}


class GateFailed(ServiceError):
    """A version does not meet the gates of an alias."""

    code = "gate_failed"
    kind = ProblemKind(
        409,
        "The version does not meet the gates of the alias.",
        "`gates` has the evidence of each, and in `remedies` the requests that supply what it needs. An admin "
        "can move the alias nevertheless, with `force` and a `reason`.",
        "Each gate below shows its evidence and, where a request helps, a button that sends it.",
    )

    def __init__(self, reference: str, alias: str, findings: Sequence[Mapping[str, Any]]) -> None:
        failed = [str(finding["sentence"]).rstrip(".") for finding in findings if not finding["passed"]]
        super().__init__(
            f"{reference} does not meet {len(failed)} of {len(findings)} gates of @{alias}: {'; '.join(failed)}"
        )
        self.members = {"gates": list(findings)}


class AliasMoved(ServiceError):
    """The alias was moved since the client read it."""

    code = "precondition_failed"

    def __init__(self, alias: str, version: int | None, seq: int) -> None:
        state = "holds no version" if version is None else f"holds version {version}"
        super().__init__(f"the alias was moved since you read it: @{alias} now {state}, by move {seq}")
        self.members = {"version": version, "seq": seq}


class NoEarlierVersion(ServiceError):
    """An alias cannot be rolled back."""

    code = "no_earlier_version"
    kind = ProblemKind(
        409, "The alias held no other version before.", "`GET .../history` lists its moves. Move it instead."
    )


class NotApprovable(ServiceError):
    """This key cannot approve the version."""

    code = "not_approvable"
    kind = ProblemKind(
        409, "This key cannot approve the version.", "Approve with another key of the owner, or with one of an admin."
    )


class JobRegistered(DeletionRefused):
    """Versions of models need the jobs."""

    code = "job_registered"
    kind = ProblemKind(
        409,
        "A checkpoint of the job is registered as a version of a model.",
        "Delete the versions listed in `versions` first.",
    )

    def __init__(self, versions: Mapping[str, Sequence[str]]) -> None:
        job_id, references = next(iter(versions.items()))
        super().__init__(f"job {job_id} is registered as {', '.join(references)}: delete the version first")
        self.members = {"versions": [name for names in versions.values() for name in names]}
