"""Estimates of training time: computed, and from similar finished jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs import epoch_commits, leases
from service.jobs.queries.estimates import Estimate, TrainingCost, _spread, plan
from service.schema.layer_shapes import Shape
from service.spec.estimation.networks import networks
from service.spec.validation import resolve
from service.storage.database import Database

DIGITS = Shape(rows=28, columns=28, classes=10, train_count=8500, validation_count=1500)
SPEC = {"kind": "classifier", "epochs": 4, "batch_size": 850}
CONV = {"kind": "classifier", "preset": "conv", "epochs": 4}
Submit = Callable[..., str]


@pytest.fixture
def finish(database: Database, submit: Submit) -> Callable[..., None]:
    """Return a function that stores a job of four epochs and completes it."""

    def finish(
        seconds_per_epoch: float, *, owner: str | None = None, cpu_seconds: float | None = None, **spec: Any
    ) -> None:
        submit(owner, **spec)
        held = leases.claim(database, "w", 30)
        assert held is not None
        for epoch in range(1, 5):
            position = leases.Position(step=10 * epoch, steps=40)
            epoch_record = epoch_commits.EpochRecord(
                epoch=epoch, position=position, metrics={}, confusion=None, samples_digest=None,
                seconds=seconds_per_epoch, cpu_seconds=cpu_seconds, is_best=False, files=(),
            )  # fmt: skip
            epoch_commits.commit(database, held, [epoch_record], keep_last=1)
        epoch_commits.succeed(database, held, "sha256:x")

    return finish


def estimated(database: Database, document: dict[str, Any], owner: str | None = None) -> Estimate:
    return planned(database, document, owner).estimate


def planned(database: Database, document: dict[str, Any], owner: str | None = None) -> TrainingCost:
    spec = resolve(document)
    with database.read() as session:
        return plan(session, spec, networks(spec, DIGITS), DIGITS, owner=owner)


def test_before_a_similar_job_the_estimate_is_computed_and_has_no_range(database: Database) -> None:
    cost = planned(database, SPEC)
    assert (cost.parameters, cost.steps) == (311_650, 40)
    assert cost.checkpoint_bytes == 2 * 4 * 311_650  # weights and velocities
    assert (cost.estimate.low_s, cost.estimate.high_s, cost.estimate.basis) == (None, None, "number of operations")
    assert 0 < cost.estimate.seconds < estimated(database, SPEC | {"epochs": 40}).seconds
    assert estimated(database, CONV).seconds > 4 * cost.estimate.seconds


def test_similar_jobs_determine_the_estimate(database: Database, finish: Callable[..., None]) -> None:
    finish(2.0, batch_size=850)
    estimate = estimated(database, SPEC)
    assert estimate.basis == "1 similar job"
    assert estimate.seconds == pytest.approx(8, rel=0.05)
    assert estimate.low_s is not None
    assert estimate.high_s is not None
    assert estimate.low_s < 8 < estimate.high_s
    assert 12 < estimated(database, SPEC | {"epochs": 8}).seconds < 17
    finish(3.0, batch_size=850)
    finish(50.0, batch_size=850)  # an outlier
    estimate = estimated(database, SPEC)
    assert estimate.basis == "3 similar jobs"
    assert estimate.seconds == pytest.approx(12, rel=0.05)


def test_jobs_of_another_network_or_dataset_are_not_similar(database: Database, finish: Callable[..., None]) -> None:
    finish(2.0, batch_size=850)
    finish(2.0, batch_size=850, dataset={"name": "iris"})
    assert estimated(database, SPEC).basis == "1 similar job"
    assert estimated(database, CONV).basis == "number of operations"
    wide = [{"units": 4000, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    assert estimated(database, SPEC | {"layers": wide}).basis == "number of operations"


def test_a_busy_machine_is_noticed_by_the_cpu_time_of_similar_jobs(
    database: Database, finish: Callable[..., None]
) -> None:
    finish(2.0, batch_size=850, cpu_seconds=0.5)
    estimate = estimated(database, SPEC)
    assert estimate.seconds == pytest.approx(8, rel=0.05)
    assert estimate.slowdown == pytest.approx(4)


def test_an_estimate_ignores_jobs_of_other_owners(database: Database, finish: Callable[..., None]) -> None:
    finish(2.0, batch_size=850, owner="ann")
    assert estimated(database, SPEC, "bob").low_s is None
    assert estimated(database, SPEC, "ann").basis == "1 similar job"
    finish(20.0, batch_size=850, owner="bob")
    assert estimated(database, SPEC, "ann").seconds == pytest.approx(8, rel=0.05)
    assert estimated(database, SPEC).basis == "2 similar jobs"


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=12))
def test_the_middle_of_a_spread_lies_within_its_range_of_at_most_a_factor_of_three(ratios: list[float]) -> None:
    low, middle, high = _spread(ratios)
    assert low < middle < high <= 3.001 * low
