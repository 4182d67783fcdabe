"""Bring a database to the schema that this code knows: ``python -m migrations.upgrade [--grant-to ROLE]``.

With ``--grant-to``, the role that runs this owns the schema, and that one gets what the service needs to run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url

from migrations import roles
from service.errors import SettingsError, UnknownSchema
from service.runtime.settings import Settings
from service.storage.database import Database

_LOCK: Final = 7_267_001
"""An arbitrary number that means "Tapeline migrates" among PostgreSQL's advisory locks."""


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file: the scripts lie beside this one. What it does goes through the
    connection, where one is given."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    if connection is not None:
        made.attributes["connection"] = connection
    return made


@contextmanager
def exclusively(database: Database) -> Iterator[Connection]:
    """One transaction in which nobody else migrates, however long it takes."""
    if database.is_sqlite and (path := make_url(database.url).database):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = database.engine.execution_options(tapeline_write=True)
    with engine.connect() as connection, _without_cascades(database, connection), connection.begin():
        if not database.is_sqlite:  # SQLite's BEGIN IMMEDIATE is a lock already
            # A migration may take long, and so may the wait for another process that migrates.
            for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {limit} = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        yield connection


@contextmanager
def _without_cascades(database: Database, connection: Connection) -> Iterator[None]:
    """SQLite changes a table by making it anew, and with its foreign keys on, to drop the old one would delete all
    rows that refer to it. They can be switched between transactions only."""
    if not database.is_sqlite:
        yield
        return
    bare = connection.connection.cursor()  # the connection itself would begin a transaction
    bare.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        bare.execute("PRAGMA foreign_keys=ON")
        bare.close()


def upgrade(database: Database, *, grant_to: str | None = None) -> None:
    """Apply what is missing. Of several processes at once one migrates, and the others find nothing to do.

    Args:
        grant_to: a PostgreSQL role that runs the service, but does not own the schema.

    Raises:
        UnknownSchema: the database has a revision that this code does not have.
    """
    with exclusively(database) as connection:
        found = MigrationContext.configure(connection).get_current_revision()
        if found is not None and found not in known_revisions():
            raise UnknownSchema(found)
        command.upgrade(config(connection), "head")
        if grant_to is not None and not database.is_sqlite:
            roles.grant(connection, grant_to)


def known_revisions() -> set[str]:
    """The revisions that this code can upgrade from."""
    return {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}


def is_current(database: Database) -> bool:
    """Whether the schema is the one that this code knows."""
    with database.engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_heads()
    return set(found) == set(ScriptDirectory.from_config(config()).get_heads())


def main() -> int:
    """Migrate the database that the environment names."""
    parser = argparse.ArgumentParser(prog="python -m migrations.upgrade", description=main.__doc__)
    parser.add_argument("--grant-to", metavar="ROLE", help="PostgreSQL role that runs the service, if not the owner")
    grant_to: str | None = parser.parse_args().grant_to
    try:
        settings = Settings.from_env(os.environ, cores=1)
    except SettingsError as error:
        sys.stderr.write(f"tapeline: {error}\n")
        return 2
    database = Database(settings.database_url, application="tapeline-migrate")
    try:
        upgrade(database, grant_to=grant_to)
    except UnknownSchema as error:
        sys.stderr.write(f"tapeline: {error}\n")
        return 2
    finally:
        database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
