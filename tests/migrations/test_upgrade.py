from __future__ import annotations

import threading

from alembic import command

from migrations.upgrade import config, is_current, upgrade
from service.contract.database import Database


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
