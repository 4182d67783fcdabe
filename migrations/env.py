"""Alembic's environment. It uses the connection of ``migrations.upgrade`` or, for Alembic's own commands, the database
in the settings."""

from __future__ import annotations

import os
import warnings

from alembic import context
from sqlalchemy.engine import Connection

from service.runtime.settings import Settings
from service.storage.database import Database
from service.storage.tables import Base


def _migrate(connection: Connection) -> None:
    # SQLite's reflection lacks descending index columns, so the drift check skips the index ``ix_jobs_waiting`` there.
    warnings.filterwarnings("ignore", message="autogenerate skipping metadata-specified expression-based index")
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        # SQLite cannot alter a column in place; Alembic then copies the table.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


configured: Connection | None = context.config.attributes.get("connection")
if configured is not None:
    _migrate(configured)
else:
    database = Database(Settings.from_env(os.environ, cores=1).database_url, application="tapeline-migrate")
    with database.engine.begin() as opened_connection:
        _migrate(opened_connection)
