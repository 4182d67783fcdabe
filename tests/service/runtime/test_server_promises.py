"""A PostgreSQL server that cannot keep the promises is refused at the start, and after each reconnection."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from service.errors import SettingsError
from service.runtime import broker, server_promises
from service.storage.database import Database
from tests.conftest import postgres_folder, serve_postgres

URL = "postgresql+psycopg://postgres:@/postgres?host={}"


@pytest.fixture(scope="module")
def own_server() -> Iterator[str]:
    """A server whose settings tests change."""
    with postgres_folder() as folder, serve_postgres(folder) as socket_folder:
        yield socket_folder


def set_on(server: str, setting: str, value: str) -> None:
    with psycopg.connect(f"user=postgres dbname=postgres host={server}", autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET {setting} = {value}")
        connection.execute("SELECT pg_reload_conf()")
    # The postmaster signals its children; a new connection has the new value.
    shown = ""
    while shown != value:
        with psycopg.connect(f"user=postgres dbname=postgres host={server}") as connection:
            ((shown,),) = connection.execute(f"SHOW {setting}").fetchall()


@pytest.mark.stack
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("fsync", "fsync = off: a crash .* Set fsync = on"),
        pytest.param("default_transaction_read_only", "read-only: set TAPELINE_", marks=pytest.mark.nightly),
    ],
)
def test_a_server_that_loses_or_refuses_writes_is_refused_until_it_is_mended(
    own_server: str, setting: str, message: str, tmp_path: Path
) -> None:
    bad, good = ("off", "on") if setting == "fsync" else ("on", "off")
    url = URL.format(own_server)
    with closing(Database(url)) as database:
        server_promises.require(database.engine)
        set_on(own_server, setting, bad)
        try:
            with pytest.raises(SettingsError, match=message), closing(Database(url)) as started:
                server_promises.require(started.engine)
            database.engine.dispose()  # it reconnects, as after a failover
            with pytest.raises(OperationalError, match=message):
                database.engine.connect()
            environ = os.environ | {"TAPELINE_DATABASE_URL": url, "TAPELINE_HOME": str(tmp_path)}
            environ |= {"TAPELINE_BROKER_URL": "redis://127.0.0.1:1/0"}
            for module in ("migrations.upgrade", "workers", "workers.scheduler"):
                command = [sys.executable, "-m", module]
                process = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
                assert (process.returncode, "Set fsync" in process.stderr) == (2, setting == "fsync"), process.stderr
        finally:
            set_on(own_server, setting, good)
        database.engine.connect().close()


@pytest.mark.stack
def test_a_server_in_recovery_is_refused() -> None:
    with postgres_folder() as folder:
        with serve_postgres(folder):
            pass
        (folder / "data" / "standby.signal").touch()
        message = r"is in recovery: .* target_session_attrs=read-write"
        with (
            serve_postgres(folder) as server,
            closing(Database(URL.format(server))) as database,
            pytest.raises(SettingsError, match=message),
        ):
            server_promises.require(database.engine)


@pytest.mark.stack
def test_a_commit_that_does_not_wait_for_the_disk_is_a_warning(own_server: str) -> None:
    url = URL.format(own_server)
    with closing(Database(url)) as database:
        assert server_promises.warning_of(database.engine) is None
    with closing(Database(f"{url}&options=-csynchronous_commit%3Doff")) as database:
        server_promises.require(database.engine)
        assert "SET synchronous_commit = on" in str(server_promises.warning_of(database.engine))


def test_a_kombu_that_loses_messages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    broker.require_kombu()
    for installed in ("5.6.2", "5.6.99rc1", "4.9"):
        monkeypatch.setattr("importlib.metadata.version", lambda _, installed=installed: installed)
        with pytest.raises(SettingsError, match=rf"kombu {installed} is installed.*pip install 'kombu>=5.7'"):
            broker.require_kombu()


def test_sqlite_syncs_each_commit(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database, database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2, "FULL"
