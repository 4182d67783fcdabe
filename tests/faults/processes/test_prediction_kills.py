"""A prediction that is killed, stopped or refused at any place: its file has the same bytes, or there is none."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest

from service.application.jobs import Jobs
from service.application.specs import SpecChecks
from service.datasets.repository import DatasetRepository
from service.errors import LeaseLost
from service.jobs import actions, leases
from service.jobs.queries import lookup
from service.states import Action, Request
from service.storage.tables import Artifact, Job
from tests.faults.conftest import InProcessHarness, NoSupervisor
from tests.faults.harness import FEW
from workers.training import run

PLACES = ("began", "batch_done", "files_stored", "succeeding", "succeeded")


class Predictions:
    """A trained model of images, and predictions with it in the test process."""

    def __init__(self, process: InProcessHarness) -> None:
        self.process = process
        repository = DatasetRepository(process.workers.settings, process.database)
        specs = SpecChecks(database=process.database, datasets=repository)
        self.jobs = Jobs(database=process.database, artifacts=process.artifacts, specs=specs)
        self.model = process.submit(epochs=1)
        assert process.train() == "succeeded"

    def submit(self, **more: Any) -> str:
        document = {"kind": "prediction", "model": self.model, "dataset": "few"} | more
        self.process.accepted.append(self.jobs.submit(document).answer["id"])
        return self.process.accepted[-1]

    def job(self, job_id: str) -> Job:
        return self.process.workers.job(job_id)

    def files(self, job_id: str) -> list[Artifact]:
        with self.process.database.read() as session:
            return list(lookup.artifacts(session, job_id))

    def content(self, job_id: str) -> bytes:
        (row,) = self.files(job_id)
        return self.process.artifacts.read(row.path, row.sha256)


@pytest.fixture
def predictions(process: InProcessHarness) -> Predictions:
    return Predictions(process)


def test_a_prediction_of_images_names_each_with_its_class_and_the_probabilities(predictions: Predictions) -> None:
    job_id = predictions.submit()
    assert predictions.process.train() == "succeeded"
    job = predictions.job(job_id)
    header, *rows = csv.reader(io.StringIO(predictions.content(job_id).decode()))
    assert header[:5] == ["index", "part", "class", "prediction", "probability"]
    assert header[5:] == [f"probability of {digit}" for digit in range(10)]
    assert (len(rows), job.step, job.steps) == (1000, 1000, 1000)
    assert [row[:2] for row in (rows[0], rows[FEW - 1], rows[FEW])] == [
        ["0", "train"],
        [str(FEW - 1), "train"],
        ["0", "validation"],
    ]
    only_validation = predictions.submit(dataset={"name": "few", "part": "validation"})
    assert predictions.process.train() == "succeeded"
    _, *part = csv.reader(io.StringIO(predictions.content(only_validation).decode()))
    assert [row[:4] for row in part] == [row[:4] for row in rows[FEW:]]
    predictions.process.check(None)


@pytest.mark.parametrize("place", PLACES)
def test_a_prediction_that_is_killed_anywhere_has_the_bytes_of_an_undisturbed_one(
    predictions: Predictions, place: str
) -> None:
    process, undisturbed = predictions.process, predictions.submit()
    assert process.train() == "succeeded"
    killed = predictions.submit()
    process.die_at(place)
    if place != "succeeded":  # then the job has ended
        assert process.train() == "succeeded"
    assert predictions.job(killed).result_digest == predictions.job(undisturbed).result_digest
    assert predictions.content(killed) == predictions.content(undisturbed)


@pytest.mark.parametrize(("request_", "status"), [(Request.CANCEL, "cancelled"), (None, "queued")])
def test_a_prediction_stops_between_two_batches_and_leaves_nothing(
    predictions: Predictions, request_: Request | None, status: str
) -> None:
    job_id, supervisor = predictions.submit(), NoSupervisor()
    held = predictions.process.claim()
    if request_ is not None:
        predictions.jobs.act(job_id, Action.CANCEL)
    supervisor.request, supervisor.after_batches = request_, 1
    assert predictions.process.train(held, supervisor) == "released"
    assert (predictions.job(job_id).status, predictions.files(job_id)) == (status, [])
    if status == "queued":  # its worker stopped
        assert predictions.process.train() == "succeeded"
    predictions.jobs.delete(job_id)
    assert not list(predictions.process.artifacts.stored(job_id))


def test_a_prediction_that_lost_its_lease_removes_its_file(predictions: Predictions) -> None:
    job_id, process = predictions.submit(), predictions.process
    stale = process.claim()
    leases.record_child_loss(process.database, stale, "lost")
    with pytest.raises(LeaseLost):
        process.train(stale)
    assert not list(process.artifacts.stored(job_id))
    assert process.train() == "succeeded"
    process.check(None)


def test_a_prediction_whose_model_is_deleted_fails_and_can_be_retried(predictions: Predictions) -> None:
    job_id = predictions.submit(model=f"{predictions.model}@1")
    predictions.jobs.delete(predictions.model)
    assert predictions.process.train() == "failed"
    job = predictions.job(job_id)
    assert job.error is not None
    assert job.error["code"] == "model_unavailable"
    assert job.error["message"] == f"the checkpoint of epoch 1 of {predictions.model} was deleted"
    assert "submit the prediction again" in job.error["hint"]
    assert actions.actions_of(job) == (Action.RETRY, Action.DELETE)
    assert predictions.jobs.act(job_id, Action.RETRY).attempt == 2


def test_a_prediction_whose_checkpoint_is_damaged_fails(predictions: Predictions) -> None:
    job_id = predictions.submit()
    (row,) = [file for file in predictions.files(predictions.model) if file.kind == "checkpoint"]
    (predictions.process.artifacts.root / row.path).write_bytes(b"rubbish")
    assert predictions.process.train() == "failed"
    error = predictions.job(job_id).error
    assert error is not None
    assert error["code"] == "model_unavailable"
    assert "SHA-256 differs" in error["message"]


def test_a_file_beyond_the_quota_of_the_owner_is_not_kept(predictions: Predictions) -> None:
    job_id, process = predictions.submit(), predictions.process
    claim = process.claim()
    with process.database.write() as session:
        for job in session.query(Job):
            job.owner = "ann"
    settings = process.workers.settings
    tight = replace(settings, quotas=replace(settings.quotas, artifacts=1000))
    assert run.train(tight, claim, NoSupervisor(process.database)) == "failed"
    error = predictions.job(job_id).error
    assert error is not None
    assert (error["code"], "checkpoint" in error["hint"]) == ("storage_quota", False)
    assert not list(process.artifacts.stored(job_id))
    predictions.jobs.act(job_id, Action.RETRY)
    assert process.train() == "succeeded"
