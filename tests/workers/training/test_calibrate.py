"""The calibration of a machine: real steps, timed once by a child process of a worker."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete

from service.jobs.estimation import calibrations
from service.spec.estimation import work
from service.storage.machine_tables import Calibration
from tests.waiting import wait_until
from tests.workers.conftest import WorkerHarness
from workers.supervisor.supervisor import Supervisor
from workers.training import calibrate


@pytest.fixture
def workers(workers: WorkerHarness) -> WorkerHarness:
    """Workers on a machine that has not been calibrated yet."""
    with workers.database.write() as session:
        session.execute(delete(Calibration))
    return workers


FACTOR_NAMES = {*work.GROUPS, work.CONTENTION}


def test_a_measurement_has_a_factor_for_each_kind_of_work() -> None:
    factors = calibrate.measure()
    assert set(factors) == FACTOR_NAMES
    assert all(0 < factor < 1000 for factor in factors.values())
    assert factors[work.CONTENTION] >= 1


@given(st.lists(st.floats(0.4, 2.5), min_size=4, max_size=4), st.floats(0.1, 20))
def test_factors_are_fitted_to_training_times(ratios: list[float], scale: float) -> None:
    expected = np.array([[1.2, 0, 1.6, 0.1], [0.02, 1.2, 1.7, 0.1], [0.01, 0, 1.1, 0.1], [0, 0, 0.05, 0.3]]) / 1000
    factors = scale * np.array(ratios)
    fitted = np.array(calibrate._fit_factors(expected, expected @ factors))
    assert (fitted > 0).all()
    # The regularization pulls each factor slightly towards a common one.
    np.testing.assert_allclose(expected @ fitted, expected @ factors, rtol=0.5)


@pytest.mark.slow
def test_a_worker_calibrates_its_machine_and_the_next_one_reuses_that(workers: WorkerHarness) -> None:
    def measured() -> dict[str, float] | None:
        with workers.database.read() as session:
            return calibrations.factors(session)

    first = Supervisor(workers.settings, workers.database)
    first.start()
    wait_until(lambda: measured() is not None, "its measurement", timeout_s=60)
    first.close()
    assert set(measured() or ()) == FACTOR_NAMES
    assert calibrations.is_fresh(workers.database, socket.gethostname())

    calibrations.store(workers.database, socket.gethostname(), {"dense": 7.0})
    second = Supervisor(workers.settings, workers.database)
    second._calibrate()
    second.close()
    assert measured() == {"dense": 7.0}


def test_a_worker_that_cannot_calibrate_still_starts(workers: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(workers.settings, workers.database)
    monkeypatch.setattr(supervisor._children, "_start_child", lambda: None)
    supervisor._start_children()
    supervisor.close()
    with workers.database.read() as session:
        assert calibrations.factors(session) is None
