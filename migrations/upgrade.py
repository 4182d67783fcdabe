"""Bring a database to the schema that this code knows: ``python -m migrations.upgrade``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import make_url

from service.contract.database import Database
from service.contract.errors import SettingsError
from service.contract.settings import Settings

_LOCK: Final = 7_267_001
"""An arbitrary number that means "Tapeline migrates" among PostgreSQL's advisory locks."""


def config() -> Config:
    """Alembic's configuration, without a file: the scripts lie beside this one."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    return made


def upgrade(database: Database) -> None:
    """Apply what is missing. Of several processes at once one migrates, and the others find nothing to do."""
    if database.is_sqlite and (path := make_url(database.url).database):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = database.engine.execution_options(tapeline_write=True)
    with engine.begin() as connection:
        if not database.is_sqlite:  # SQLite's BEGIN IMMEDIATE is a lock already
            # A migration may take long, and so may the wait for another process that migrates.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, "head")


def is_current(database: Database) -> bool:
    """Whether the schema is the one that this code knows."""
    with database.engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_heads()
    return set(found) == set(ScriptDirectory.from_config(config()).get_heads())


def main() -> int:
    """Migrate the database that the environment names."""
    try:
        settings = Settings.from_env(os.environ, cores=1)
    except SettingsError as error:
        sys.stderr.write(f"tapeline: {error}\n")
        return 2
    upgrade(Database(settings.database_url, application="tapeline-migrate"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
