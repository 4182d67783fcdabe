from __future__ import annotations

import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from alembic import command
from sqlalchemy import event

from migrations.upgrade import config, is_current, known_revisions, main, upgrade
from service.errors import UnknownSchema
from service.storage.database import Database


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
    assert len(changes) == len(known_revisions()), "each revision ran once"
    for database in databases:
        database.close()


@pytest.mark.parametrize("revision", ["0013", "9999"])
def test_an_unknown_schema_revision_is_refused_and_left_unchanged(
    database_url: str, revision: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPELINE_DATABASE_URL", database_url)
    monkeypatch.setattr(sys, "argv", ["upgrade"])
    with closing(Database(database_url)) as database:
        upgrade(database)
        with database.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
        with pytest.raises(UnknownSchema, match=revision):
            upgrade(database)
        assert main() == 2
        assert "use that version, or an empty database" in capsys.readouterr().err
        with database.engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == revision
            assert connection.exec_driver_sql("SELECT count(*) FROM jobs").scalar() == 0
