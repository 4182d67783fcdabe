"""The PostgreSQL roles of a compose deployment, and the passwords of its containers: ``python -m migrations.roles``.

The owner role may change the schema; migrations and restores connect as it. The application role reads and writes
rows; web, worker and scheduler connect as it. The role of workers is for those on other machines, and may do no more
than train jobs. Only this program connects as the superuser, over a socket that needs no
password. It is idempotent: it keeps existing roles and passwords, and transfers what the superuser owns to the owner
role. It looks at the revision first: if this version cannot upgrade the database, it changes nothing, so that the
version before can go on.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import structlog
from psycopg import sql

from migrations.privileges import ROWS
from migrations.upgrade import configure_logs, find_revision
from service.errors import SettingsError
from service.runtime import server_promises
from service.runtime.settings import Settings
from service.storage.database import Database

OWNER: Final = "tapeline_owner"
APPLICATION: Final = "tapeline_app"
WORKER: Final = "tapeline_worker"

_REFUSED_PASSWORD: Final = "tapeline"  # noqa: S105 - the name of the database, easily guessed

log = structlog.get_logger()


def prepare(
    database: Database, passwords: Mapping[str, str], *, owner: str, application: str, worker: str
) -> list[str]:
    """Create or update the roles, and transfer the database and its contents to the owner role.

    Args:
        database: connected as a superuser. If that needed no password, the superuser's password is removed.
        passwords: of all three roles.

    Returns:
        What was changed, in words. Passwords and privileges are set each time, which changes nothing if they are set
        already.
    """
    changes: list[str] = []
    with database.engine.begin() as connection:
        raw: Any = connection.connection.driver_connection
        identifiers = {
            "owner": sql.Identifier(owner),
            "application": sql.Identifier(application),
            "worker": sql.Identifier(worker),
            "rows": ROWS,
        }
        identifiers["database"] = sql.Identifier(raw.info.dbname)
        for role in (owner, application, worker):
            if raw.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
                raw.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
                changes.append(f"created the role {role}")
            # Send only the hash: statements may be logged.
            hashed = raw.pgconn.encrypt_password(passwords[role].encode(), role.encode(), b"scram-sha-256")
            raw.execute(
                sql.SQL(
                    "ALTER ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {}"
                ).format(sql.Identifier(role), hashed.decode())
            )
        owned = "SELECT pg_get_userbyid(datdba) = %s FROM pg_database WHERE datname = current_database()"
        if raw.execute(owned, (owner,)).fetchone() != (True,):
            changes.append(f"made {owner} the owner of the database")
        for statement in (
            "ALTER DATABASE {database} OWNER TO {owner}",
            "REVOKE ALL ON DATABASE {database} FROM PUBLIC",  # no temporary tables either
            "GRANT CONNECT ON DATABASE {database} TO {application}, {worker}",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            "REVOKE ALL ON SCHEMA public FROM {application}, {worker}",
            "GRANT USAGE, CREATE ON SCHEMA public TO {owner}",
            "GRANT USAGE ON SCHEMA public TO {application}, {worker}",
            # For tables that a restore creates, until the next ``grant`` sets the exact privileges.
            "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT {rows} ON TABLES TO {application}",
            "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT USAGE ON SEQUENCES TO {application}",
        ):
            raw.execute(sql.SQL(statement).format(**identifiers))
        changes += [f"made {owner} the owner of {item}" for item in _hand_over(raw, owner)]
        secret = raw.execute("SELECT rolpassword FROM pg_authid WHERE rolname = current_user").fetchone()
        if not raw.pgconn.used_password and secret != (None,):
            raw.execute("ALTER ROLE CURRENT_USER PASSWORD NULL")
            changes.append("removed the password of the superuser, who needs none over the socket")
    return changes


def _hand_over(raw: Any, owner: str) -> list[str]:
    """Transfer tables, with their indices and sequences, views and trigger functions to the owner role; returns their
    names."""
    names: list[str] = []
    owned = """SELECT 'table', tablename FROM pg_tables WHERE schemaname = 'public' AND tableowner <> %(owner)s
        UNION ALL SELECT 'view', viewname FROM pg_views WHERE schemaname = 'public' AND viewowner <> %(owner)s"""
    for kind, name in raw.execute(owned, {"owner": owner}).fetchall():
        change = sql.SQL("ALTER TABLE public.{} OWNER TO {}")  # also of a view
        raw.execute(change.format(sql.Identifier(name), sql.Identifier(owner)))
        names.append(f"{kind} {name}")
    functions = """SELECT proname, pg_get_function_identity_arguments(oid) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND pg_get_userbyid(proowner) <> %s
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')"""
    for name, arguments in raw.execute(functions, (owner,)).fetchall():
        raw.execute(
            sql.SQL("ALTER ROUTINE public.{}({}) OWNER TO {}").format(
                sql.Identifier(name), sql.SQL(arguments), sql.Identifier(owner)
            )
        )
        names.append(f"function {name}")
    return names


def write_passwords(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Write the passwords of roles, broker and bucket to files, random ones unless the operator chose them.

    Args:
        folder: for ``owner/database`` (migrations), ``app/database``, ``app/worker``, ``app/broker`` and
            ``app/redis.conf``, and ``app/s3`` and ``app/s3.json`` for the clients and the server of the bucket.
        environ: may have ``POSTGRES_PASSWORD``, of the application role, and ``REDIS_PASSWORD``.

    Returns:
        The passwords of the roles.

    Raises:
        SettingsError: a chosen password is not acceptable.
    """
    chosen = {name: environ.get(name, "") for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD")}
    faults = [
        f"{name} must be printable, and not {_REFUSED_PASSWORD!r}, the name of the database: "
        "choose another one, or omit it for a random one"
        for name, password in chosen.items()
        if password == _REFUSED_PASSWORD or not password.isprintable() or password != password.strip()
    ]
    if faults:
        raise SettingsError("; ".join(faults))
    passwords = {
        OWNER: _keep_or_create(folder / "owner" / "database", ""),
        APPLICATION: _keep_or_create(folder / "app" / "database", chosen["POSTGRES_PASSWORD"]),
        WORKER: _keep_or_create(folder / "app" / "worker", ""),
    }
    broker = _keep_or_create(folder / "app" / "broker", chosen["REDIS_PASSWORD"])
    quoted = broker.replace("\\", "\\\\").replace('"', '\\"')
    _keep(folder / "app" / "redis.conf", f'requirepass "{quoted}"\n')
    key = _keep_or_create(folder / "app" / "bucket", "")
    _keep(folder / "app" / "s3", f"[default]\naws_access_key_id = tapeline\naws_secret_access_key = {key}\n")
    identity = {
        "name": "tapeline",
        "credentials": [{"accessKey": "tapeline", "secretKey": key}],
        "actions": [f"{action}:tapeline" for action in ("Read", "Write", "List")],
    }
    _keep(folder / "app" / "s3.json", json.dumps({"identities": [identity]}))
    return passwords


def _keep_or_create(path: Path, chosen: str) -> str:
    """Return the chosen, the existing or a random password; write it to the file if it is new."""
    existing = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    password = chosen or existing or secrets.token_urlsafe(24)
    _keep(path, password)
    return password


def _keep(path: Path, text: str) -> None:
    """Write a file, unless it has this text."""
    if path.exists() and path.read_text(encoding="utf-8").strip() == text.strip():
        return
    # World-readable: containers run as different users, and mount only the folders that they need.
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o444)
    temporary.rename(path)
    log.info("wrote a password", file=str(path))


def main() -> int:
    """Prepare the configured database, and write passwords below ``TAPELINE_HOME``."""
    configure_logs("setup")
    try:
        settings = Settings.from_env(os.environ, cores=1)
        with closing(Database(settings.database_url, application="tapeline-roles")) as database:
            server_promises.require(database.engine)
            with database.engine.connect() as connection:
                find_revision(connection)
            passwords = write_passwords(settings.home / "secrets", os.environ)
            changes = prepare(database, passwords, owner=OWNER, application=APPLICATION, worker=WORKER)
    except SettingsError as error:
        sys.stderr.write(f"tapeline: {error}\n")
        return 2
    for change in changes or ["nothing to do: all roles exist, and own what they should"]:
        log.info(change)
    return 0


if __name__ == "__main__":
    sys.exit(main())
