from __future__ import annotations

import functools
import resource
from pathlib import Path

import numpy as np
import pytest

from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Claim, Position
from service.spec.validation import resolve
from service.storage.artifacts import ArtifactKind
from service.storage.stores import ArtifactFolder
from tests.faults.conftest import NoSupervisor
from workers.lease_session import LeaseSession
from workers.training.epochs.snapshot import EpochSnapshot, size_of, store_files
from workers.training.training_run import TrainingRun
from workers.usage import OwnMeter


def draw(image: np.ndarray) -> bytes:
    return image.tobytes()


def snapshots(count: int, *, best: int) -> list[EpochSnapshot]:
    return [
        EpochSnapshot(
            record=EpochRecord(
                epoch=epoch,
                position=Position(step=epoch, steps=count),
                metrics={},
                confusion=None,
                samples_digest=None,
                seconds=0.001,
                is_best=epoch <= best,
                files=(),
            ),
            checkpoint=b"weights of %d" % epoch,
            draw_samples=functools.partial(draw, np.full(16, epoch % 256, np.uint8)),
            is_paused_by_sweep=False,
        )
        for epoch in range(1, count + 1)
    ]


@pytest.fixture
def run(tmp_path: Path) -> TrainingRun:
    store = ArtifactFolder(tmp_path)
    store.prepare()
    claim, endpoint = Claim(job_id="job_1", lease=1, token="", lease_s=15.0), NoSupervisor()
    spec = resolve({"kind": "classifier"})
    session = LeaseSession(endpoint, claim)
    return TrainingRun(lease=session, artifacts=store, endpoint=endpoint, meter=OwnMeter(claim), spec=spec)


def test_only_checkpoints_that_stay_are_written_but_every_sample(run: TrainingRun) -> None:
    records = store_files(run, snapshots(9, best=4))
    written = {kind: [] for kind in ArtifactKind}
    for record in records:
        for file in record.files:
            assert run.artifacts.read(file.path, file.sha256)
            written[file.kind].append(file.epoch)
    assert written[ArtifactKind.CHECKPOINT] == [4, 7, 8, 9]
    assert written[ArtifactKind.SAMPLE] == list(range(1, 10))
    replaced = [file for record in records for file in record.replaced]
    assert [(file.kind, file.epoch) for file in replaced] == [
        (ArtifactKind.CHECKPOINT, epoch) for epoch in (1, 2, 3, 5, 6)
    ]
    stored = {item.path for item in run.artifacts.stored("job_1")}
    assert stored == {file.path for record in records for file in record.files}
    ended = store_files(run, snapshots(9, best=4), keep_last=1)
    assert [file.epoch for record in ended for file in record.files if file.kind is ArtifactKind.CHECKPOINT] == [4, 9]


def test_many_short_epochs_need_few_open_files(run: TrainingRun) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        records = store_files(run, snapshots(400, best=1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sum(len(record.files) for record in records) == 400 + 4


def test_the_size_of_an_epoch_counts_what_its_image_shows() -> None:
    (snapshot,) = snapshots(1, best=1)
    assert size_of(snapshot) == len(b"weights of 1") + 16
