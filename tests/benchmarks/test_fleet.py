"""The simulated fleet ends without a defect, and its checks find each kind of defect."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from benchmarks.fleet.checks import count_defects
from benchmarks.fleet.job_data import submit_jobs
from benchmarks.fleet.measuring import Recorder, percentile_ms
from benchmarks.fleet.worker_operations import Fleet, WorkerOperations
from service.maintenance import store_id
from service.storage.database import Database
from service.storage.stores import ArtifactFolder

ROOT = Path(__file__).parents[2]
SECOND = "type = 'metrics' AND (data ->> 'epoch')::integer = 2"
BROKEN = {
    "DELETE FROM epochs WHERE epoch = 2": {
        "jobs without exactly their epochs",
        "epochs without exactly one event",
        "epochs acknowledged but not stored",
    },
    f"DELETE FROM events WHERE {SECOND}": {"epochs without exactly one event", "jobs with gaps in their events"},
    f"UPDATE events SET created_ms = 0 WHERE {SECOND}": {"events out of order"},
    "UPDATE jobs SET lease = 2 WHERE status = 'succeeded'": {
        "jobs claimed twice",
        "jobs without one event of each claim and of the end",
    },
    "UPDATE jobs SET deaths = 1 WHERE status = 'succeeded'": {"jobs of lost workers"},
    "UPDATE jobs SET epoch = 1 WHERE status = 'queued'": {"queued jobs with traces of a claim"},
    "UPDATE owner_queue SET running = running + 1": {"owners with wrong counters"},
    "DELETE FROM jobs WHERE status = 'succeeded'": {
        "epochs acknowledged but not stored",
        "results acknowledged but not stored",
    },
}


@pytest.mark.nightly
def test_a_small_fleet_loses_and_doubles_nothing(tmp_path: Path) -> None:
    options = ["--workers", "4", "--seconds", "3", "--epoch-seconds", "0.5", "--epochs", "2"]
    figures = tmp_path / "fleet.json"
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.fleet", *options, "--json", str(figures)]
    completed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert completed.returncode == 0, completed.stdout
    (row,) = json.loads(figures.read_text())
    assert row["defects"] == {}
    assert row["errors"] == 0
    assert row["jobs_ended"] >= 8  # each slot has ended at least one, however slow the machine is
    assert {"heartbeat", "renewal or poll"} <= set(row["operations"])
    assert row["server"]["connections"]["tapeline-worker"] == 4


def test_checks_find_what_is_lost_doubled_or_out_of_order(private_postgres_url: str, tmp_path: Path) -> None:
    with closing(Database(private_postgres_url)) as database:
        store_id.verify(database, ArtifactFolder(tmp_path))
        submit_jobs(database, 3, epochs=2, owners=2)
        known = [
            _run_one_job(
                Fleet(
                    url=private_postgres_url,
                    store=str(tmp_path),
                    datasets=["mnist-10k"],
                    provenance={},
                    slots=1,
                    lease_s=30,
                    epochs=2,
                )
            )
        ]
        assert _defects_after(database, "SELECT 1", known) == set()
        for statement, expected in BROKEN.items():
            assert _defects_after(database, statement, known) == expected, statement


def _run_one_job(fleet: Fleet) -> dict[str, Any]:
    """Train a job, and return what its worker knows."""
    worker = WorkerOperations(fleet, 1, Recorder())
    claim = worker.claim()
    assert claim is not None
    assert worker.begin(claim) == 0
    for epoch in (1, 2):
        worker.commit_epochs(claim, [worker.epoch_record(claim, epoch)])
    worker.succeed(claim)
    worker.close()
    return {"epochs": [(claim.job_id, 1), (claim.job_id, 2)], "ended": [claim.job_id], "lost": [], "unfinished": 0}


def _defects_after(database: Database, statement: str, known: list[dict[str, Any]]) -> set[str]:
    """The names of the defects after a statement, which is rolled back."""
    with Session(database.engine) as session:
        session.execute(text(statement))
        return set(count_defects(session, known))


def test_a_percentile_is_a_measured_value() -> None:
    assert percentile_ms([0.001 * number for number in range(1, 101)], 99) == 99
    assert percentile_ms([], 50) == 0
