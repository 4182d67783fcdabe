"""A service's database and files, with jobs as a worker trains them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from service.datasets.formats.array_files import write_array, write_meta
from service.datasets.info import IDX_NAMES
from service.datasets.uploads import UploadFiles
from service.jobs import epoch_commits, leases, submissions
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Position
from service.jobs.queries import lookup
from service.jobs.submissions import Submission
from service.schema import costs
from service.spec.validation import resolve
from service.storage.artifacts import ArtifactKind, ArtifactStore
from service.storage.database import Database, now_ms
from service.storage.stores import ArtifactFolder
from service.storage.tables import Job, Upload
from tests.object_servers import credentials

DAY_MS = 24 * 60 * 60 * 1000


@pytest.fixture(
    params=[
        "moto",
        # tests/service/storage/test_store_conformance.py runs what these tests use with SeaweedFS
        pytest.param("seaweedfs", marks=pytest.mark.nightly),
    ]
)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a server that speaks S3; its credentials are in the environment."""
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    return str(request.getfixturevalue(request.param))


def files_of(store: ArtifactStore, folder: Path) -> UploadFiles:
    """The files of a service whose machine has this folder."""
    return UploadFiles(store, folder)


def read_dataset(files: UploadFiles, upload_id: str = "ds_1") -> dict[str, bytes]:
    """The content of a dataset's files."""
    content = {}
    for name in files.names(upload_id):
        with files.open(upload_id, name) as file:
            content[name] = file.read()
    return content


@dataclass
class Installation:
    database: Database
    store: ArtifactFolder

    @property
    def files(self) -> UploadFiles:
        return files_of(self.store, self.store.root)

    def add_dataset(self, upload_id: str = "ds_1", *, count: int = 60) -> str:
        """Store a dataset with its row; returns its SHA-256."""
        with self.files.scratch(upload_id) as folder:
            shapes = ((count, 8, 8), (count,), (count, 8, 8), (count,))
            arrays = [np.arange(math.prod(shape), dtype=np.uint8).reshape(shape) for shape in shapes]
            pairs = zip(IDX_NAMES, arrays, strict=True)
            sha256 = write_meta(folder, {name: write_array(folder, name, array) for name, array in pairs})
            size = sum(path.stat().st_size for path in folder.iterdir())
            self.files.add(upload_id, folder)
        values = {"image_rows": 8, "image_columns": 8, "classes": 256, "train_count": count, "validation_count": count}
        with self.database.write() as session:
            session.add(
                Upload(id=upload_id, owner="", name="mine", sha256=sha256, size_bytes=size, created_ms=8, **values)
            )
        return sha256

    def train(self, epochs: int = 5, *, best: int = 2, ended_days_ago: float | None = 0.0) -> str:
        """Create a job with ``epochs`` checkpoints and return its id; ``ended_days_ago=None`` leaves it running."""
        document = {"kind": "classifier", "epochs": epochs, "tags": ["kept"]}
        resolved = resolve(document)
        submission = Submission(spec=document, resolved=resolved, steps=costs.total_steps(resolved, 8500))
        answer, _ = submissions.submit(
            self.database, [submission], idempotency=None, represent=lambda jobs: {"id": jobs[0].id}
        )
        claim = leases.claim(self.database, "simulated", 600.0)
        assert claim is not None
        leases.begin(self.database, claim, {"numpy": "2"})
        for epoch in range(1, epochs + 1):
            data = f"{claim.job_id} {epoch}".encode() * 50
            files = [
                self.store.write(claim.job_id, ArtifactKind.CHECKPOINT, epoch, claim.lease, data),
                self.store.write(claim.job_id, ArtifactKind.SAMPLE, epoch, claim.lease, data[:99]),
            ]
            record = EpochRecord(
                epoch=epoch,
                position=Position(step=epoch, steps=epochs),
                metrics={"train_loss": 0.1 / epoch},
                confusion=None,
                samples_digest=None,
                seconds=0.5,
                is_best=epoch <= best,
                files=files,
            )
            epoch_commits.commit(self.database, claim, [record], keep_last=1000)
        if ended_days_ago is not None:
            epoch_commits.succeed(self.database, claim, "sha256:done")
            with self.database.write() as session:
                finished_ms = now_ms() - int(ended_days_ago * DAY_MS)
                session.execute(update(Job).where(Job.id == claim.job_id).values(finished_ms=finished_ms))
        return str(answer["id"])

    def checkpoint_epochs(self, job_id: str) -> list[int]:
        with self.database.read() as session:
            rows = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
        for row in rows:
            self.store.read(row.path, row.sha256)
        return [row.epoch for row in rows]

    def paths(self) -> set[str]:
        return {item.path for item in self.store.stored()}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave tests that restore damaged backups into the other kind of database to the night: each kind is restored
    from damaged ones of its own kind, and from intact ones of the other."""
    for item in items:
        if item.path.name == "test_damaged_backup.py" and isinstance(item, pytest.Function):
            params = item.callspec.params if hasattr(item, "callspec") else {}
            if params.get("empty", params.get("private_url")) != params.get("private_url"):
                item.add_marker(pytest.mark.nightly)


@pytest.fixture
def database(private_url: str) -> Iterator[Database]:
    """A migrated database that no other test shares, since some of these tests change its schema."""
    with closing(Database(private_url)) as database:
        yield database


@pytest.fixture
def installation(database: Database, tmp_path: Path) -> Installation:
    return Installation(database, ArtifactFolder(tmp_path / "artifacts"))


@pytest.fixture
def age(installation: Installation) -> Callable[..., None]:
    """Return a function that makes files look a day old."""

    def make_old(*paths: str) -> None:
        for path in paths:
            os.utime(installation.store.root / path, (time.time() - 86400,) * 2)

    return make_old
