"""The logs of workers: lines of JSON, each with its job and attempt."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.workers.conftest import children_of, on_migrated


@pytest.mark.slow
def test_lines_about_a_job_name_it_its_lease_and_its_attempt(sqlite_url: str, tmp_path: Path) -> None:
    with on_migrated(sqlite_url, tmp_path / "home") as workers:
        job_id = workers.submit(epochs=4)
        worker = workers.start()
        workers.until(job_id, lambda job: job.epoch >= 1)
        for child in children_of(worker.pid):
            os.kill(child, signal.SIGKILL)
        workers.until_end(job_id)
    written = (workers.home / "workers.log").read_text().splitlines()
    # Celery says this by itself, in a signal handler that no logger reaches.
    lines = [json.loads(line) for line in written if line not in ("", "worker: Warm shutdown (MainProcess)")]
    mine = [line for line in lines if line.get("job") == job_id]
    attempts = sorted({(line["lease"], line["attempt"]) for line in mine})
    # A claim for which no child could be started at once is given back: another lease, but the same attempt.
    assert attempts == [(1, 1), *((lease, 2) for lease in range(2, len(attempts) + 1))]
    assert len(attempts) > 1
    assert {line["process"] for line in mine} == {"worker", "child"}
    assert all(line["timestamp"] and line["level"] for line in lines)
