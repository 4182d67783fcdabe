"""Forks and reproductions, trained by real workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from engine.checkpoint import State
from service.jobs import submissions
from service.jobs.queries import lookup
from service.jobs.submissions import Origin, Submission
from service.spec import validation
from service.spec.estimation import costs
from service.spec.validation import resolve
from service.states import Status
from service.storage import ids
from service.storage.artifacts import ArtifactFolder, ArtifactKind
from service.storage.tables import ExpectedEpoch
from tests.workers.conftest import WorkerHarness
from workers.training.forks import adapt


def state(spec: dict[str, Any], *tensors: str) -> State:
    kept = {"trainer": "x", "epoch": 3, "best_accuracy": 0.9, "best_epoch": 2}
    return State({name: np.zeros(1) for name in tensors}, kept, resolve(spec).model_dump(mode="json"))


SGD = {"kind": "classifier", "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}}
TENSORS = ("layers.0.weight", "optimizer.velocity.0")


@pytest.mark.parametrize(
    ("optimizer", "taken_over"),
    [
        ({"learning_rate": 0.01}, True),
        ({"momentum": 0.5}, True),
        ({"momentum": 0.0}, False),
        ({"name": "adam", "learning_rate": 0.1}, False),
    ],
)
def test_an_optimizer_goes_on_only_where_it_stays_the_same(optimizer: dict[str, Any], taken_over: bool) -> None:
    fork = validation.derive(resolve(SGD).model_dump(mode="json"), {"optimizer": optimizer}, epoch=2)
    made, anew = adapt(state(SGD, *TENSORS), fork)
    assert set(made.tensors) == (set(TENSORS) if taken_over else {"layers.0.weight"})
    assert bool(anew) is not taken_over
    assert made.state == {"trainer": "x", "epoch": 3}, "the best of the parent is not the fork's"


def test_each_network_of_a_gan_has_its_own_optimizer() -> None:
    gan = {"kind": "gan", "optimizer": {"name": "adam"}}
    tensors = ("generator.layers.0.weight", "optimizer.generator.steps", "optimizer.discriminator.steps")
    overrides = {"discriminator": {"optimizer": {"name": "sgd", "learning_rate": 0.1}}}
    fork = validation.derive(resolve(gan).model_dump(mode="json"), overrides, epoch=3)
    made, anew = adapt(state(gan, *tensors), fork)
    assert set(made.tensors) == set(tensors[:2])
    assert anew == ["discriminator"]


def child_of(workers: WorkerHarness, parent_id: str, *, which: str | None = None, **overrides: Any) -> str:
    """A fork from a checkpoint, or a reproduction where none is named."""
    parent, artifacts = workers.job(parent_id), ArtifactFolder(workers.settings.artifacts)
    new_id, start = ids.new_id("job"), None
    spec = validation.read_resolved(parent.resolved)
    if which is not None:
        with workers.database.read() as session:
            row = lookup.checkpoint(session, parent, which)
        start = artifacts.copy(row.path, row.sha256, job_id=new_id, kind=ArtifactKind.CHECKPOINT, epoch=row.epoch)
        spec = validation.derive(parent.resolved, overrides, epoch=row.epoch)
    origin = Origin(parent=parent, start=start, reproduces=which is None)
    submission = Submission(
        id=new_id,
        spec=spec.model_dump(mode="json"),
        resolved=spec,
        steps=costs.total_steps(spec, 8500),
        origin=origin,
    )
    submissions.submit(workers.database, submission, idempotency=None, represent=lambda job: {})
    return new_id


def codes(workers: WorkerHarness, job_id: str) -> list[str]:
    return [event.data["code"] for event in workers.log(job_id) if event.type == "log"]


@pytest.mark.slow
def test_a_fork_that_changes_nothing_ends_as_its_parent_and_a_reproduction_matches(
    running_light: WorkerHarness,
) -> None:
    parent = running_light.submit(epochs=3, checkpoint={"keep_last": 3})
    ended = running_light.until_end(parent)
    fork = child_of(running_light, parent, which="1", seed=0)
    again, other = child_of(running_light, parent), child_of(running_light, parent)
    with running_light.database.write() as session:  # as if the original had given something else
        wrong = update(ExpectedEpoch).where(ExpectedEpoch.job_id == other, ExpectedEpoch.epoch == 2)
        session.execute(wrong.values(samples_digest="sha256:other"))
    with running_light.database.read() as session:
        first = {row.epoch: row for row in lookup.epochs(session, parent)}

    assert running_light.until_end(fork).status == Status.SUCCEEDED
    with running_light.database.read() as session:
        rows = lookup.epochs(session, fork)
    assert [row.epoch for row in rows] == [2, 3]
    # The optimizer's state was kept, or these would be other numbers.
    assert all(
        (row.metrics, row.samples_digest) == (first[row.epoch].metrics, first[row.epoch].samples_digest) for row in rows
    )
    assert codes(running_light, fork) == ["forked"]

    reproduced = running_light.until_end(again)
    assert reproduced.result_digest == ended.result_digest
    assert reproduced.reproduction is not None
    assert reproduced.reproduction["match"] is True
    differing = running_light.until_end(other).reproduction
    assert differing is not None
    assert (differing["match"], differing["first_difference"]) == (False, {"epoch": 2, "differs": ["samples"]})


@pytest.mark.slow
def test_a_fork_whose_beginning_is_damaged_fails_and_does_not_begin_with_nothing(light: WorkerHarness) -> None:
    parent = light.submit(epochs=1)
    light.start()
    light.until_end(parent)
    fork = child_of(light, parent, which="latest", epochs=2)
    with light.database.read() as session:
        (row,) = lookup.artifacts(session, fork)
    path = light.settings.artifacts / row.path
    path.write_bytes(path.read_bytes()[:-100])
    job = light.until_end(fork)
    assert job.error is not None
    assert (job.status, job.error["code"], job.epoch) == (Status.FAILED, "storage", 1)
