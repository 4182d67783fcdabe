"""Lose everything and restore it: ``make drill``. Measures recovery time and data loss.

It runs real processes on PostgreSQL: jobs are trained, a backup is made while others run, and more jobs are
trained. Then all processes are killed, and the database and all files are deleted. The backup is restored into
an empty database and an empty folder, and the service is started. The drill ends once every restored job has
ended. It fails if the results of a job differ from those before, or from those of an undisturbed job.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from sqlalchemy import select

from service.states import TERMINAL, Status
from service.storage.database import Database
from service.storage.tables import Job
from tests.conftest import create_database, serve_postgres

SMALL: dict[str, Any] = {"kind": "classifier", "epochs": 10, "checkpoint": {"keep_last": 10}}
"""A job that ends before the loss; all of its checkpoints are kept, 2.5 MB each."""
LONG: dict[str, Any] = {"kind": "classifier", "seed": 99}
"""A job that is unfinished at the backup and at the loss."""
POLL_INTERVAL_S = 0.1
"""Faster polling would slow down what is measured."""
MARGIN_EPOCHS = 3
"""Epochs that each long job must complete before the backup, and again after it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The measurements of a drill."""

    jobs: int
    rows: int
    files: int
    size_bytes: int
    backup_s: float
    age_s: float
    """From the start of the backup to the loss; the RPO is the maximum of this time."""
    lost_jobs: int
    lost_epochs: int
    restore_s: float
    ready_s: float
    continued_s: float
    same_digests: int
    resumed: int

    def table(self) -> str:
        """The outcome as Markdown."""
        lines = [
            ("jobs, rows and files in the backup", f"{self.jobs}, {self.rows}, {self.files}"),
            ("size of the files", f"{self.size_bytes / 1e6:.0f} MB"),
            ("backup, while jobs run", f"{self.backup_s:.1f} s"),
            ("age of the backup at the loss", f"{self.age_s:.1f} s"),
            ("lost: jobs accepted since the backup", str(self.lost_jobs)),
            ("lost: epochs trained since the backup", str(self.lost_epochs)),
            ("restore (`tapeline restore`)", f"{self.restore_s:.1f} s"),
            ("then, until `/readyz` reports ready", f"{self.ready_s:.1f} s"),
            ("then, until an interrupted job has its next epoch", f"{self.continued_s:.1f} s"),
            ("recovery time in total", f"{self.restore_s + self.ready_s + self.continued_s:.1f} s"),
            ("ended jobs with the same digest as before", str(self.same_digests)),
            ("interrupted jobs with the digest of an undisturbed one", str(self.resumed)),
        ]
        return "\n".join(["| quantity | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in lines)])


class Site:
    """One machine: a database, a state folder, and the service that uses them."""

    def __init__(self, folder: Path, database_url: str) -> None:
        folder.mkdir()
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.folder, self.database_url = folder, database_url
        self.environ = os.environ | {
            "TAPELINE_HOME": str(folder),
            "TAPELINE_DATABASE_URL": database_url,
            "TAPELINE_PORT": str(port),
            "TAPELINE_WORKERS": "2",
        }
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
        self._stack: subprocess.Popen[bytes] | None = None

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run a `tapeline` command, and return the JSON that it writes to standard error."""
        command = [sys.executable, "-m", "tapeline", *arguments, "--json"]
        completed = subprocess.run(command, env=self.environ, capture_output=True, text=True, check=False)
        assert completed.returncode == 0, completed.stdout + completed.stderr
        report: dict[str, Any] = json.loads(completed.stderr)
        return report

    def start(self) -> None:
        """Run `tapeline up`, and wait until it is ready: a worker is alive."""
        with (self.folder / "up.log").open("wb") as log:
            command = [sys.executable, "-m", "tapeline", "up"]
            self._stack = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log)

        def is_ready() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return bool(self.http.get("/readyz").json()["status"] == "ready")
            return False

        until(is_ready, "the service", 60)

    def kill(self) -> None:
        """Kill every process at once."""
        if self._stack is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._stack.pid)
            processes = [root, *root.children(recursive=True)]
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()  # otherwise, the others would notice the first deaths
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=20)
        self._stack.wait(20)
        self._stack = None
        self.http.close()

    @contextlib.contextmanager
    def stopped_trainings(self) -> Iterator[None]:
        """Training processes stand still: a job does not end meanwhile, however busy the machine is."""
        assert self._stack is not None
        (worker,) = [
            process for process in psutil.Process(self._stack.pid).children() if process.cmdline()[-1] == "workers"
        ]
        trainings = worker.children(recursive=True)
        for process in trainings:
            process.suspend()
        yield
        for process in trainings:
            process.resume()

    def submit(self, **spec: Any) -> str:
        return str(self.http.post("/jobs", json=spec).raise_for_status().json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        document: dict[str, Any] = self.http.get(f"/jobs/{job_id}").raise_for_status().json()
        return document

    def has_ended(self, job_id: str) -> bool:
        return self.job(job_id)["status"] in TERMINAL

    def until_end(self, *job_ids: str) -> None:
        for job_id in job_ids:
            until(partial(self.has_ended, job_id), f"the end of {job_id}", 600)
            assert self.job(job_id)["status"] == "succeeded", self.job(job_id)

    def states(self) -> dict[str, tuple[Status, int, str | None]]:
        """Read the status, epoch and digest of every job from the database."""
        with closing(Database(self.database_url)) as database, database.read() as session:
            rows = session.scalars(select(Job)).all()
            return {row.id: (Status(row.status), row.epoch, row.result_digest) for row in rows}


def until(condition: Callable[[], object], what: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for: {what}"
        time.sleep(POLL_INTERVAL_S)


def drill(folder: Path, server: str, *, jobs: int, later: int, epochs: int) -> Outcome:
    """Lose everything, and restore it.

    Args:
        server: folder of a PostgreSQL server's socket.
        jobs: number of jobs that end before the backup.
        later: number of jobs that end after it, and are lost.
        epochs: epochs of the long jobs; with too few, they end before the loss.
    """
    long_spec = LONG | {"epochs": epochs}
    archive = folder / "tapeline.tar"
    old_url = create_database(server)
    old = Site(folder / "old", old_url)
    new = None
    try:
        old.start()
        reference_id = old.submit(**long_spec)
        old.until_end(reference_id)
        reference_digest = old.job(reference_id)["result_digest"]
        old.until_end(*[old.submit(**SMALL, seed=number) for number in range(jobs)])
        long_ids = [old.submit(**long_spec) for _ in range(2)]
        until(
            lambda: min(old.job(job_id)["progress"]["epoch"] for job_id in long_ids) >= MARGIN_EPOCHS, "long jobs", 120
        )

        started = time.monotonic()
        with old.stopped_trainings():
            report = old.run("backup", str(archive))
            backup_s = time.monotonic() - started
            for job_id in long_ids:
                old.http.post(f"/jobs/{job_id}/pause").raise_for_status()  # to free their slots for the later jobs
        lost_ids = [old.submit(**SMALL, seed=jobs + number) for number in range(later)]
        old.until_end(*lost_ids)
        for job_id in long_ids:
            old.http.post(f"/jobs/{job_id}/resume").raise_for_status()
        goals = {job_id: old.job(job_id)["progress"]["epoch"] + MARGIN_EPOCHS for job_id in long_ids}
        until(
            lambda: all(old.job(job_id)["progress"]["epoch"] >= goals[job_id] for job_id in long_ids), "long jobs", 120
        )
        old.kill()
        age_s = time.monotonic() - started
        states_before = old.states()
        with psycopg.connect(f"user=postgres dbname=postgres host={server}", autocommit=True) as connection:
            name = old_url.partition("@/")[2].partition("?")[0]
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        shutil.rmtree(old.folder)

        new = Site(folder / "new", create_database(server))
        started = time.monotonic()
        new.run("restore", str(archive))
        restored_at = time.monotonic()
        states_after = new.states()
        new.start()
        ready_at = time.monotonic()
        until(
            lambda: any(new.job(job_id)["progress"]["epoch"] > states_after[job_id][1] for job_id in long_ids),
            "an epoch",
            120,
        )
        continued_at = time.monotonic()
        new.until_end(*long_ids)

        assert set(states_after) == set(states_before) - set(lost_ids), "exactly the jobs of the backup are there"
        ended = [job_id for job_id, (status, _, _) in states_after.items() if status in TERMINAL]
        assert [job_id for job_id in ended if new.job(job_id)["result_digest"] != states_before[job_id][2]] == []
        resumed = [job_id for job_id in long_ids if new.job(job_id)["result_digest"] == reference_digest]
        assert resumed == long_ids, "an interrupted job ended with other results"
        new.run("backup", str(folder / "again.tar"))  # verifies the digest of every file
        return Outcome(
            jobs=report["rows"]["jobs"],
            rows=sum(report["rows"].values()),
            files=report["files"],
            size_bytes=report["size_bytes"],
            backup_s=backup_s,
            age_s=age_s,
            lost_jobs=len(states_before) - len(states_after),
            lost_epochs=sum(
                epoch - states_after.get(job_id, (0, 0, 0))[1] for job_id, (_, epoch, _) in states_before.items()
            ),
            restore_s=restored_at - started,
            ready_s=ready_at - restored_at,
            continued_s=continued_at - ready_at,
            same_digests=len(ended),
            resumed=len(resumed),
        )
    finally:
        for site in (old, new):
            if site is not None:
                site.kill()


def main() -> int:
    """Run one drill, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20, help="ended jobs in the backup, some 25 MB each")
    parser.add_argument("--later", type=int, default=4, help="jobs that are accepted after it")
    parser.add_argument("--epochs", type=int, default=120, help="epochs of the two jobs that are interrupted")
    options = parser.parse_args()
    with serve_postgres() as server, tempfile.TemporaryDirectory(prefix="tapeline-drill-") as folder:
        print(drill(Path(folder), server, jobs=options.jobs, later=options.later, epochs=options.epochs).table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
