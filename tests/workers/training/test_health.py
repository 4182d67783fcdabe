"""Findings of trainings by real workers: in the job, in its log, and as a reason to stop."""

from __future__ import annotations

from typing import Any

import pytest

from service.jobs import actions
from service.jobs.queries import lookup
from service.pictures import grids
from service.states import Action, Status
from service.storage.artifacts import ArtifactFolder
from tests.workers.conftest import WorkerHarness

DYING: dict[str, Any] = {
    "layers": [{"units": 50, "activation": "relu"}, {"units": 10, "activation": "softmax"}],
    "optimizer": {"name": "sgd", "learning_rate": 3.0, "momentum": 0.9},
    "schedule": {"name": "constant"},
    "epochs": 5,
}
"""A learning rate that kills every unit in the first epoch, which is found after the third."""


def codes(job: Any) -> list[str]:
    return [finding["code"] for finding in job.health]


@pytest.mark.slow
def test_the_seeds_gan_is_caught_collapsing_in_its_first_epochs_and_stable_is_not(light: WorkerHarness) -> None:
    seed = light.store({"kind": "gan", "preset": "seed", "epochs": 3})
    stable = light.store({"kind": "gan", "epochs": 3, "health": {"every_epochs": 2}, "samples": {"count": 9}})
    light.start()
    ended = light.until_end(seed), light.until_end(stable)
    assert [job.status for job in ended] == [Status.SUCCEEDED] * 2
    assert "mode_collapse" in codes(ended[0])
    assert ended[0].health[0]["epoch"] == 2
    assert ended[0].health[0]["numbers"]["sample_diversity"] < 0.01
    assert ended[0].metrics["mode_coverage"] == 0.1
    found = [event.data for event in light.log(seed) if event.type == "health"]
    assert (found[0]["code"], found[0]["state"], found[0]["epoch"]) == ("mode_collapse", "found", 2)

    assert codes(ended[1]) == []
    with light.database.read() as session:
        epochs = lookup.epochs(session, stable)
        sample = lookup.sample(session, ended[1], "latest")
    assert ["frechet_distance" in row.metrics for row in epochs] == [False, True, True]  # the second, and the last
    closest = min(epochs[1:], key=lambda row: row.metrics["frechet_distance"])
    assert ended[1].best_epoch == closest.epoch
    assert ended[1].provenance is not None
    assert ended[1].provenance["judge"].startswith("sha256:")
    grid = ArtifactFolder(light.settings.artifacts).read(sample.path, sample.sha256)
    assert len(grids._from_grid(grid)[1].labels) == 9


def test_a_job_stops_where_its_spec_asks_and_can_be_forked(running_light: WorkerHarness) -> None:
    job_id = running_light.submit(**DYING, health={"stop_on": ["dead_units"]}, checkpoint={"every_epochs": 100})
    job = running_light.until_end(job_id)
    assert (job.status, job.epoch) == (Status.FAILED, 3)
    assert job.error is not None
    assert (job.error["code"], job.error["epoch"], job.error["last_good_checkpoint"]) == ("dead_units", 3, 3)
    assert "learning_rate" in job.error["hint"]
    assert codes(job) == ["dead_units"]
    assert Action.FORK in actions.actions_of(job)
    assert Action.RETRY not in actions.actions_of(job)
    with running_light.database.read() as session:
        assert lookup.sample(session, job, "latest").epoch == 3
    types = [event.type for event in running_light.log(job_id)]
    assert types.count("health") == 1
    assert types[-2:] == ["status", "end"]


@pytest.mark.slow
def test_a_training_that_goes_on_elsewhere_finds_what_it_had_found(light: WorkerHarness) -> None:
    undisturbed, job_id = (
        light.submit(**DYING),
        light.submit(**(DYING | {"epochs": 40}), checkpoint={"every_epochs": 3}),
    )
    light.start()
    light.until(job_id, lambda job: job.epoch >= 4)
    actions.pause(light.database, job_id)
    light.until(job_id, lambda job: job.status == Status.PAUSED)
    actions.resume(light.database, job_id)
    light.until(job_id, lambda job: job.lease == 2 and job.epoch >= 8)
    actions.cancel(light.database, job_id)
    job = light.until_end(job_id)
    told = [event.data for event in light.log(job_id) if event.type == "health" and event.data["code"] == "dead_units"]
    assert [(data["state"], data["epoch"]) for data in told] == [("found", 3)]
    assert [data for data in job.health if data["code"] == "dead_units"] == [
        data for data in light.job(undisturbed).health if data["code"] == "dead_units"
    ]
