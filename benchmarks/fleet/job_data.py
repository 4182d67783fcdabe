"""The rows of the simulated jobs: a classifier on mnist-10k, with the numbers of a real one."""

from __future__ import annotations

from typing import Any, Final

from service.jobs import submissions
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Claim, Position, Usage
from service.jobs.submissions import Submission
from service.spec.validation import resolve
from service.storage.artifacts import ArtifactKind, StoredFile
from service.storage.database import Database

STEPS_PER_EPOCH: Final = 43
_SUBMITTED_AT_ONCE: Final = 100
_METRICS: Final = {
    "train_loss": 1.206025042954613,
    "train_accuracy": 0.6848235294117647,
    "val_loss": 0.31017863750457764,
    "val_accuracy": 0.9213333333333333,
    "learning_rate": 0.3977661741803647,
    "grad_norm": 0.8787778921968943,
    "grad_norm/layers.0": 0.6834609716075566,
    "grad_norm/layers.1": 0.5401994218181183,
    "dead_units": 0.13520408163265307,
    "dead_units/layers.0": 0.13520408163265307,
    "val_log_loss": 0.310178602140172,
    "val_balanced_accuracy": 0.9220319125717035,
    "val_macro_f1": 0.9188717926122625,
}
_CONFUSION: Final = [[130 if row == column else 2 for column in range(10)] for row in range(10)]
_SIZES: Final = {ArtifactKind.CHECKPOINT: 2_495_480, ArtifactKind.SAMPLE: 14_009}


def submit_jobs(database: Database, count: int, *, epochs: int, owners: int) -> None:
    """Queue jobs, in turn of each owner. Their seeds differ, so that none takes over the epochs of another."""
    for first in range(0, count, _SUBMITTED_AT_ONCE):
        new = [_submission(number, epochs, owners) for number in range(first, min(first + _SUBMITTED_AT_ONCE, count))]
        submissions.submit(database, new, idempotency=None, represent=lambda jobs: {"id": jobs[0].id})


def _submission(number: int, epochs: int, owners: int) -> Submission:
    document = {"kind": "classifier", "dataset": {"name": "mnist-10k"}, "epochs": epochs, "seed": number}
    return Submission(
        spec=document,
        resolved=resolve(document),
        steps=STEPS_PER_EPOCH * epochs,
        owner=f"owner-{number % owners}",
        expected_bytes=3 * sum(_SIZES.values()),
    )


def epoch_record(claim: Claim, epoch: int, epochs: int, store: str | None) -> EpochRecord:
    """The record of an epoch that is better than all before it, with a checkpoint and a sample grid."""
    metrics: dict[str, Any] = {name: value * (1 + 0.001 * epoch) for name, value in _METRICS.items()}
    files = [
        StoredFile(
            kind=kind,
            epoch=epoch,
            path=f"{claim.job_id}/{kind.value}/{epoch:06d}-{claim.lease}-0123abcd-0123456789abcdef",
            name=f"{kind.value}-{epoch:04d}",
            size_bytes=size,
            sha256=f"{epoch:064x}",
            store_id=store,
        )
        for kind, size in _SIZES.items()
    ]
    return EpochRecord(
        epoch=epoch,
        position=Position(step=STEPS_PER_EPOCH * epoch, steps=STEPS_PER_EPOCH * epochs),
        metrics=metrics,
        confusion=_CONFUSION,
        samples_digest=f"sha256:{epoch:064x}",
        seconds=2.0,
        is_best=True,
        files=files,
        cpu_seconds=2.0,
        memory_bytes=2**27,
        used=Usage(cpu_seconds=2.0 * epoch, peak_memory_bytes=2**27),
        goes_on=epoch < epochs,
    )
