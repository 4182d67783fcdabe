"""Whether a model has a certificate: what a gate of the registry can look at, without training anything."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.models.certificates import contents, signing_keys
from service.storage.artifacts import ArtifactDamaged, ArtifactKind, ArtifactStore
from service.storage.tables import Artifact, Job
from tapeline.verify import checking
from tapeline.verify.bundles import CertificateRefused
from tapeline.verify.claims import CHECKPOINT_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateEvidence:
    """Whether a checkpoint has a certificate.

    Attributes:
        certified: one was made for these bytes, and it verifies with a key of this service.
        reason: a sentence.
        request: what would make one; ``None``: nothing, or there is one.
    """

    certified: bool
    reason: str
    request: str | None = None
    kid: str | None = None
    signed_at: str | None = None


def state(session: Session, artifacts: ArtifactStore, job: Job, checkpoint: Artifact) -> CertificateEvidence:
    """Whether a checkpoint of a job has a certificate that verifies now.

    It reads the certificate, which contains the checkpoint, so it costs about two reads of that file.

    Args:
        checkpoint: an artifact of this job; the caller has checked who may see it.
    """
    if (refusal := contents.refusal(job, checkpoint.epoch)) is not None:
        return CertificateEvidence(certified=False, reason=str(refusal))
    request = f"GET /jobs/{job.id}/certificate?checkpoint={checkpoint.epoch}"
    row = session.scalar(
        select(Artifact).where(
            Artifact.job_id == job.id, Artifact.kind == ArtifactKind.CERTIFICATE, Artifact.epoch == checkpoint.epoch
        )
    )
    if row is None:
        return CertificateEvidence(certified=False, reason="no certificate was made yet", request=request)
    try:
        with TemporaryDirectory(prefix="tapeline-certificate-") as folder:
            _unpack(artifacts.read(row.path, row.sha256), Path(folder))
            found = checking.verify(Path(folder), signing_keys.trusted(session))
        if found.manifest.files[CHECKPOINT_FILE] != checkpoint.sha256:
            raise CertificateRefused("it is of another file than the checkpoint")
    except (CertificateRefused, ArtifactDamaged, zipfile.BadZipFile) as error:
        return CertificateEvidence(certified=False, reason=f"the certificate is not valid: {error}", request=request)
    signed_at = found.document()["signed_at"]
    return CertificateEvidence(
        certified=True,
        reason=f"certified {signed_at} with the key {found.kid}",
        kid=found.kid,
        signed_at=signed_at,
    )


def _unpack(data: bytes, folder: Path) -> None:
    """Write the files of a certificate that this service stored."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            (folder / Path(entry.filename).name).write_bytes(archive.read(entry))
