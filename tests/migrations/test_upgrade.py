from __future__ import annotations

import sys
import threading
from contextlib import closing

import pytest
from alembic import command

from migrations.upgrade import config, is_current, main, upgrade
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


def test_concurrent_upgrades_of_an_empty_database_succeed(database_url: str) -> None:
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
