"""Worker logs are JSON lines, and those about a job name it and its attempt."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import update

from service.storage.tables import Job
from tests.workers.conftest import children_of, open_migrated_harness


@pytest.mark.nightly
def test_log_lines_about_a_job_have_its_id_lease_and_attempt(sqlite_url: str, tmp_path: Path) -> None:
    with open_migrated_harness(sqlite_url, tmp_path / "home") as workers:
        job_id = workers.submit(epochs=4)
        with workers.database.write() as session:
            session.execute(update(Job).values(request_id="req_from_the_page"))
        worker = workers.start()
        workers.until(job_id, lambda job: job.epoch >= 1)
        for child in children_of(worker.pid):
            os.kill(child, signal.SIGKILL)
        workers.until_end(job_id)
    raw_lines = (workers.home / "workers.log").read_text().splitlines()
    # Celery prints this line itself, in a signal handler that bypasses the loggers.
    lines = [json.loads(line) for line in raw_lines if line not in ("", "worker: Warm shutdown (MainProcess)")]
    job_lines = [line for line in lines if line.get("job") == job_id]
    attempts = sorted({(line["lease"], line["attempt"]) for line in job_lines})
    # A claim is released if no child can be started at once: the lease is new then, the attempt is the same.
    assert attempts == [(1, 1), *((lease, 2) for lease in range(2, len(attempts) + 1))]
    assert len(attempts) > 1
    assert {line["process"] for line in job_lines} == {"worker", "child"}
    assert {line["request_id"] for line in job_lines} == {"req_from_the_page"}
    assert all(line["timestamp"] and line["level"] for line in lines)
