"""The errors of the registry that the kernel meets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.errors import DeletionRefused, ProblemKind


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
