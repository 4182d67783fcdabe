"""Estimates of training time: from a calibration, and from similar finished jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from service.datasets import uploads
from service.jobs import commits, leases, worker_registry
from service.jobs.estimation import calibrations
from service.jobs.estimation.estimates import _spread, plan
from service.spec.estimation import work
from service.spec.estimation.layer_shapes import Shape
from service.spec.validation import resolve
from service.storage.database import Database
from service.storage.machine_tables import Calibration, Worker
from service.storage.tables import Upload

DIGITS = Shape(rows=28, columns=28, classes=10, train_count=8500, validation_count=1500)
SPEC = {"kind": "classifier", "epochs": 4, "batch_size": 850}
CONV = {"kind": "classifier", "preset": "conv", "epochs": 4}
Submit = Callable[..., str]


@pytest.fixture
def finish(database: Database, submit: Submit) -> Callable[..., None]:
    """Return a function that stores a job of four epochs and completes it."""

    def finish(seconds_per_epoch: float, *, owner: str | None = None, **spec: Any) -> None:
        submit(owner, **spec)
        held = leases.claim(database, "w", 30)
        assert held is not None
        for epoch in range(1, 5):
            position = leases.Position(step=10 * epoch, steps=40)
            epoch_record = commits.EpochRecord(
                epoch=epoch, position=position, metrics={}, confusion=None, samples_digest=None,
                seconds=seconds_per_epoch, is_best=False, files=(),
            )  # fmt: skip
            commits.commit_epoch(database, held, epoch_record, keep_last=1)
        commits.succeed(database, held, "sha256:x")

    return finish


def calibrate(database: Database, factor: float = 1.0, *, contention: float = 1.0, host: str = "here") -> None:
    calibrations.store(database, host, dict.fromkeys(work.GROUPS, factor) | {work.CONTENTION: contention})


def estimated(database: Database, document: dict[str, Any], owner: str | None = None) -> Any:
    with database.read() as session:
        return plan(session, resolve(document), DIGITS, owner=owner).estimate


def test_without_a_measurement_there_is_no_estimate(database: Database) -> None:
    with database.read() as session:
        training_plan = plan(session, resolve(SPEC), DIGITS)
    assert (training_plan.estimate, training_plan.estimated_seconds) == (None, None)
    assert (training_plan.parameters, training_plan.steps) == (311_650, 40)
    assert training_plan.checkpoint_bytes == 2 * 4 * 311_650  # weights and velocities


def test_a_calibration_is_enough_for_an_estimate(database: Database) -> None:
    calibrate(database)
    first = estimated(database, SPEC)
    assert first.basis == "calibration"
    assert first.low_s < first.seconds < first.high_s
    calibrate(database, 3.0)
    assert estimated(database, SPEC).seconds == pytest.approx(3 * first.seconds, rel=0.1)
    assert estimated(database, CONV).seconds > 4 * estimated(database, SPEC).seconds


def test_contention_raises_the_estimate_but_not_its_lower_bound(database: Database) -> None:
    calibrate(database)
    idle = estimated(database, CONV)
    calibrate(database, contention=3.0)
    busy = estimated(database, CONV)
    assert busy.low_s == idle.low_s
    assert busy.seconds == pytest.approx(3 * idle.seconds, rel=0.05)


def test_similar_jobs_correct_the_estimate(database: Database, finish: Callable[..., None]) -> None:
    calibrate(database)
    finish(2.0, batch_size=850)
    estimate = estimated(database, SPEC)
    assert estimate.basis == "1 similar job"
    assert estimate.seconds == pytest.approx(8, rel=0.05)
    assert estimate.low_s < 8 < estimate.high_s
    assert 12 < estimated(database, SPEC | {"epochs": 8}).seconds < 17
    finish(3.0, batch_size=850)
    finish(50.0, batch_size=850)  # an outlier
    estimate = estimated(database, SPEC)
    assert estimate.basis == "3 similar jobs"
    assert estimate.seconds == pytest.approx(12, rel=0.05)


def test_an_estimate_ignores_jobs_of_other_owners(database: Database, finish: Callable[..., None]) -> None:
    finish(2.0, batch_size=850, owner="ann")
    assert estimated(database, SPEC, "bob") is None
    assert estimated(database, SPEC, "ann").basis == "1 similar job"
    finish(20.0, batch_size=850, owner="bob")
    assert estimated(database, SPEC, "ann").seconds == pytest.approx(8, rel=0.05)
    assert estimated(database, SPEC).basis == "2 similar jobs"


def test_dataset_shapes_of_similar_jobs_are_read_in_one_query(database: Database, finish: Callable[..., None]) -> None:
    large = Upload(
        id="upl_1", owner="ann", name="large", image_rows=112, image_columns=112, classes=10, train_count=8500,
        validation_count=1500, sha256="x", size_bytes=1,
    )  # fmt: skip
    uploads.store(database, large)
    for _ in range(5):
        finish(2.0, owner="ann", preset="conv", batch_size=850, dataset={"name": "large"})
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda c, cur, sql, *_: statements.append(sql))
    estimate = estimated(database, CONV | {"batch_size": 850}, "ann")
    assert estimate.basis == "5 similar jobs"
    assert estimate.seconds < 1, "the same layers on images of a sixteenth of the size"
    assert len([sql for sql in statements if "uploads" in sql]) == 1


def test_dissimilar_jobs_are_ignored_if_there_is_a_calibration(database: Database, finish: Callable[..., None]) -> None:
    finish(2.0, batch_size=850)
    assert estimated(database, CONV).basis == "1 similar job"  # better than nothing
    calibrate(database)
    assert estimated(database, CONV).basis == "calibration"


def test_calibrations_of_machines_without_a_worker_are_ignored(database: Database) -> None:
    calibrate(database, 1.0, host="alive")
    calibrate(database, 9.0, host="gone")
    worker = Worker(id="w", host="alive", pid=1, slots=1, running=0, draining=False)
    worker_registry.record_heartbeat(database, worker)
    with database.read() as session:
        assert calibrations.factors(session) == dict.fromkeys((*work.GROUPS, work.CONTENTION), 1.0)


def test_a_calibration_is_fresh_for_a_limited_time(database: Database) -> None:
    assert not calibrations.is_fresh(database, "here")
    calibrate(database)
    assert calibrations.is_fresh(database, "here")
    with database.write() as session:
        row = session.get(Calibration, "here")
        assert row is not None
        row.measured_ms -= calibrations.FRESH_MS + 1
    assert not calibrations.is_fresh(database, "here")


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=12))
def test_the_middle_of_a_spread_lies_within_its_range(ratios: list[float]) -> None:
    low, middle, high = _spread(sorted(ratios))
    assert low < middle < high


def test_work_depends_on_layers_epochs_and_dtype() -> None:
    def layers(filters: int) -> work.Work:
        conv = {"type": "conv2d", "filters": filters, "activation": "relu"}
        output = {"units": 10, "activation": "softmax"}
        return work.count(resolve({**CONV, "layers": [conv, {"type": "flatten"}, output]}), DIGITS)

    assert layers(16).convolution == pytest.approx(2 * layers(8).convolution)
    assert layers(16).dense == pytest.approx(2 * layers(8).dense)
    once, twice = (work.count(resolve(SPEC | {"epochs": epochs}), DIGITS) for epochs in (4, 8))
    assert twice.dense == pytest.approx(2 * once.dense)
    assert (once.epochs, twice.epochs) == (4, 8)
    assert work.count(resolve(SPEC | {"dtype": "float64"}), DIGITS).dense == 2 * once.dense
    generated = work.count(resolve({"kind": "gan"}), DIGITS)
    assert generated.dense > 0
    assert generated.convolution == generated.patches == 0


def test_runs_overlap_if_they_spend_their_time_on_the_same_work() -> None:
    dense, conv = (work.seconds(work.count(resolve(document), DIGITS), {}) for document in (SPEC, CONV))
    assert work.overlap(dense, dense) == pytest.approx(1)
    assert work.overlap(dense, conv) < 0.8
    assert work.overlap(dense, dict.fromkeys(work.GROUPS, 0.0)) == 0
