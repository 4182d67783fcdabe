"""Predictions of a table with real workers: the file, the same bytes after a kill, and a spent budget."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from service.jobs import actions
from service.jobs.queries import lookup
from service.jobs.request_bodies import JobPatch
from service.spec.schema import JobBudget
from service.states import Action
from service.storage.artifacts import ArtifactKind
from service.storage.stores import ArtifactFolder
from service.storage.tables import Artifact, Job
from tests.faults.harness import FaultHarness, open_harness
from tests.workers.test_tables import import_table, rows_of

SPEC: dict[str, Any] = {"kind": "classifier", "dataset": "people", "epochs": 2, "batch_size": 50}
"""Of the model. A prediction of the table has six batches."""


class Predicting:
    """Real workers, a trained model of a table, and predictions with it."""

    def __init__(self, harness: FaultHarness) -> None:
        self.harness, self.jobs = harness, import_table(harness, rows_of("classifier"))
        harness.start()
        self.model = harness.until_end(self.submit(SPEC))
        assert self.model.status == "succeeded", self.model.error

    def submit(self, document: dict[str, Any]) -> str:
        self.harness.accepted.append(self.jobs.submit(document).answer["id"])
        return self.harness.accepted[-1]

    def predict(self, **more: Any) -> str:
        return self.submit({"kind": "prediction", "model": self.model.id, "dataset": "people"} | more)

    def file_of(self, job: Job) -> tuple[Artifact, bytes]:
        with self.harness.database.read() as session:
            (row,) = lookup.artifacts(session, job.id)
        return row, ArtifactFolder(self.harness.settings.artifacts).read(row.path, row.sha256)


@pytest.fixture(scope="module")
def predicting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predicting]:
    folder = tmp_path_factory.mktemp("predictions")
    with closing(open_harness(folder / "home", f"sqlite:///{folder / 'tapeline.db'}")) as harness:
        yield Predicting(harness)
        harness.stop()
        with harness.database.read() as session:
            recorded = {path for paths in lookup.paths(session, harness.accepted).values() for path in paths}
        # The invariants of the harness know no uploads, whose files are in the store, too.
        stored = {item.path for item in ArtifactFolder(harness.settings.artifacts).stored()}
        assert stored == recorded, "a killed prediction leaves no file"


@pytest.mark.nightly
def test_a_prediction_leaves_one_file_with_every_row_and_its_digest(predicting: Predicting) -> None:
    job = predicting.harness.until_end(predicting.predict())
    assert (job.status, job.epoch, job.step, job.steps, job.error) == ("succeeded", 1, 3000, 3000, None)
    row, content = predicting.file_of(job)
    assert (row.kind, row.media_type, job.size_bytes) == (ArtifactKind.PREDICTIONS, "text/csv", len(content))
    assert job.result_digest == f"sha256:{row.sha256}"
    header, *rows = csv.reader(io.StringIO(content.decode()))
    assert header == ["age", "city", "label", "prediction", "probability", "probability of a", "probability of b"]
    assert len(rows) == 3000
    assert sorted({row[1] for row in rows}) == ["Bergen", "Bodø", "Oslo"]
    assert any(row[0] == "" for row in rows), "missing values stay empty"
    right = sum(row[2] == row[3] for row in rows)
    assert right > 2500, "the file has the target beside the prediction"
    assert job.provenance is not None
    assert job.provenance["checkpoint"] == job.resolved["model"]["sha256"]


@pytest.mark.nightly  # test_prediction_kills.py
def test_a_killed_prediction_starts_again_and_has_the_same_bytes(predicting: Predicting) -> None:
    undisturbed = predicting.harness.until_end(predicting.predict())
    predicting.harness.arm("batch_done.1", "kill")
    killed = predicting.harness.until_end(predicting.predict())
    assert (killed.status, killed.attempt) == ("succeeded", 2), killed.error
    assert killed.result_digest == undisturbed.result_digest
    assert predicting.file_of(killed)[1] == predicting.file_of(undisturbed)[1]
    reasons = [event.data["reason"] for event in predicting.harness.log(killed.id) if event.type == "status"]
    assert reasons == ["submitted", "claimed", "lost", "claimed", "done"]


@pytest.mark.nightly
def test_a_prediction_whose_budget_is_spent_pauses_and_starts_again(predicting: Predicting) -> None:
    job_id = predicting.predict(budget={"seconds": 1e-6})
    paused = predicting.harness.until(job_id, lambda job: job.status == "paused")
    assert Action.RESUME in actions.actions_of(paused)
    actions.change(predicting.harness.database, job_id, JobPatch(budget=JobBudget(seconds=1000)))
    predicting.jobs.act(job_id, Action.RESUME)
    job = predicting.harness.until_end(job_id)
    assert (job.status, job.step) == ("succeeded", 3000)
