r"""The previous release and this code use one database: in a rolling upgrade, and after a downgrade.

``releases/0.2.0.tar.xz`` has the packages of that release, of commit f4985572, without the large data sets::

    git archive f4985572 service tapeline engine migrations workers | tar x -C TREE
    tar cJf releases/0.2.0.tar.xz -C TREE --exclude=service/data/mnist-10k --exclude=service/data/reference-classifier \
        service tapeline engine migrations workers
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, Text, cast, func, select

from migrations.upgrade import downgrade
from service.errors import SettingsError
from service.storage.database import Database
from service.storage.tables import Base, Job
from service.web.app import create_app
from tests.migrations.make_state import NETWORK, SPEC, OldService, multipart, use
from tests.migrations.test_states import State
from tests.service.web.apps import shut_down_app
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
RELEASE, REVISION = "0.2.0", "0023"
VANISHING = {
    "epochs": 6,
    "layers": [{"units": 4, "activation": "sigmoid"}] * 7 + NETWORK["layers"][-1:],
    "initializer": {"name": "uniform", "scale": 1e-6},
    "optimizer": {"name": "sgd", "learning_rate": 1e-4},
    "early_stopping": {"metric": "val_loss", "patience": 4, "min_delta": 1.0},
}
PARTS = ("train", "train", "validation", "test")
LEAKING = "height,copy,part,kind\n" + "".join(
    f"{n % 7}.5,{n % 2},{PARTS[n // 2 % 4]},{'ab'[n % 2]}\n" for n in range(160)
)
NOT_FILLED = {
    "jobs.investigation",  # of jobs whose results differ, which is what must not happen
    "workers.blocked",  # set by a full disk or memory, or a failed store
    "workers.datasets",  # only with folders of the operator
    "sweeps.error",  # of a sweep whose trials fail
    "sweep_trials.error",
    "idempotency.answer",  # the web process that got a key answers it; of another release, the client sends another one
    "owners.further_limits",  # of limits that are newer than their column
    "calibrations.factors",  # of estimates of machines, in their own time
}


@dataclass
class Shared:
    """A database that this code has filled, and the tree of the previous release."""

    service: OldService
    tree: Path

    @property
    def state(self) -> State:
        return State(self.service.home, self.service.database_url, "")

    def read_as_release(self) -> dict[str, Any]:
        """What the web application of the release reads, and the job that it submits."""
        environ = self.state.settings.to_env()
        known = {"HOME", "DATABASE_URL", "AUTH"}
        environ = {f"TAPELINE_{name}": environ[f"TAPELINE_{name}"] for name in known}
        spec = SPEC | {"epochs": 2, "name": "submitted by the release"}
        settings = json.dumps({"environ": environ, "key": self.service.keys["ann"], "spec": spec})
        command = [sys.executable, str(Path(__file__).with_name("read_as_release.py")), settings]
        process = subprocess.run(command, env=self.environ(self.tree), capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr[-2000:]
        found: dict[str, Any] = json.loads(process.stdout)
        return found

    def environ(self, tree: Path) -> dict[str, str]:
        return self.service.environ | {"PYTHONPATH": str(tree)}

    @contextmanager
    def worker(self, tree: Path) -> Iterator[None]:
        """A worker of a tree; its broker does not exist, so it looks for jobs in the database."""
        environ = self.environ(tree) | {"TAPELINE_BROKER_URL": "redis://127.0.0.1:1/0"}
        command = [sys.executable, "-m", "workers"]
        process = subprocess.Popen(command, env=environ, cwd=tree, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def shared(tmp_path: Path, postgres_url: str) -> Iterator[Shared]:
    tree = tmp_path / RELEASE
    with tarfile.open(Path(__file__).parent / "releases" / f"{RELEASE}.tar.xz") as archive:
        archive.extractall(tree, filter="data")
    home = tmp_path / "home"
    home.mkdir()
    service = OldService(ROOT, home, postgres_url)
    service.start()
    try:
        jobs = use(service)
        form = multipart({"name": "leaking", "target": "kind", "split": "part"}, "table", LEAKING.encode())
        service.ask("POST", "/datasets", form=form)
        layers = [NETWORK["layers"][0], {"units": 2, "activation": "softmax"}]
        leaking = SPEC | {"dataset": {"name": "leaking"}, "epochs": 2, "layers": layers}
        ids = [
            service.submit(**VANISHING, budget={"seconds": 3600}),
            service.ask("POST", "/jobs", leaking)["id"],
        ]
        service.ask("POST", f"/jobs/{jobs['running']}/cancel")
        for job_id in ids:
            service.until_status(job_id, "succeeded")
        yield Shared(service, tree)
    finally:
        service.kill()


@pytest.mark.stack
def test_the_previous_release_reads_what_this_code_wrote_and_each_trains_the_jobs_of_the_other(shared: Shared) -> None:
    shared.service.kill()
    with closing(Database(shared.service.database_url)) as database:
        assert empty_columns(database) <= NOT_FILLED, "what nothing wrote was not read either"
        findings = [
            finding
            for health in database.query(lambda session: session.scalars(select(Job.health)).all())
            for finding in health
        ]
        assert {"vanishing_gradient", "leak"} <= {finding["code"] for finding in findings}

    read = shared.read_as_release()
    assert len(read["found"]) > 200
    assert {path: answer for path, answer in read["found"].items() if answer[0] >= 500} == {}

    app = create_app(shared.state.settings)
    client, bearer = app.test_client(), {"Authorization": f"Bearer {shared.service.keys['ann']}"}
    try:
        with shared.worker(ROOT):
            wait_until(lambda: status_of(client, bearer, read["submitted"]["id"]) == "succeeded", "its job", 60)
        submitted = client.post("/jobs", json=SPEC | VANISHING | {"seed": 5}, headers=bearer).json["id"]
        with shared.worker(shared.tree):
            wait_until(lambda: status_of(client, bearer, submitted) == "succeeded", "a job of this code", 60)
        found = client.get("/jobs?limit=100", headers=bearer).json["data"]
        (trained,) = [job for job in found if job["id"] == submitted]
        assert trained["health"][0]["advice"][0]["reason"]
        assert "What to try" in client.get(f"/ui/jobs/{submitted}", headers=bearer).text
    finally:
        shut_down_app(app)


def status_of(client: Any, bearer: dict[str, str], job_id: str) -> str:
    status: str = client.get(f"/jobs/{job_id}", headers=bearer).json["status"]
    assert status != "failed", client.get(f"/jobs/{job_id}", headers=bearer).text
    return status


def empty_columns(database: Database) -> set[str]:
    """JSON columns of the previous release's tables without any content."""
    found = set()
    tables = {"webhooks", "webhook_deliveries", "model_aliases", "model_moves"}  # not of that release
    with database.read() as session:
        for table in Base.metadata.sorted_tables:
            for column in table.columns if table.name not in tables else ():
                if not isinstance(column.type, JSON) and not isinstance(getattr(column.type, "impl", None), JSON):
                    continue
                filled = cast(column, Text).not_in(["null", "[]", "{}"])
                if not session.scalar(select(func.count()).select_from(table).where(filled)):
                    found.add(f"{table.name}.{column.name}")
    return found


JOB = """INSERT INTO jobs (id, kind, tags, priority, spec, resolved, spec_hash, status, attempt, deaths, lease, epoch,
    epochs, step, steps, metrics, health, last_seq, created_ms, queued_ms)
    VALUES ('{0}', '{0}', '[]', 5, '{{}}', '{{}}', '', 'paused', 1, 0, 1, 0, 1, 0, 1, '{{}}', '[]', 0, 1, 1)"""
EVENT = "INSERT INTO events (job_id, seq, type, data, created_ms) VALUES ('{0}', 1, 'status', '{{}}', 1)"


def test_a_downgrade_to_the_previous_release_leaves_no_job_of_a_kind_that_it_cannot_read(private_url: str) -> None:
    with closing(Database(private_url)) as database:
        with database.engine.begin() as connection:
            for kind in ("gan", "regressor"):
                connection.exec_driver_sql(JOB.format(kind))
                connection.exec_driver_sql(EVENT.format(kind))
        for _ in range(2):
            with pytest.raises(SettingsError, match=r"1 jobs, such as regressor, .*--delete-newer-kinds"):
                downgrade(database, REVISION)
        downgrade(database, REVISION, delete_newer_kinds=True)
        with database.engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT id FROM jobs").scalars().all() == ["gan"]
            assert connection.exec_driver_sql("SELECT job_id FROM events").scalars().all() == ["gan"]
