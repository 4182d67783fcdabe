"""Running jobs hold no connections to PostgreSQL, whose number is limited."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.faults.harness import FaultHarness
from tests.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

JOBS = 4


@pytest.mark.parametrize("harness", ["postgresql"], indirect=True)
def test_a_job_that_trains_holds_no_connection_and_its_worker_few(harness: FaultHarness) -> None:
    harness.start(TAPELINE_WORKERS=str(JOBS))
    for _ in range(JOBS):
        harness.arm("batch_done.2", "hang")
        harness.submit()
        harness.until_reached("batch_done.2")
    count = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
    engine = harness.database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        wait_until(
            lambda: connection.scalar(count, {"name": "tapeline-child"}) == 0, "the connections of children to close"
        )
        assert connection.scalar(count, {"name": "tapeline-worker"}) <= 4
    running = [job for job in map(harness.job, harness.accepted) if job.status == "running"]
    assert len(running) == JOBS
