"""A training on a table has the same bits when its process is killed, with real workers."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine import checkpoint
from service.application.datasets import DatasetUploads, ReceivedFiles
from service.application.jobs import Jobs
from service.application.specs import SpecChecks
from service.datasets.formats.options import TableOptions
from service.datasets.repository import DatasetRepository
from service.datasets.sandbox import import_in_sandbox
from service.datasets.uploads import UploadFiles
from service.jobs.queries import lookup
from service.storage.artifacts import ArtifactKind
from service.storage.stores import ArtifactFolder
from service.storage.tables import Job
from tests.faults.harness import open_harness
from tests.workers.conftest import WorkerHarness

SPEC: dict[str, Any] = {"dataset": "people", "epochs": 8, "batch_size": 16}


def rows_of(kind: str) -> str:
    """A table whose target follows from the first column: as a class, or as a number."""
    targets = ("ab"[n % 40 > 19] if kind == "classifier" else f"{n % 40 * 2.5}" for n in range(3000))
    return "".join(
        f"{'' if n % 7 == 3 else n % 40},{('Oslo', 'Bergen', 'Bodø')[n % 3]},{target}\n"
        for n, target in enumerate(targets)
    )


def import_table(harness: WorkerHarness, rows: str) -> Jobs:
    """Import the table as the web process does, and return a ``Jobs`` that submits jobs on it."""
    settings = harness.settings
    repository = DatasetRepository(settings, harness.database)
    uploads = DatasetUploads(
        database=harness.database,
        files=UploadFiles.of(settings),
        datasets=repository,
        import_files=import_in_sandbox,
    )

    def receive(folder: Path) -> ReceivedFiles:
        (folder / "part").write_text("age,city,label\n" + rows, encoding="utf-8")
        return ReceivedFiles(name="people", files={"table": folder / "part"}, fraction=None, table=TableOptions())

    uploads.add(receive)
    artifacts = ArtifactFolder(settings.artifacts)
    specs = SpecChecks(database=harness.database, datasets=repository)
    return Jobs(database=harness.database, artifacts=artifacts, specs=specs)


@pytest.mark.stack
@pytest.mark.parametrize(("kind", "learned"), [("classifier", "class"), ("regressor", "target")])
def test_a_killed_training_on_a_table_finishes_with_the_bits_of_an_undisturbed_one(
    tmp_path: Path, kind: str, learned: str
) -> None:
    with closing(open_harness(tmp_path / "home", f"sqlite:///{tmp_path / 'tapeline.db'}")) as harness:
        jobs, spec = import_table(harness, rows_of(kind)), SPEC | {"kind": kind}
        harness.start(COMMITS_EACH_EPOCH="1")
        undisturbed = harness.until_end(jobs.submit(spec).answer["id"])
        assert undisturbed.status == "succeeded", undisturbed.error
        harness.arm("epoch_committed.2", "kill")
        disturbed = harness.until_end(jobs.submit(spec).answer["id"])
        assert disturbed.attempt > 1
        assert disturbed.result_digest == undisturbed.result_digest
        assert disturbed.provenance["preprocessing"] == undisturbed.provenance["preprocessing"]  # type: ignore[index]
        for job in (undisturbed, disturbed):
            (finding,) = job.health
            assert finding["code"] == "leak"
            assert finding["message"] == f"column 'age' alone predicts the {learned}: check for a leak"
        preprocessings = [stored_preprocessing(harness, job) for job in (undisturbed, disturbed)]
        assert preprocessings[0] == preprocessings[1] == undisturbed.provenance["preprocessing"]  # type: ignore[index]
        fork = jobs.fork(undisturbed.id, {"overrides": {"epochs": 10}}).answer["id"]
        assert stored_preprocessing(harness, harness.until_end(fork)) == preprocessings[0]


def stored_preprocessing(harness: WorkerHarness, job: Job) -> Any:
    """The preprocessing in a job's last checkpoint."""
    with harness.database.read() as session:
        row = lookup.artifacts(session, job.id, ArtifactKind.CHECKPOINT)[-1]
        assert not lookup.artifacts(session, job.id, ArtifactKind.SAMPLE)
    data = ArtifactFolder(harness.settings.artifacts).read(row.path, row.sha256)
    return checkpoint.loads(data).state["preprocessing"]
