"""The command ``tapeline keys``, on both databases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.access import audit, keys
from service.access.keys import Scope
from service.cli import main
from service.storage.database import Database
from tests.terminals import run_in_terminal, strip_ansi

Run = Callable[..., Result]


@pytest.fixture
def run(migrated_url: str, tmp_path: Path) -> Run:
    environ = {"TAPELINE_HOME": str(tmp_path), "TAPELINE_DATABASE_URL": migrated_url}
    return lambda *arguments: CliRunner().invoke(main, ["keys", *arguments], env=environ)


def is_accepted(database: Database, key: str) -> bool:
    with database.read() as session:
        return keys.identify(session, key) is not None


def test_a_key_is_rotated_by_id_and_by_name(database: Database, run: Run) -> None:
    old = json.loads(run("create", "laptop", "--scope", "read", "--expires", "90d", "--json").output)
    result = run("rotate", old["id"])
    assert result.exit_code == 0, result.output
    key = result.stdout.strip()
    assert f"replaces {old['id']}" in result.stderr
    assert is_accepted(database, key)
    assert is_accepted(database, old["key"])
    new = json.loads(run("rotate", "laptop", "--overlap", "0", "--json").output)
    assert (new["owner"], new["scope"], new["replaces"]["state"]) == ("laptop", "read", "expired")
    assert not is_accepted(database, key)
    assert is_accepted(database, new["key"])
    refused = run("rotate", old["id"])
    assert refused.exit_code == 1
    assert f"rotate its successor {new['replaces']['id']}" in " ".join(refused.output.split())
    with database.read() as session:
        entries = [(row.subject, row.detail["overlap_s"]) for row in audit.read(session, action="rotate_key")]
    assert entries == [(new["replaces"]["id"], 0), (old["id"], 86400)]


@pytest.mark.parametrize("overlap", ["31d", "1", "-1h", "never"])
def test_an_overlap_that_is_invalid_or_over_thirty_days_is_refused(database: Database, run: Run, overlap: str) -> None:
    run("create", "laptop")
    refused = run("rotate", "laptop", "--overlap", overlap)
    assert refused.exit_code == 2
    assert "--overlap" in refused.output


def test_the_list_shows_when_a_key_was_last_used(database: Database, run: Run) -> None:
    used, _ = keys.create(database, name="used", owner="ann", scope=Scope.READ)
    keys.create(database, name="idle", owner="ann", scope=Scope.READ)
    keys.record_use(database, {used.id})
    first, second = sorted(json.loads(run("list", "--json").output), key=lambda item: item["name"], reverse=True)
    assert second["last_used_at"] is None
    lines = {
        name: line for line in run("list").output.splitlines() for name in ("used", "idle") if name in line.split()
    }
    assert first["last_used_at"][:10] in lines["used"]
    assert "never" in lines["idle"]


@pytest.mark.stack
def test_the_list_is_complete_in_a_pipe_and_wrapped_in_a_terminal(
    database: Database, run: Run, migrated_url: str, tmp_path: Path
) -> None:
    long_name = "the cluster of the group for numerical analysis"
    row, _ = keys.create(database, name=long_name, owner="ann", scope=Scope.READ)
    assert f"{row.id}\t{long_name}\tann\tread\tnever\tvalid" in run("list").output.splitlines()
    environ = {"TAPELINE_HOME": str(tmp_path), "TAPELINE_DATABASE_URL": migrated_url, "TERM": "xterm", "COLUMNS": "80"}
    exit_code, output = run_in_terminal("keys", "list", environ=environ)
    assert exit_code == 0, output
    first, *continuation = [line for line in strip_ansi(output).splitlines() if line and not line.startswith("ID")]
    assert first.startswith(row.id)
    assert len(first) <= 80
    assert continuation, "the name is folded within its column"
