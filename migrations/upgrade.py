"""Upgrade the database to the schema of this version: ``python -m migrations.upgrade [--grant-to ROLE]``.

With ``--grant-to``, the migrating role owns the schema, and ROLE gets the privileges that the service needs.
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
"""An arbitrary id for migrations among PostgreSQL's advisory locks."""


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file. With a connection, Alembic uses it."""
    alembic = Config()
    alembic.set_main_option("script_location", str(Path(__file__).parent))
    if connection is not None:
        alembic.attributes["connection"] = connection
    return alembic


@contextmanager
def exclusively(database: Database) -> Iterator[Connection]:
    """A transaction that excludes concurrent migrations, without a time limit."""
    if database.is_sqlite and (path := make_url(database.url).database):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = database.engine.execution_options(tapeline_write=True)
    with engine.connect() as connection, _without_cascades(database, connection), connection.begin():
        if not database.is_sqlite:  # in SQLite, BEGIN IMMEDIATE locks the database
            # A migration, and the wait for one in another process, may take long.
            for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {limit} = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        yield connection


@contextmanager
def _without_cascades(database: Database, connection: Connection) -> Iterator[None]:
    """Switch SQLite's foreign keys off. SQLite changes a table by creating a new one and dropping the old one, which
    would delete all rows that refer to it. Foreign keys can only be switched outside of transactions."""
    if not database.is_sqlite:
        yield
        return
    cursor = connection.connection.cursor()  # SQLAlchemy's connection would begin a transaction
    cursor.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()


def upgrade(database: Database, *, grant_to: str | None = None) -> None:
    """Apply the missing migrations. Of several concurrent processes, one migrates; the others wait for it.

    Args:
        grant_to: a PostgreSQL role that runs the service, but does not own the schema.

    Raises:
        UnknownSchema: this version does not know the revision of the database.
    """
    with exclusively(database) as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision is not None and revision not in known_revisions():
            raise UnknownSchema(revision)
        command.upgrade(config(connection), "head")
        if grant_to is not None and not database.is_sqlite:
            roles.grant(connection, grant_to)


def known_revisions() -> set[str]:
    """The revisions from which this version can upgrade."""
    return {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}


def is_current(database: Database) -> bool:
    """Whether the database has the schema of this version."""
    with database.engine.connect() as connection:
        heads = MigrationContext.configure(connection).get_current_heads()
    return set(heads) == set(ScriptDirectory.from_config(config()).get_heads())


def main() -> int:
    """Migrate the configured database."""
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
