"""What the PostgreSQL roles that run the service, workers on other machines, and what starts such machines, may do with
each table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from psycopg import sql
from sqlalchemy import Connection

from service.declarations import installed
from service.errors import SettingsError

ROWS: Final = sql.SQL("SELECT, INSERT, UPDATE, DELETE")
_EXCEPTIONS: Final = {
    "alembic_version": sql.SQL("SELECT"),
    "audit": sql.SQL("SELECT, INSERT, DELETE"),  # DELETE for retention; triggers restrict it
    "audit_seals": sql.SQL("SELECT, INSERT, UPDATE"),  # UPDATE marks ranges that retention removed
    "tapeline_demand": sql.SQL("SELECT"),  # a view
}
"""Tables on which the application role has fewer privileges."""
_OF_WORKERS: Final = {
    "alembic_version": "SELECT",
    "artifacts": "SELECT, INSERT, DELETE",
    "audit": "INSERT",
    "epochs": "SELECT, INSERT",
    "events": "SELECT, INSERT",
    "expected_epochs": "SELECT",
    "job_tags": "SELECT, INSERT",
    "jobs": "SELECT, INSERT, UPDATE",  # INSERT: the end of a trial may start others
    "owner_queue": "SELECT, UPDATE (mean_seconds)",  # UPDATE of any column is what a row lock needs
    "owners": "SELECT (id, artifacts, max_priority, further_limits)",  # the limits of commits and new trials
    "stores": "SELECT, INSERT",
    "sweep_events": "SELECT, INSERT",
    "sweep_trials": "SELECT, INSERT, UPDATE",
    "sweeps": "SELECT, UPDATE",
    "uploads": "SELECT",
    "workers": "SELECT, INSERT, UPDATE, DELETE",
}
"""All privileges of the role of workers, with those that features declare: their credentials lie on other machines."""


def check(connection: Connection, roles: Mapping[str, str]) -> None:
    """Refuse roles that cannot have the exact privileges of one purpose; called before a migration.

    Args:
        roles: by the option that names them.

    Raises:
        SettingsError: a role would lose what it needs to own the schema, or what another option grants it.
    """
    raw: Any = connection.connection.driver_connection
    owners = """SELECT current_user::text UNION SELECT tableowner::text FROM pg_tables
        WHERE schemaname = 'public' AND tablename = 'alembic_version'"""
    owning = {name for (name,) in raw.execute(owners).fetchall()}
    seen: dict[str, str] = {}
    for option, role in roles.items():
        if role in owning:
            raise SettingsError(
                f"{option} {role}: this role owns the schema or migrates it, and would lose its own privileges. Name "
                f"another role, or omit {option}. Nothing was changed."
            )
        if role in seen:
            raise SettingsError(
                f"{seen[role]} and {option} name the same role, {role}, and the second would take away what the first "
                "grants. Make a role for each purpose. Nothing was changed."
            )
        seen[role] = option


def grant_demand(connection: Connection, reader: str) -> None:
    """Let a role connect and read the view ``tapeline_demand``, and nothing else; called as ``grant`` is."""
    raw: Any = connection.connection.driver_connection
    role = sql.Identifier(reader)
    raw.execute(sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {}").format(role))
    raw.execute(sql.SQL("REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {}").format(role))
    raw.execute(sql.SQL("GRANT SELECT ON public.tapeline_demand TO {}").format(role))
    # By default, every role may do both.
    may = """SELECT has_database_privilege(%s, current_database(), 'CONNECT'),
        has_schema_privilege(%s, 'public', 'USAGE')"""
    may_connect, may_use = raw.execute(may, (reader, reader)).fetchone()
    if not may_connect:
        database = sql.Identifier(raw.info.dbname)
        raw.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, role))
    if not may_use:
        raw.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(role))


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


def grant_to_workers(connection: Connection, workers: str) -> None:
    """Set the exact privileges of the role of workers on other machines; called as ``grant`` is."""
    raw: Any = connection.connection.driver_connection
    role = sql.Identifier(workers)
    raw.execute(sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {}").format(role))
    raw.execute(sql.SQL("REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {}").format(role))
    of_workers = _OF_WORKERS | {
        name: privileges for feature in installed() for name, privileges in feature.worker_privileges.items()
    }
    for name, privileges in of_workers.items():
        raw.execute(sql.SQL("GRANT {} ON public.{} TO {}").format(sql.SQL(privileges), sql.Identifier(name), role))
    sequences = """SELECT sequence.relname FROM pg_class sequence JOIN pg_depend ON objid = sequence.oid
        JOIN pg_class owning ON owning.oid = refobjid
        WHERE sequence.relkind = 'S' AND owning.relnamespace = 'public'::regnamespace AND owning.relname = ANY(%s)"""
    inserted = [name for name, privileges in of_workers.items() if "INSERT" in privileges]
    for (name,) in raw.execute(sequences, (inserted,)).fetchall():
        raw.execute(sql.SQL("GRANT USAGE ON SEQUENCE public.{} TO {}").format(sql.Identifier(name), role))
