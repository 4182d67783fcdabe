from __future__ import annotations

import sys
import threading
from contextlib import closing

import pytest
from alembic import command

from migrations.upgrade import config, is_current, main, upgrade
from service.errors import UnknownSchema
from service.storage.database import Database


def test_an_empty_database_is_brought_to_the_schema_of_the_code(database_url: str) -> None:
    database = Database(database_url)
    assert not is_current(database)
    upgrade(database)
    assert is_current(database)
    database.close()


def test_migrations_and_tables_say_the_same(database: Database) -> None:
    with database.engine.begin() as connection:
        made = config()
        made.attributes["connection"] = connection
        command.check(made)


def test_everything_can_be_taken_back_and_applied_again(database: Database) -> None:
    made = config()
    with database.engine.begin() as connection:
        made.attributes["connection"] = connection
        command.downgrade(made, "base")
    assert not is_current(database)
    upgrade(database)
    assert is_current(database)


def test_of_many_processes_at_once_one_migrates(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]
    threads = [threading.Thread(target=upgrade, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert is_current(databases[0])
    for database in databases:
        database.close()


@pytest.mark.parametrize("revision", ["0013", "9999"])
def test_a_schema_that_this_code_does_not_have_is_left_alone(
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
