"""Certificates for tests, made by the service's own code from rows that no database has."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from engine import checkpoint
from service.models.certificates import contents, signing
from service.models.certificates.contents import TrainingRecord
from service.models.certificates.signing import Signer
from service.runtime.settings import Settings
from service.spec import validation
from service.states import Status
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Artifact, Epoch, Job
from tapeline.verify import claims

SIGNED_AT = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
EPOCHS = 3


def signer(folder: Path) -> Signer:
    """A signer whose key is in a folder, and made if there is none."""
    home = Settings.from_env({"TAPELINE_HOME": str(folder)}, cores=1)
    return replace(signing.open_signer(home), made_ms=0)


def resolved(**changes: Any) -> dict[str, Any]:
    document = {"kind": "classifier", "dataset": "iris", "epochs": EPOCHS, "name": "first", **changes}
    return validation.resolve(document).model_dump(mode="json")


def checkpoint_bytes(spec: dict[str, Any], epoch: int, value: float = 0.5) -> bytes:
    tensors = {"layers.0.weight": np.full((4, 3), value, "float32")}
    return checkpoint.dumps(checkpoint.State(tensors, {"trainer": "classifier", "epoch": epoch}, spec))


def artifact(data: bytes, epoch: int) -> Artifact:
    return Artifact(kind=ArtifactKind.CHECKPOINT, epoch=epoch, sha256=hashlib.sha256(data).hexdigest())


def make(
    folder: Path, by: Signer, *, spec: dict[str, Any] | None = None, value: float = 0.5, now: datetime = SIGNED_AT
) -> Path:
    """A certificate in a new folder.

    Args:
        value: of all weights: another one makes another model.
    """
    spec = spec or resolved()
    data = checkpoint_bytes(spec, EPOCHS, value)
    job = Job(
        id="job_01M8PR3PC0QGGW4TZF20D8KWFG",
        status=Status.SUCCEEDED,
        resolved=spec,
        spec_hash=validation.resolved_hash(spec),
        start_epoch=0,
        reused_epochs=0,
        provenance={"numpy": np.__version__, "threads": 1, "code": f"sha256:{'c' * 64}"},
        dataset_sha256=f"sha256:{'d' * 64}",
        result_digest=f"sha256:{'e' * 64}",
        started_ms=0,
        finished_ms=1000,
        reusable=True,
    )
    epochs = [
        Epoch(epoch=number, metrics={"train_loss": value / number}, samples_digest=None)
        for number in range(1, EPOCHS + 1)
    ]
    row = artifact(data, EPOCHS)
    record = TrainingRecord(job=job, epochs=epochs, checkpoint=row, checkpoints=[row])
    assert contents.refusal(job, EPOCHS) is None
    files = contents.folder(record, {claims.CHECKPOINT_FILE: data}, by, name="first-certificate", now=now)
    folder.mkdir(parents=True)
    for path, content in files.items():
        (folder / path).write_bytes(content)
    return folder


def published(*signers: Signer, retired_at: str | None = None, not_before: str | None = None) -> str:
    """The document in which a service publishes the keys of these signers."""
    keys = [
        {"kid": item.kid, "public_key": item.public_key, "not_before": not_before, "retired_at": retired_at}
        for item in signers
    ]
    return json.dumps({"keys": keys})


def statement_of(line: bytes) -> dict[str, Any]:
    """The statement in a bundle."""
    payload: dict[str, Any] = json.loads(base64.b64decode(json.loads(line)["dsseEnvelope"]["payload"]))
    return payload
