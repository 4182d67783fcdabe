"""How Alembic reaches the database: through the connection that ``migrations.upgrade`` gives it, or, at a
developer's terminal, through the settings."""

from __future__ import annotations

import os
import warnings

from alembic import context
from sqlalchemy.engine import Connection

from service.runtime.settings import Settings
from service.storage.database import Database
from service.storage.tables import Base


def _migrate(connection: Connection) -> None:
    # Reflection of SQLite shows no falling index columns, so the drift check passes the waiting index over there.
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


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    _migrate(given)
else:
    database = Database(Settings.from_env(os.environ, cores=1).database_url, application="tapeline-migrate")
    with database.engine.begin() as opened:
        _migrate(opened)
