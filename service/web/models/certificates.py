"""Certificates of jobs, the keys that signed them, and the digests by which a rebuild is compared."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from flask import Blueprint, Response
from pydantic import Field

from service.access.audit import Actor
from service.application.models import ExportRequest, Exports
from service.errors import SigningUnavailable
from service.jobs import commits
from service.jobs.queries import lookup
from service.kinds.kind import Ability
from service.models import folders
from service.models.certificates import contents, signing, signing_keys
from service.models.certificates.contents import TrainingRecord
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Artifact
from service.web.core.core import Core, core, provided, read_job
from service.web.gate.access_checks import actor, share_link
from service.web.gate.shared_view import of_model
from service.web.http import downloads
from service.web.http.endpoint import PUBLIC, endpoint
from service.web.http.queries import Query, WhichCheckpoint
from service.web.http.schemas import ResponseModel
from service.web.inference import loading

blueprint: Final = Blueprint("certificates", __name__)

TAG: Final = "Files"


class CertificateQuery(Query):
    """Which checkpoint to certify."""

    checkpoint: WhichCheckpoint = Field("best", description="`best`, `latest`, or an epoch number.")


class DigestsQuery(Query):
    """Which epochs to list."""

    after: int = Field(0, ge=0, le=10**9, description="Only epochs after this one.")


class EpochDigest(ResponseModel):
    """The digest of an epoch."""

    epoch: int
    digest: str = Field(description="SHA-256 over its number, metrics, and the pixels of its samples.")
    checkpoint: str | None = Field(description="SHA-256 of its checkpoint file; null if the job does not keep it.")


class Digests(ResponseModel):
    """The digests of a job's epochs."""

    epochs: list[EpochDigest]
    result_digest: str | None
    provenance: dict[str, Any] | None = Field(description="As in the job.")


class PublishedKey(ResponseModel):
    """A key that signs or signed certificates."""

    kid: str = Field(description="SHA-256 of `public_key`: the `hint` of the signatures.")
    public_key: str = Field(description="PEM, on the curve P-256.")
    not_before: str
    retired_at: str | None = Field(description="Signatures of a later time are not valid; null: the key is in use.")


class PublishedKeys(ResponseModel):
    """All keys that sign or signed certificates of this service, the newest first."""

    keys: list[PublishedKey]


@blueprint.get("/jobs/<job_id>/certificate")
@endpoint(
    TAG,
    "application/zip",
    query=CertificateQuery,
    **downloads.SAVED,
    problems=(
        *downloads.PROBLEMS,
        "wrong_kind",
        "not_certifiable",
        "signing_unavailable",
        "storage_full",
        "quota_exceeded",
        "busy",
    ),
)
def certificate(job_id: str, query: CertificateQuery) -> Response:
    """Download a certificate of a succeeded job: a folder with the checkpoint, its signature, and how it was trained.

    `model.sig` is a signature of OpenSSF Model Signing v1.0. `claims.jsonl` repeats it and adds a SLSA provenance: the
    spec, the environment, the digests of data, code and each epoch. `tapeline verify DIR` verifies the folder offline,
    and `tapeline verify DIR --rebuild` trains again.
    """
    find = partial(_find, job_id, query.checkpoint, actor())
    return downloads.send_artifact(core().artifacts, find, cache=downloads.ASK)


@blueprint.get("/jobs/<job_id>/digests")
@endpoint(TAG, Digests, query=DigestsQuery, problems=("job_not_found",), client="Job.digests", is_shown_by_links=True)
def digests(job_id: str, query: DigestsQuery) -> Digests:
    """List the digests of a job's epochs, as certificates have them: two trainings with equal digests are equal."""
    with read_job(job_id) as (session, job):
        rows = lookup.epochs(session, job_id, after=query.after)
        files = {row.epoch: row.sha256 for row in lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)}
        epochs = [
            EpochDigest(epoch=row.epoch, digest=commits.epoch_digest(row), checkpoint=files.get(row.epoch))
            for row in rows
        ]
        shown = Digests(epochs=epochs, result_digest=job.result_digest, provenance=job.provenance)
        return of_model(shown, share_link())


keys_blueprint: Final = Blueprint("signing_keys", __name__)


@keys_blueprint.get("/.well-known/tapeline-keys.json")
@endpoint("Service", PublishedKeys, scope=PUBLIC)
def published_keys() -> PublishedKeys:
    """List the public keys of this service's certificates, retired ones included."""
    with core().database.read() as session:
        rows = signing_keys.all_of(session)
        return PublishedKeys(keys=[PublishedKey(**signing_keys.document(row)) for row in rows])


def signing_key(application: Core, by: Actor | None) -> str:
    """The id of the key that signs certificates now, which is made and published if there is none."""
    signer = signing.open_signer(application.settings)
    signing_keys.register(application.database, signer, by=by)
    return signer.kid


def make(request: ExportRequest) -> bytes:
    """The zip of a certificate."""
    if request.checkpoint is None:
        raise AssertionError  # the format has weights
    if (refusal := contents.refusal(request.job, request.checkpoint.epoch)) is not None:
        raise refusal
    record = TrainingRecord(
        job=request.job, epochs=request.epochs, checkpoint=request.checkpoint, checkpoints=request.checkpoints
    )
    files = {path: core().artifacts.read(row.path, row.sha256) for path, row in contents.files_of(record).items()}
    name = folders.folder_name(request.job, "certificate")
    signer = signing.open_signer(core().settings)
    if signer.kid != request.kid:
        raise SigningUnavailable("the signing key has just been replaced; try again")
    return folders.pack(contents.folder(record, files, signer, name=name, now=datetime.now(UTC)), name)


def _find(job_id: str, which: str, by: Actor | None) -> Artifact:
    loading.job_of(job_id, Ability.EXPORT)  # first: another owner's job is a 404
    return provided(Exports).export(job_id, ArtifactKind.CERTIFICATE, which=which, by=by)
