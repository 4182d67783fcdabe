"""Workers behind PgBouncer in transaction mode, where each transaction may use another connection of the server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError

from service.storage.database import Database
from tests.faults.harness import FEW, FaultHarness, few_digits
from tests.faults.invariants import Reference
from tests.faults.sweeps.runs import RANDOM, submit, until_end
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed"),
]

SERVER_CONNECTIONS = 3


@pytest.fixture
def pooled_url(private_postgres_url: str) -> Iterator[str]:
    """The URL of a migrated database behind PgBouncer with few connections to the server."""
    url = make_url(private_postgres_url)
    server = Path(str(url.query["host"]))
    owner = server.stat().st_uid  # PgBouncer refuses to run as root, as PostgreSQL does
    folder = Path(tempfile.mkdtemp(prefix="tapeline-pooler-"))
    os.chown(folder, owner, -1)
    (folder / "users.txt").write_text('"postgres" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{url.database} = host={server} dbname={url.database}\n"
        f"[pgbouncer]\nunix_socket_dir = {folder}\nlisten_port = 6432\npool_mode = transaction\n"
        f"default_pool_size = {SERVER_CONNECTIONS}\nauth_type = trust\nauth_file = {folder / 'users.txt'}\n"
        "max_client_conn = 500\n"
    )
    process = subprocess.Popen(["pgbouncer", str(folder / "pgbouncer.ini")], user=owner)
    pooled = f"postgresql+psycopg://postgres:@/{url.database}?host={folder}&port=6432"
    try:
        with closing(Database(pooled)) as database:
            wait_until(lambda: responds(database), "PgBouncer")
        yield pooled
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def responds(database: Database) -> bool:
    try:
        with database.read() as session:
            return bool(session.scalar(text("SELECT 1")))
    except SQLAlchemyError:
        return False


def test_no_statement_is_prepared_behind_pgbouncer(pooled_url: str) -> None:
    """Its setting ``max_prepared_statements`` may be 0, which makes them fail."""
    with closing(Database(pooled_url, idle_connections=1, connections=1)) as database:
        for _ in range(10):
            database.run_alone(lambda connection: connection.execute(text("SELECT 1")))
        with database.read_once() as session:
            assert session.scalar(text("SELECT count(*) FROM pg_prepared_statements")) == 0


def test_jobs_and_sweeps_run_behind_pgbouncer(pooled_url: str, tmp_path: Path, reference: Reference) -> None:
    (tmp_path / "home").mkdir()
    harness = FaultHarness(tmp_path / "home", Database(pooled_url), lease_s=3, data=few_digits(), train_count=FEW)
    with closing(harness):
        for _ in range(4):
            harness.submit()
        harness.start(TAPELINE_WORKERS="3")
        harness.start("workers.scheduler")
        harness.until_all_end()
        harness.check(reference)
        sweep_id = submit(harness, RANDOM)
        harness.start(TAPELINE_WORKERS="3")
        harness.start()
        harness.start("workers.scheduler")
        assert until_end(harness, sweep_id).decisions
