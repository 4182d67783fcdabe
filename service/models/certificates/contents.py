"""The files of a certificate: the checkpoint of a succeeded job, its signature, and how it was trained."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final

from service.errors import NotCertifiable
from service.jobs import commits
from service.models.certificates.signing import Signer
from service.spec.strict_json import canonical
from service.spec.validation import NOT_HASHED
from service.states import Status
from service.storage.tables import Artifact, Epoch, Job
from tapeline.verify import bundles, claims, manifests
from tapeline.verify.claims import BUILD_TYPE, CHECKPOINT_FILE, PROVENANCE_TYPE, PUBLIC_KEY, SIGNED_ON, START_FILE
from tapeline.version import VERSION

_NOT_ENVIRONMENT: Final = frozenset({"dataset", "code", "preprocessing"})
"""Of a job's provenance, what is stated elsewhere or follows from the data."""
_BUILDER: Final = "https://tapeline.example/service"
"""A URI of the service, as SLSA wants one."""
_PACKAGES: Final = ("numpy", "safetensors")
"""Installed packages that compute or store the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """What a certificate says of a job.

    Attributes:
        checkpoint: the certified one.
        checkpoints: all that the job still has.
    """

    job: Job
    epochs: Sequence[Epoch]
    checkpoint: Artifact
    checkpoints: Sequence[Artifact]

    @property
    def start(self) -> Artifact | None:
        """The checkpoint that a fork began with."""
        return next((row for row in self.checkpoints if row.epoch == self.job.start_epoch), None)


def refusal(job: Job, epoch: int | None = None) -> NotCertifiable | None:
    """Why a job, or one of its checkpoints, has no certificate; ``None``: it can have one."""
    reason = None
    if job.status != Status.SUCCEEDED:
        reason = f"it is {job.status}, and only a succeeded job has a result"
    elif job.investigation is not None:
        reason = "it is an investigation, which has no result: certify one of the jobs that it compares"
    elif not job.reusable:
        reason = (
            "its bits are in doubt: it went on in another environment, or an epoch that was trained again or a "
            "reproduction had others; its log has the details"
        )
    elif job.result_digest is None or not job.provenance or not job.provenance.get("code"):
        reason = "an earlier release trained it, which did not record what determines the bits; train it again"
    elif job.dataset_sha256 is None:
        reason = "the digest of its data was not recorded"
    elif epoch is not None and 0 < job.start_epoch >= epoch:
        reason = f"it began with the checkpoint of epoch {job.start_epoch}: certify its parent"
    return None if reason is None else NotCertifiable(job.id, reason, job_status=job.status)


def folder(
    record: TrainingRecord, files: Mapping[str, bytes], signer: Signer, *, name: str, now: datetime
) -> dict[str, bytes]:
    """The files of a certificate: path to content.

    Args:
        files: the certified checkpoint and, of a fork, the one that it began with; see ``files_of``.
        name: of the folder.

    Raises:
        SigningUnavailable: it cannot be signed.
    """
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    root = manifests.root_digest(digests)
    signature = signer.sign(manifests.statement(name, digests)) + b"\n"
    statement = bundles.statement(PROVENANCE_TYPE, _provenance(record, signer, now), name=name, digest=root)
    provenance = signer.sign(statement) + b"\n"
    return {**files, manifests.SIGNATURE: signature, manifests.CLAIMS: signature + provenance}


def files_of(record: TrainingRecord) -> dict[str, Artifact]:
    """The stored files that a certificate contains, by their paths in it.

    Raises:
        NotCertifiable: the checkpoint that a fork began with is missing.
    """
    files = {CHECKPOINT_FILE: record.checkpoint}
    if record.job.start_epoch:
        if record.start is None:
            raise NotCertifiable(record.job.id, f"its first checkpoint, of epoch {record.job.start_epoch}, is missing")
        files[START_FILE] = record.start
    return files


def _provenance(record: TrainingRecord, signer: Signer, now: datetime) -> dict[str, Any]:
    job, measured = record.job, record.job.provenance or {}
    environment = {name: value for name, value in measured.items() if name not in _NOT_ENVIRONMENT}
    spec = {name: value for name, value in job.resolved.items() if name not in NOT_HASHED}
    internal: dict[str, Any] = {"environment": environment}
    if job.reused_epochs:
        internal["reused"] = {"job": job.reused_from, "epochs": job.reused_epochs}
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "spec": spec,
                "spec_hash": job.spec_hash,
                "seed": spec.get("seed"),
                "checkpoint": {"epoch": record.checkpoint.epoch},
            },
            "internalParameters": internal,
            "resolvedDependencies": [*_dependencies(record, measured)],
        },
        "runDetails": {
            "builder": {
                "id": _BUILDER,
                "version": {"tapeline": VERSION},
                PUBLIC_KEY: signer.public_key,
            },
            "metadata": {
                "invocationId": job.id,
                "startedOn": _time(job.started_ms),
                "finishedOn": _time(job.finished_ms),
                SIGNED_ON: claims.time_text(now),
            },
            "byproducts": [*_byproducts(record)],
        },
    }


def _dependencies(record: TrainingRecord, measured: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    job, data = record.job, record.job.resolved["dataset"]
    yield _resource("dataset", job.dataset_sha256, annotations={"name": data["name"]})
    yield _resource("code", measured["code"], annotations={"covers": "syntax trees of the modules that decide bits"})
    if "reference_classifier" in measured:
        yield _resource("reference classifier", measured["reference_classifier"])
    if "preprocessing" in measured:
        text = canonical(measured["preprocessing"])
        yield _resource("preprocessing", hashlib.sha256(text.encode()).hexdigest())
    if record.start is not None and job.start_epoch:
        yield _resource("start", record.start.sha256, annotations={"job": job.parent_id, "epoch": job.start_epoch})
    for package in _PACKAGES:
        version = metadata.version(package)
        if measured.get(package, version) == version:
            yield {
                "name": package,
                "uri": f"pkg:pypi/{package}@{version}",
                "digest": {"dirHash": installed_digest(package)},
            }
        else:  # the training ran with another version than this process has, whose files are not here
            yield {"name": package, "uri": f"pkg:pypi/{package}@{measured[package]}"}


def _byproducts(record: TrainingRecord) -> Iterator[dict[str, Any]]:
    for epoch in record.epochs:
        yield _resource(f"epoch/{epoch.epoch}", commits.epoch_digest(epoch))
    for row in record.checkpoints:
        if row.epoch > record.job.start_epoch:
            yield _resource(f"checkpoint/{row.epoch}", row.sha256)
    if record.job.test_scores is not None:
        yield _resource("test", commits.test_digest(record.job.test_scores))
    yield _resource("result", record.job.result_digest)


def _resource(name: str, digest: str | None, **more: Any) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": str(digest).removeprefix("sha256:")}, **more}


@functools.cache
def installed_digest(package: str) -> str:
    """The digest (hex) of an installed package: SHA-256 over a line ``digest  path`` for each file of its wheel, sorted
    by path, which is the directory hash of Go's modules. What an installer adds does not count."""
    lines = []
    for path in metadata.files(package) or ():
        text = path.as_posix()
        if (
            path.hash is not None
            and path.hash.mode == "sha256"
            and not text.startswith("../")
            and ".dist-info/" not in text
        ):
            data = base64.urlsafe_b64decode(path.hash.value + "=" * (-len(path.hash.value) % 4))
            lines.append((text, f"{data.hex()}  {text}\n"))
    return hashlib.sha256("".join(line for _, line in sorted(lines)).encode()).hexdigest()


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else claims.time_text(datetime.fromtimestamp(milliseconds / 1000, UTC))
