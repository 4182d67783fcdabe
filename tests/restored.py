"""A database that goes back in time under running processes, as after a restore, or a failover that lost its last
transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

from sqlalchemy import insert, select

from service.storage.database import Database
from service.storage.tables import ARTIFACTS, EPOCHS, EVENTS, JOBS

Restore = Callable[[], None]


def copied(database: Database) -> Restore:
    """Copy the database as it is; the result puts the copy in place. Of PostgreSQL, only jobs and what belongs to them:
    its processes could not stay connected to a server that is restored."""
    return _copied_file(database) if database.is_sqlite else _copied_rows(database)


def _copied_file(database: Database) -> Restore:
    path = str(database.engine.url.database)
    with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(f"{path}.copy")) as copy:
        live.backup(copy)

    def restore() -> None:
        with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(f"{path}.copy")) as copy:
            copy.backup(live)

    return restore


def _copied_rows(database: Database) -> Restore:
    with database.read() as session:
        rows = {table: session.execute(select(table)).mappings().all() for table in (JOBS, EPOCHS, ARTIFACTS, EVENTS)}

    def restore() -> None:
        with database.write() as session:
            session.execute(JOBS.delete())
            for table, saved in rows.items():
                if saved:
                    session.execute(insert(table), [dict(row) for row in saved])

    return restore
