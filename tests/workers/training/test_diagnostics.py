"""Findings in trainings by real workers: in the job, in its log, and as a reason to stop."""

from __future__ import annotations

from typing import Any

import pytest

from service.jobs import actions
from service.jobs.queries import lookup
from service.pictures import grids
from service.states import Action, Status
from service.storage.stores import ArtifactFolder
from tests.workers.conftest import WorkerHarness

DYING: dict[str, Any] = {
    "layers": [{"units": 50, "activation": "relu"}, {"units": 10, "activation": "softmax"}],
    "optimizer": {"name": "sgd", "learning_rate": 3.0, "momentum": 0.9},
    "schedule": {"name": "constant"},
    "epochs": 5,
}
"""A learning rate that kills every unit in the first epoch, which is detected after the third."""


def finding_codes(job: Any) -> list[str]:
    return [finding["code"] for finding in job.health]


@pytest.mark.nightly
def test_mode_collapse_is_found_early_in_the_seed_gan_and_not_in_stable(sqlite_workers: WorkerHarness) -> None:
    seed = sqlite_workers.store({"kind": "gan", "preset": "classic", "epochs": 3})
    stable = sqlite_workers.store({"kind": "gan", "epochs": 3, "health": {"every_epochs": 2}, "samples": {"count": 9}})
    sqlite_workers.start()
    ended = sqlite_workers.until_end(seed), sqlite_workers.until_end(stable)
    assert [job.status for job in ended] == [Status.SUCCEEDED] * 2
    assert "mode_collapse" in finding_codes(ended[0])
    assert ended[0].health[0]["epoch"] == 2
    assert ended[0].health[0]["numbers"]["sample_diversity"] < 0.01
    assert ended[0].metrics["mode_coverage"] == 0.1
    findings = [event.data for event in sqlite_workers.log(seed) if event.type == "health"]
    assert (findings[0]["code"], findings[0]["state"], findings[0]["epoch"]) == ("mode_collapse", "found", 2)

    assert finding_codes(ended[1]) == []
    with sqlite_workers.database.read() as session:
        epochs = lookup.epochs(session, stable)
        sample = lookup.sample(session, ended[1], "latest")
    # Every second epoch is evaluated, and the last.
    assert ["frechet_distance" in row.metrics for row in epochs] == [False, True, True]
    closest = min(epochs[1:], key=lambda row: row.metrics["frechet_distance"])
    assert ended[1].best_epoch == closest.epoch
    assert ended[1].provenance is not None
    assert ended[1].provenance["reference_classifier"].startswith("sha256:")
    grid = ArtifactFolder(sqlite_workers.settings.artifacts).read(sample.path, sample.sha256)
    assert len(grids._from_grid(grid)[1].labels) == 9


@pytest.mark.stack
def test_a_job_stops_on_the_finding_that_its_spec_names_and_can_be_forked(running_on_sqlite: WorkerHarness) -> None:
    job_id = running_on_sqlite.submit(**DYING, health={"stop_on": ["dead_units"]}, checkpoint={"every_epochs": 100})
    job = running_on_sqlite.until_end(job_id)
    assert (job.status, job.epoch) == (Status.FAILED, 3)
    assert job.error is not None
    assert (job.error["code"], job.error["epoch"], job.error["last_good_checkpoint"]) == ("dead_units", 3, 3)
    assert "learning_rate" in job.error["hint"]
    assert finding_codes(job) == ["dead_units"]
    assert Action.FORK in actions.actions_of(job)
    assert Action.RETRY not in actions.actions_of(job)
    with running_on_sqlite.database.read() as session:
        assert lookup.sample(session, job, "latest").epoch == 3
    types = [event.type for event in running_on_sqlite.log(job_id)]
    assert types.count("health") == 1
    assert types[-2:] == ["status", "end"]


@pytest.mark.nightly
def test_a_resumed_training_keeps_its_findings_without_repeating_their_events(sqlite_workers: WorkerHarness) -> None:
    undisturbed_id, job_id = (
        sqlite_workers.submit(**DYING),
        sqlite_workers.submit(**(DYING | {"epochs": 40}), checkpoint={"every_epochs": 3}),
    )
    sqlite_workers.start()
    sqlite_workers.until(job_id, lambda job: job.epoch >= 4)
    actions.pause(sqlite_workers.database, job_id)
    sqlite_workers.until(job_id, lambda job: job.status == Status.PAUSED)
    actions.resume(sqlite_workers.database, job_id)
    sqlite_workers.until(job_id, lambda job: job.lease == 2 and job.epoch >= 8)
    actions.cancel(sqlite_workers.database, job_id)
    job = sqlite_workers.until_end(job_id)
    health_events = [
        event.data
        for event in sqlite_workers.log(job_id)
        if event.type == "health" and event.data["code"] == "dead_units"
    ]
    assert [(data["state"], data["epoch"]) for data in health_events] == [("found", 3)]
    assert [data for data in job.health if data["code"] == "dead_units"] == [
        data for data in sqlite_workers.job(undisturbed_id).health if data["code"] == "dead_units"
    ]
