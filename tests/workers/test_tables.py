"""A table trained by real workers gives the same bits when the training process is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from engine import checkpoint
from service.application.datasets import DatasetUploads, ReceivedFiles
from service.application.jobs import Jobs
from service.application.specs import SpecChecks
from service.datasets.info import TableOptions
from service.datasets.repository import DatasetRepository
from service.datasets.sandbox import import_in_sandbox
from service.jobs.queries import lookup
from service.jobs.uploads import UploadFolder
from service.storage.artifacts import ArtifactFolder, ArtifactKind
from service.storage.tables import Job
from tests.workers.conftest import WorkerHarness, children_of, open_worker_harness

ROWS = "".join(
    f"{'' if n % 7 == 3 else n % 40},{('Oslo', 'Bergen', 'Bodø')[n % 3]},{'ab'[n % 40 > 19]}\n" for n in range(3000)
)
SPEC: dict[str, Any] = {"kind": "classifier", "dataset": "people", "epochs": 8, "batch_size": 16}


def upload(harness: WorkerHarness) -> Jobs:
    """Import the table as the web process does; gives what submits jobs on it."""
    settings = harness.settings
    repository = DatasetRepository(settings, harness.database)
    uploads = DatasetUploads(
        database=harness.database,
        folder=UploadFolder(settings.artifacts),
        datasets=repository,
        import_files=import_in_sandbox,
    )

    def receive(folder: Path) -> ReceivedFiles:
        (folder / "part").write_text("age,city,label\n" + ROWS, encoding="utf-8")
        return ReceivedFiles(name="people", files={"table": folder / "part"}, fraction=None, table=TableOptions())

    uploads.add(receive)
    artifacts = ArtifactFolder(settings.artifacts)
    specs = SpecChecks(database=harness.database, datasets=repository)
    return Jobs(database=harness.database, artifacts=artifacts, specs=specs)


@pytest.mark.slow
def test_a_killed_training_of_a_table_ends_with_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    harness = open_worker_harness(tmp_path / "home", f"sqlite:///{tmp_path / 'tapeline.db'}")
    try:
        jobs = upload(harness)
        worker = harness.start()
        calm = harness.until_end(jobs.submit(SPEC).answer["id"])
        assert calm.status == "succeeded", calm.error
        disturbed = jobs.submit(SPEC).answer["id"]
        harness.until(disturbed, lambda job: job.epoch >= 2)
        for child in children_of(worker.pid):
            os.kill(child, signal.SIGKILL)
        ended = harness.until_end(disturbed)
        assert ended.attempt > 1
        assert ended.result_digest == calm.result_digest
        assert ended.provenance["preprocessing"] == calm.provenance["preprocessing"]  # type: ignore[index]
        stored = [held(harness, job) for job in (calm, ended)]
        assert stored[0] == stored[1] == calm.provenance["preprocessing"]  # type: ignore[index]
        fork = jobs.fork(calm.id, {"overrides": {"epochs": 10}}).answer["id"]
        assert held(harness, harness.until_end(fork)) == stored[0]
    finally:
        harness.stop()
        harness.database.close()


def held(harness: WorkerHarness, job: Job) -> Any:
    """The preprocessing in a job's last checkpoint."""
    with harness.database.read() as session:
        row = lookup.artifacts(session, job.id, ArtifactKind.CHECKPOINT)[-1]
        assert not lookup.artifacts(session, job.id, ArtifactKind.SAMPLE)
    data = ArtifactFolder(harness.settings.artifacts).read(row.path, row.sha256)
    return checkpoint.loads(data).state["preprocessing"]
