"""A worker needs one connection to PostgreSQL, whose number is limited, however many jobs it trains."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.faults.harness import FaultHarness

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(400)]

JOBS = 4


def test_a_worker_holds_one_connection_for_all_of_its_jobs(harness: FaultHarness) -> None:
    harness.start(TAPELINE_WORKERS=str(JOBS))
    count = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name LIKE 'tapeline-%' AND datname = current_database()"
    )
    with harness.database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for _ in range(JOBS):
            harness.arm("batch_done.2", "hang")
            harness.submit()
            harness.until_reached("batch_done.2")
            assert connection.scalar(count) == 1
    running = [job for job in map(harness.job, harness.accepted) if job.status == "running"]
    assert len(running) == JOBS
