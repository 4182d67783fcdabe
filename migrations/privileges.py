"""What the PostgreSQL role that runs the service may do with each table."""

from __future__ import annotations

from typing import Any, Final

from psycopg import sql
from sqlalchemy import Connection

ROWS: Final = sql.SQL("SELECT, INSERT, UPDATE, DELETE")
_EXCEPTIONS: Final = {
    "alembic_version": sql.SQL("SELECT"),
    "audit": sql.SQL("SELECT, INSERT, DELETE"),  # DELETE for retention; triggers restrict it
    "audit_seals": sql.SQL("SELECT, INSERT, UPDATE"),  # UPDATE marks ranges that retention removed
}
"""Tables on which the application role has fewer privileges."""


def grant(connection: Connection, application: str) -> None:
    """Set the exact privileges of the application role on all tables; called by the owner role after each migration."""
    raw: Any = connection.connection.driver_connection
    role = sql.Identifier(application)
    raw.execute(sql.SQL("GRANT {} ON ALL TABLES IN SCHEMA public TO {}").format(ROWS, role))
    raw.execute(sql.SQL("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {}").format(role))
    for name, privileges in _EXCEPTIONS.items():
        table = sql.Identifier(name)
        raw.execute(sql.SQL("REVOKE ALL ON public.{} FROM {}").format(table, role))
        raw.execute(sql.SQL("GRANT {} ON public.{} TO {}").format(privileges, table, role))
