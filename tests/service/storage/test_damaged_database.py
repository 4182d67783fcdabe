"""A damaged file of SQLite is named with its remedy by whatever opens it, without a traceback."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from migrations.upgrade import upgrade
from service.cli import main
from service.runtime.settings import Settings
from service.storage.database import Database
from service.web.app import create_app

REMEDY = "restore a backup: tapeline restore FILE"


@pytest.fixture(params=["not a database", "malformed"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / "tapeline.db"
    with closing(Database(f"sqlite:///{file}")) as database:
        upgrade(database)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = file.read_bytes()
    # Without its first bytes, or with the pages of all tables overwritten.
    file.write_bytes(b"?" * 4096 + data[4096:] if request.param == "not a database" else data[:4096] + b"?" * 2**16)
    return tmp_path


def arguments(home: Path) -> list[list[str]]:
    return [["gc"], ["keys", "list"], ["backup", str(home / "x.tar")], ["up"], ["doctor"]]


@pytest.mark.stack
@pytest.mark.parametrize("command", range(5))
def test_commands_name_the_remedy(home: Path, command: int) -> None:
    result = CliRunner().invoke(main, arguments(home)[command], env={"TAPELINE_HOME": str(home), "TAPELINE_PORT": "0"})
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == 1
    assert f"{home / 'tapeline.db'} is damaged" in result.output
    assert REMEDY in result.output
    assert "sqlalche.me" not in result.output


@pytest.mark.stack
def test_migrations_name_the_remedy(home: Path) -> None:
    command = [sys.executable, "-m", "migrations.upgrade"]
    environ = os.environ | {"TAPELINE_HOME": str(home)}
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (result.returncode, REMEDY in result.stderr, "Traceback" in result.stderr) == (2, True, False)


def test_requests_answer_503(home: Path) -> None:
    app = create_app(Settings.from_env({"TAPELINE_HOME": str(home)}, cores=1))
    answer = app.test_client().get("/jobs")
    assert (answer.status_code, answer.json["code"]) == (503, "database_unavailable")
    assert str(home) not in answer.text


def test_a_database_without_tables_has_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "tapeline.db").touch()
    result = CliRunner().invoke(main, ["gc"], env={"TAPELINE_HOME": str(tmp_path)})
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert "tapeline doctor names the cause" in result.output
