from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import event

from migrations.upgrade import config, downgrade, exclusively, head, is_current, revisions_of, upgrade, wait_for_schema
from service.errors import SettingsError, UnknownSchema
from service.storage.database import Database
from tests.migrations.test_additive import BASE, breaking_changes, schema


def test_an_empty_database_is_upgraded_to_the_current_schema(database_url: str) -> None:
    database = Database(database_url)
    assert not is_current(database)
    upgrade(database)
    assert is_current(database)
    database.close()


def test_migrations_match_the_table_definitions(database: Database) -> None:
    with database.engine.begin() as connection:
        alembic_config = config()
        alembic_config.attributes["connection"] = connection
        command.check(alembic_config)


def test_all_migrations_can_be_downgraded_and_reapplied(database: Database) -> None:
    alembic_config = config()
    with database.engine.begin() as connection:
        alembic_config.attributes["connection"] = connection
        command.downgrade(alembic_config, "base")
    assert not is_current(database)
    upgrade(database)
    assert is_current(database)


def _triggers(database: Database) -> dict[str, Any]:
    """The text of all triggers, and of the functions of PostgreSQL, with the right they run under."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    if not database.is_sqlite:
        query = """SELECT proname, (prosrc, prosecdef, proconfig, proacl)::text FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace
            UNION SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"""
    with database.engine.connect() as connection:
        return {row[0]: row[1] for row in connection.exec_driver_sql(query)}


def test_triggers_are_replaced_and_come_back(database_url: str) -> None:
    with closing(Database(database_url)) as database:
        with exclusively(database) as connection:
            command.upgrade(config(connection), "0031")
        old = _triggers(database)
        upgrade(database)
        new = _triggers(database)
        assert old.keys() == new.keys()
        (changed,) = [name for name in old if old[name] != new[name]]
        assert changed == ("owner_queue_update" if database.is_sqlite else "count_owner_queue")
        assert database.is_sqlite or "search_path" in new[changed]
        downgrade(database, "0031")
        assert _triggers(database) == old


def test_of_concurrent_upgrades_exactly_one_migrates_and_the_others_wait_for_it(database_url: str) -> None:
    barrier = threading.Barrier(4)
    databases = [Database(database_url) for _ in range(barrier.parties)]
    changes: list[tuple[int, str]] = []

    def record(number: int, *execution: Any) -> None:
        statement = str(execution[2])
        if re.match(r"\s*(INSERT INTO|UPDATE|DELETE FROM) alembic_version", statement):
            changes.append((number, statement))

    def migrate(database: Database) -> bool:
        barrier.wait()
        upgrade(database)
        return is_current(database)

    for number, database in enumerate(databases):
        event.listen(database.engine, "before_cursor_execute", partial(record, number))
    with ThreadPoolExecutor(barrier.parties) as threads:
        assert list(threads.map(migrate, databases)) == [True] * barrier.parties
    assert len({number for number, _ in changes}) == 1
    assert len(changes) == len(revisions_of(config())), "each revision ran once"
    for database in databases:
        database.close()


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (
            ["UPDATE alembic_version SET version_num = '9999'"],
            "at revision 9999, which this version .* does not know: use the newer version that created it",
        ),
        (
            ["UPDATE alembic_version SET version_num = '0006'"],
            "at revision 0006, which is too old for this version: upgrade it to 0007 or later with an earlier version",
        ),
        (
            ["UPDATE alembic_version SET version_num = '0013'"],
            "at revision 0013, but audit_seals.entries_digest, of revision 0014, exists: with the code that created it",
        ),
        (
            ["UPDATE alembic_version SET version_num = '0014'", "DROP TABLE audit_seals"],
            r"at revision 0014, but audit_seals.entries_digest, .*, is missing: .* \(alembic downgrade -1\)",
        ),
        (["DELETE FROM alembic_version"], "at revision none, but has a table api_keys: use an empty database"),
    ],
    ids=["newer", "older", "misnumbered", "other schema of that number", "unnumbered"],
)
def test_a_schema_that_cannot_be_upgraded_is_refused_and_left_unchanged(
    database_url: str, statements: list[str], message: str
) -> None:
    with closing(Database(database_url)) as database:
        upgrade(database)
        with database.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        before = schema(database)
        with pytest.raises(UnknownSchema, match=rf"{message}.*\. Nothing was changed"):
            upgrade(database)
        with pytest.raises(UnknownSchema):
            downgrade(database, BASE)
        after = schema(database)
    assert breaking_changes(before, after) == breaking_changes(after, before) == []


def run(database_url: str, *arguments: str) -> tuple[int, str]:
    """Run the command; returns its exit code and what it printed."""
    environ = os.environ | {"TAPELINE_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "migrations.upgrade", *arguments]
    process = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return process.returncode, process.stderr


@pytest.mark.stack
def test_the_command_says_what_it_did_or_why_it_did_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tapeline.db'}"

    def report(*arguments: str) -> dict[str, Any]:
        code, output = run(url, *arguments)
        assert code == 0, output
        (line,) = output.splitlines()
        return {
            name: value for name, value in json.loads(line).items() if name not in ("timestamp", "level", "process")
        }

    current = {"event": "nothing to do: the schema is current", "revision": head()}
    moved = {"revision_before": None, "revision_after": head()}
    assert report("--check") == {"event": "the schema can be upgraded"} | moved
    assert report() == {"event": "upgraded the schema"} | moved
    assert report() == report("--check") == current
    back = {"event": "downgraded the schema", "revision_before": head(), "revision_after": "0020"}
    assert report("--downgrade-to", "0020") == back
    code, output = run(url, "--downgrade-to", "0013")
    assert (code, output.count("\n")) == (2, 1)
    assert "cannot be taken back to revision 0013, only to one of: 0014, 0015" in output
    with closing(Database(url)) as database, database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for arguments in ((), ("--check",), ("--downgrade-to", "0020")):
        code, output = run(url, *arguments)
        assert (code, output.count("\n")) == (2, 1)
        assert "tapeline: the database is at revision 9999" in output


def test_a_process_waits_for_the_schema_and_says_what_it_waits_for(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrations.upgrade._POLL_INTERVAL_S", 0.05)
    with closing(Database(database_url)) as database, ThreadPoolExecutor(1) as threads:
        with pytest.raises(SettingsError, match=f"for the migration to revision {head()}: .* none; run python"):
            wait_for_schema(database, 0.1)
        waiting = threads.submit(wait_for_schema, database, 60)
        upgrade(database)
        assert waiting.result(60) == head()
        with database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        assert wait_for_schema(database, 0) == "9999", "a rollback: migrations are additive"
        with database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0028'")
        with pytest.raises(SettingsError, match="the database is at revision 0028"):
            wait_for_schema(database, 0)


@pytest.mark.stack
def test_a_wait_names_the_error_of_a_database_that_does_not_answer() -> None:
    code, output = run("postgresql+psycopg://tapeline@127.0.0.1:1/tapeline", "--wait", "0")
    assert code == 2
    assert "waited 0 seconds for the database: connection failed" in output
