"""Exports are files of a job: they count, and are refused when the quota of the owner is exhausted."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.access import storage_quota
from service.access.audit import Actor
from service.application.models import Exports
from service.errors import StorageQuotaExceeded
from service.jobs import epoch_commits, leases, submissions
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Position
from service.jobs.submissions import Submission
from service.runtime.slots import SlotPool
from service.spec.validation import resolve
from service.storage.artifacts import ArtifactKind
from service.storage.database import Database
from service.storage.stores import ArtifactFolder

SIZE = 1000


def train(database: Database, store: ArtifactFolder) -> str:
    """Store a job of ann with a checkpoint, and return its id."""
    document = {"kind": "classifier", "epochs": 1}
    submission = Submission(spec=document, resolved=resolve(document), steps=1, owner="ann")
    submissions.submit(database, [submission], idempotency=None, represent=lambda jobs: {"id": jobs[0].id})
    held = leases.claim(database, "w", 60)
    assert held is not None
    file = store.write(held.job_id, ArtifactKind.CHECKPOINT, 1, held.lease, bytes(SIZE))
    record = EpochRecord(
        epoch=1, position=Position(step=1, steps=1), metrics={"train_loss": 0.1}, confusion=None, samples_digest=None,
        seconds=0.1, is_best=True, files=[file],
    )  # fmt: skip
    epoch_commits.commit(database, held, [record], keep_last=3)
    epoch_commits.succeed(database, held, "sha256:done")
    return held.job_id


def test_an_export_that_does_not_fit_is_refused_and_leaves_no_file(database: Database, tmp_path: Path) -> None:
    store, by = ArtifactFolder(tmp_path / "artifacts"), Actor(owner="ann")
    job_id = train(database, store)
    exports = Exports(
        database=database,
        artifacts=store,
        make=lambda request: bytes([7]) * SIZE,
        slots=SlotPool("exports", 1),
        signing_key=lambda by: "",
        at_most=2 * SIZE,
    )
    row = exports.export(job_id, ArtifactKind.ONNX, by=by)
    assert exports.export(job_id, ArtifactKind.ONNX, by=by).id == row.id
    recorded = len(by.recorded)
    with pytest.raises(StorageQuotaExceeded, match="ann's jobs take 2,000 of 2,000 bytes"):
        exports.export(job_id, ArtifactKind.TORCH, by=by)
    assert len(by.recorded) == recorded
    assert {item.path for item in store.stored()} == {
        row.path,
        f"{job_id}/checkpoint/{next((store.root / job_id / 'checkpoint').iterdir()).name}",
    }
    with database.read() as session:
        assert storage_quota.read(session, "ann").stored == 2 * SIZE
