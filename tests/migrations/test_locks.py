"""Migrations run while others read and write: they hold the lock that keeps all others out only at their end."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any

import psycopg
import pytest
from alembic import command
from sqlalchemy import event

from migrations import upgrade as module
from migrations.upgrade import config, exclusively, is_current, revisions_of, upgrade
from service.errors import SettingsError
from service.storage.database import Database

RELEASED = "0023"
"""The schema of the last release: its migrations, and those before, read and write under such locks."""
QUICK = re.compile(r"\s*(ALTER TABLE|DROP (TABLE|INDEX|VIEW|TRIGGER|FUNCTION)|(UPDATE|INSERT INTO) alembic_version)")
"""What may follow: it changes the catalogue only."""
LOCKED = """SELECT relation::regclass::text FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'AccessExclusiveLock'
    AND relation = ANY(%s)"""
TABLES = "SELECT oid FROM pg_class WHERE relkind IN ('r', 'i', 'v') AND relnamespace = 'public'::regnamespace"


def slow_statements_under_a_lock(database: Database, revision: str) -> list[str]:
    """Apply a migration; returns what it does after it has locked a table that was there before, and the tables."""
    found: list[str] = []
    existing: list[int] = []
    held: list[str] = []

    def record(connection: Any, cursor: Any, statement: str, *_: object) -> None:
        if held and not QUICK.match(statement):
            found.append(f"{' '.join(statement.split())[:80]}, under a lock of {', '.join(held)}")
        with cursor.connection.cursor() as other:
            held[:] = [name for (name,) in other.execute(LOCKED, (existing,)).fetchall()]

    with exclusively(database) as connection:
        existing += connection.exec_driver_sql(TABLES).scalars()
        event.listen(connection, "after_cursor_execute", record)
        command.upgrade(config(connection), revision)
    return found


def test_in_each_migration_nothing_slow_follows_a_lock_that_keeps_readers_out(postgres_url: str) -> None:
    revisions = revisions_of(config())[::-1]
    with closing(Database(postgres_url)) as database:
        with exclusively(database) as connection:
            command.upgrade(config(connection), RELEASED)
        slow = {
            revision: statements
            for revision in revisions[revisions.index(RELEASED) + 1 :]
            if (statements := slow_statements_under_a_lock(database, revision))
        }
    assert slow == {}


def test_each_migration_has_a_transaction_of_its_own_and_waits_for_a_lock_for_seconds_only(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOCK_TIMEOUT_S", 1)
    monkeypatch.setattr(module, "_LOCK_ATTEMPTS", 2)
    monkeypatch.setattr(module, "_LOCK_PAUSE_S", 0)
    with closing(Database(postgres_url)) as database:
        with exclusively(database) as connection:
            command.upgrade(config(connection), "0029")
        with psycopg.connect(postgres_url.replace("+psycopg", "")) as reader:
            reader.execute("SELECT FROM workers")  # until it commits, 0031 cannot change the table
            with pytest.raises(SettingsError, match=r"revision 0031 needs a lock .* pg_stat_activity"):
                upgrade(database)
            with database.engine.connect() as connection:
                found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            assert found == "0030", "what came before remains"
            reader.commit()
            upgrade(database)
        assert is_current(database)
