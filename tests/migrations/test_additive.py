"""Old code runs against the new schema while containers are replaced, so migrations must be additive."""

from __future__ import annotations

from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from migrations.upgrade import config, exclusively
from service.storage.database import Database

BASE = "0014"
"""Revisions before this one were never released."""


def schema(database: Database) -> dict[str, dict[str, Any]]:
    inspector = inspect(database.engine)
    return {
        table: {
            "columns": {column["name"]: column for column in inspector.get_columns(table)},
            "unique": {tuple(item["column_names"]) for item in inspector.get_unique_constraints(table)},
            "foreign": {tuple(item["constrained_columns"]) for item in inspector.get_foreign_keys(table)},
            "key": tuple(inspector.get_pk_constraint(table)["constrained_columns"]),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def breaking_changes(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[str]:
    changes = [f"table {name} was removed" for name in before.keys() - after.keys()]
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        changes += [f"{name}.{column} was removed" for column in old["columns"].keys() - new["columns"].keys()]
        for column in new["columns"].keys() - old["columns"].keys():
            added = new["columns"][column]
            if not added["nullable"] and added["default"] is None:
                changes.append(f"{name}.{column} is required, and old code does not set it")
        for column in old["columns"].keys() & new["columns"].keys():
            was, now = old["columns"][column], new["columns"][column]
            if str(was["type"]) != str(now["type"]):
                changes.append(f"{name}.{column} was {was['type']}, and is {now['type']}")
            if was["nullable"] and not now["nullable"]:
                changes.append(f"{name}.{column} is now required, and old code may leave it null")
        stricter = {columns for columns in new["unique"] if not any(set(was) <= set(columns) for was in old["unique"])}
        if new["key"] != old["key"] or stricter or new["foreign"] - old["foreign"]:
            changes.append(f"{name} has stricter constraints")
    return changes


def test_each_migration_is_additive(database_url: str) -> None:
    database = Database(database_url)
    revisions = [item.revision for item in ScriptDirectory.from_config(config()).walk_revisions()][::-1]
    before: dict[str, dict[str, Any]] | None = None
    for revision in revisions[revisions.index(BASE) :]:
        with exclusively(database) as connection:
            command.upgrade(config(connection), revision)
        after = schema(database)
        if before is not None:
            assert breaking_changes(before, after) == [], revision
        before = after
    database.close()


@pytest.mark.parametrize(
    ("statement", "change"),
    [
        ("ALTER TABLE jobs DROP COLUMN stopped_early", "jobs.stopped_early was removed"),
        ("ALTER TABLE jobs RENAME COLUMN name TO title", "jobs.name was removed"),
        ("ALTER TABLE jobs ADD COLUMN team VARCHAR(9) NOT NULL", "jobs.team is required, and old code does not set it"),
        (
            "ALTER TABLE jobs ALTER COLUMN name SET NOT NULL",
            "jobs.name is now required, and old code may leave it null",
        ),
        ("ALTER TABLE epochs ALTER COLUMN step TYPE VARCHAR(9)", "epochs.step was BIGINT, and is VARCHAR(9)"),
        ("ALTER TABLE jobs ADD UNIQUE (name)", "jobs has stricter constraints"),
        ("DROP TABLE expected_epochs", "table expected_epochs was removed"),
    ],
)
def test_a_breaking_change_is_detected(postgres_url: str, statement: str, change: str) -> None:
    database = Database(postgres_url)
    with exclusively(database) as connection:
        command.upgrade(config(connection), BASE)
    before = schema(database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert change in breaking_changes(before, schema(database))
    database.close()
