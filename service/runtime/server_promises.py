"""What a PostgreSQL server must promise: that it is written to, and that a commit is on the disk.

Each new connection is checked, because after a failover an address may belong to a standby. A server that cannot keep
the promises counts as one that does not respond: a running process waits for another one, and a process that starts
refuses.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from service.errors import SettingsError

_QUERY: Final = (
    "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only'), current_setting('fsync'), "
    "current_setting('synchronous_commit')"
)
ASYNCHRONOUS: Final = (
    "synchronous_commit is off: if the server crashes, the last commits are lost, although they were answered. Set "
    "synchronous_commit = on, in postgresql.conf or for the role: ALTER ROLE … SET synchronous_commit = on"
)

log = structlog.get_logger()


def fault_of(connection: Any) -> str | None:
    """What a server cannot promise, with the remedy.

    Args:
        connection: of psycopg, outside a transaction.
    """
    in_recovery, read_only, fsync, _ = connection.execute(_QUERY).fetchone()
    if in_recovery:
        return (
            "this PostgreSQL server is in recovery: it is a standby, or a reader endpoint. Set TAPELINE_DATABASE_URL "
            "to the primary, or name all hosts and add target_session_attrs=read-write"
        )
    if read_only == "on":
        return (
            "transactions of this PostgreSQL server or role are read-only: set TAPELINE_DATABASE_URL to the primary, "
            "or reset default_transaction_read_only"
        )
    if fsync == "off":
        return (
            "this PostgreSQL server has fsync = off: a crash of its machine destroys the database. Set fsync = on in "
            "postgresql.conf, and reload it"
        )
    return None


def check(connection: Any, _: object = None) -> None:
    """Refuse a new connection to a server that cannot keep the promises; a listener of ``connect``.

    Raises:
        psycopg.OperationalError: with the fault as its ``unkept``.
    """
    fault = fault_of(connection)
    connection.rollback()
    if fault is not None:
        connection.close()
        from psycopg import OperationalError  # loaded with PostgreSQL only

        error = OperationalError(fault)
        error.unkept = fault  # type: ignore[attr-defined]  # a subclass would load psycopg for SQLite, too
        raise error


def require(engine: Engine) -> None:
    """Refuse to start on a server that cannot keep the promises, and warn of one that keeps them in part. A server that
    does not respond is no reason: its connections are checked once there are some.

    Raises:
        SettingsError: the server cannot keep them.
    """
    if engine.dialect.name == "sqlite":
        return
    try:
        if warning := warning_of(engine):
            log.warning(warning)
    except SQLAlchemyError as error:
        if fault := unkept(error):
            raise SettingsError(fault) from error


def unkept(error: SQLAlchemyError) -> str | None:
    """The fault of the server that ``check`` refused, if that is what the error says."""
    fault: str | None = getattr(getattr(error, "orig", None), "unkept", None)
    return fault


def warning_of(engine: Engine) -> str | None:
    """What a server promises in part only."""
    if engine.dialect.name == "sqlite":
        return None
    with engine.connect() as connection:
        setting = connection.exec_driver_sql("SELECT current_setting('synchronous_commit')").scalar()
    return ASYNCHRONOUS if setting == "off" else None
