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
from service.schema import costs
from service.spec import validation
from service.spec.validation import resolve
from service.states import Status
from service.storage import ids
from service.storage.artifacts import ArtifactKind
from service.storage.stores import ArtifactFolder
from service.storage.tables import ExpectedEpoch
from tests.workers.conftest import WorkerHarness
from workers.training.fork_state import adapt


def checkpoint_state(spec: dict[str, Any], *tensors: str) -> State:
    trainer_state = {"trainer": "x", "epoch": 3, "best_accuracy": 0.9, "best_epoch": 2}
    return State({name: np.zeros(1) for name in tensors}, trainer_state, resolve(spec).model_dump(mode="json"))


SGD = {"kind": "classifier", "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}}
TENSORS = ("layers.0.weight", "optimizer.velocity.0")


@pytest.mark.parametrize(
    ("optimizer", "is_kept"),
    [
        ({"learning_rate": 0.01}, True),
        ({"momentum": 0.5}, True),
        ({"momentum": 0.0}, False),
        ({"name": "adam", "learning_rate": 0.1}, False),
    ],
)
def test_a_fork_keeps_the_optimizer_state_only_for_a_compatible_optimizer(
    optimizer: dict[str, Any], is_kept: bool
) -> None:
    fork = validation.derive(resolve(SGD).model_dump(mode="json"), {"optimizer": optimizer}, epoch=2)
    adapted, reset = adapt(checkpoint_state(SGD, *TENSORS), fork)
    assert set(adapted.tensors) == (set(TENSORS) if is_kept else {"layers.0.weight"})
    assert bool(reset) is not is_kept
    assert adapted.state == {"trainer": "x", "epoch": 3}, "the best of the parent is not the fork's"


def test_a_fork_resets_only_the_changed_optimizer_of_a_gan() -> None:
    gan = {"kind": "gan", "optimizer": {"name": "adam"}}
    tensors = ("generator.layers.0.weight", "optimizer.generator.steps", "optimizer.discriminator.steps")
    overrides = {"discriminator": {"optimizer": {"name": "sgd", "learning_rate": 0.1}}}
    fork = validation.derive(resolve(gan).model_dump(mode="json"), overrides, epoch=3)
    adapted, reset = adapt(checkpoint_state(gan, *tensors), fork)
    assert set(adapted.tensors) == set(tensors[:2])
    assert reset == ["discriminator"]


def derive_job(workers: WorkerHarness, parent_id: str, *, which: str | None = None, **overrides: Any) -> str:
    """Submit a fork from a checkpoint, or without one a reproduction, and return its id."""
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
    submissions.submit(workers.database, [submission], idempotency=None, represent=lambda jobs: {})
    return new_id


def log_codes(workers: WorkerHarness, job_id: str) -> list[str]:
    return [event.data["code"] for event in workers.log(job_id) if event.type == "log"]


@pytest.mark.stack
def test_an_unchanged_fork_repeats_its_parent_and_a_reproduction_matches(
    running_on_sqlite: WorkerHarness,
) -> None:
    parent = running_on_sqlite.submit(epochs=3, checkpoint={"keep_last": 3})
    original = running_on_sqlite.until_end(parent)
    fork = derive_job(running_on_sqlite, parent, which="1", seed=0)
    matching, differing = derive_job(running_on_sqlite, parent), derive_job(running_on_sqlite, parent)
    with running_on_sqlite.database.write() as session:  # as if the original had had other samples
        statement = update(ExpectedEpoch).where(ExpectedEpoch.job_id == differing, ExpectedEpoch.epoch == 2)
        session.execute(statement.values(samples_digest="sha256:other"))
    with running_on_sqlite.database.read() as session:
        parent_epochs = {row.epoch: row for row in lookup.epochs(session, parent)}

    assert running_on_sqlite.until_end(fork).status == Status.SUCCEEDED
    with running_on_sqlite.database.read() as session:
        rows = lookup.epochs(session, fork)
    assert [row.epoch for row in rows] == [2, 3]
    # The optimizer's state was restored: otherwise the values would differ.
    assert all(
        (row.metrics, row.samples_digest) == (parent_epochs[row.epoch].metrics, parent_epochs[row.epoch].samples_digest)
        for row in rows
    )
    assert log_codes(running_on_sqlite, fork) == ["forked"]

    reproduced = running_on_sqlite.until_end(matching)
    assert reproduced.result_digest == original.result_digest
    assert reproduced.reproduction is not None
    assert reproduced.reproduction["match"] is True
    comparison = running_on_sqlite.until_end(differing).reproduction
    assert comparison is not None
    assert (comparison["match"], comparison["first_difference"]) == (False, {"epoch": 2, "differs": ["samples"]})


@pytest.mark.stack
def test_a_fork_of_a_damaged_checkpoint_fails_and_does_not_start_from_scratch(sqlite_workers: WorkerHarness) -> None:
    parent = sqlite_workers.submit(epochs=1)
    sqlite_workers.start()
    sqlite_workers.until_end(parent)
    fork = derive_job(sqlite_workers, parent, which="latest", epochs=2)
    with sqlite_workers.database.read() as session:
        (row,) = lookup.artifacts(session, fork)
    path = sqlite_workers.settings.artifacts / row.path
    path.write_bytes(path.read_bytes()[:-100])
    job = sqlite_workers.until_end(fork)
    assert job.error is not None
    assert (job.status, job.error["code"], job.epoch) == (Status.FAILED, "storage", 1)
