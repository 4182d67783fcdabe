"""Upgrade the database to the schema of this version: ``python -m migrations.upgrade [--grant-to ROLE]
[--grant-to-workers ROLE] [--grant-demand-to ROLE]``.

With ``--grant-to``, the migrating role owns the schema, and ROLE gets the privileges that the service needs; with
``--grant-to-workers``, those that a worker needs; with ``--grant-demand-to``, only that to read ``tapeline_demand``.
``--check`` only says whether the database can be upgraded, ``--wait`` waits until another process has done it, and
``--downgrade-to REVISION`` takes it back to the schema of an older version.

Databases at revisions 0007 to 0013 belong to an earlier chain of migrations, and cross ``migrations/bridge`` first.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from migrations import newer_kinds, privileges
from service.errors import SettingsError, UnknownSchema
from service.runtime import broker, logs, server_promises
from service.runtime.settings import Settings
from service.storage.database import Database, DatabaseDamaged
from service.storage.tables import Base

_LOCK: Final = 7_267_001
"""An arbitrary id for migrations among PostgreSQL's advisory locks."""
_LOCK_TIMEOUT_S: Final = 3
"""How long a statement of a migration waits for a lock: all queries on the table wait behind it."""
_LOCK_ATTEMPTS: Final = 20
_LOCK_PAUSE_S: Final = 3.0
_LOCK_REMEDY: Final = (
    "Nothing of it was changed. The column xact_start of pg_stat_activity says which transactions are the oldest, and "
    "application_name whose they are. End them, and run this again: it goes on where it stopped"
)
_LOCK_ERRORS: Final = ("55P03", "40P01")
"""PostgreSQL's codes for a lock that was not available in time, and for a deadlock."""
_POLL_INTERVAL_S: Final = 1.0
_REPEAT_S: Final = 30.0
"""How often a wait says again what it waits for."""
_LAST_OF_0_2: Final = "0023"
_KINDS_OF_0_2: Final = ("classifier", "gan")
_FOLDER: Final = Path(__file__).parent
_MARKS: Final = {
    "0008": ("jobs", "extremes"),
    "0009": ("calibrations", "factors"),
    "0011": ("jobs", "size_bytes"),
    "0013": ("jobs", "upload_id"),
    "0014": ("audit_seals", "entries_digest"),
}
"""A column that a database has from this revision on, if it was made by the revision that is shipped: while the earlier
chain was developed, some numbers were used for other schemas, too."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Move:
    """The revisions before and after a migration; ``None`` for an empty database."""

    before: str | None
    after: str | None


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file. With a connection, Alembic uses it."""
    alembic = Config()
    alembic.set_main_option("script_location", str(_FOLDER))
    alembic.set_main_option("path_separator", "os")
    if connection is not None:
        alembic.attributes["connection"] = connection
    return alembic


def _bridge(connection: Connection | None = None) -> Config:
    alembic = config(connection)
    alembic.set_main_option("version_locations", str(_FOLDER / "bridge" / "versions"))
    return alembic


@contextmanager
def exclusively(database: Database) -> Iterator[Connection]:
    """A transaction that excludes concurrent migrations, without a time limit."""
    if database.is_sqlite and (path := make_url(database.url).database):
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = database.engine.execution_options(tapeline_begin="write")
    with engine.connect() as connection, _without_cascades(database, connection), connection.begin():
        if not database.is_sqlite:  # in SQLite, BEGIN IMMEDIATE locks the database
            _set_limits(connection)  # a migration, and the wait for one in another process, may take long
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


def upgrade(
    database: Database,
    *,
    grant_to: str | None = None,
    grant_to_workers: str | None = None,
    grant_demand_to: str | None = None,
) -> Move:
    """Apply the missing migrations. Of several concurrent processes, one migrates; the others wait for it.

    Args:
        grant_to: a PostgreSQL role that runs the service, but does not own the schema.
        grant_to_workers: a PostgreSQL role of workers on other machines.
        grant_demand_to: a PostgreSQL role of what starts and stops machines.

    Raises:
        UnknownSchema: this version cannot upgrade the database.
        SettingsError: two of the roles are the same, or one is the owner. In both cases the database is unchanged.
    """
    grants = [
        ("--grant-to", privileges.grant, grant_to),
        ("--grant-to-workers", privileges.grant_to_workers, grant_to_workers),
        ("--grant-demand-to", privileges.grant_demand, grant_demand_to),
    ]
    with exclusively(database) as connection:
        before = find_revision(connection)
        if database.is_sqlite:
            if before in revisions_of(_bridge())[1:]:
                command.upgrade(_bridge(connection), "head")
            command.upgrade(config(connection), "head")
            return Move(before, head())
        privileges.check(connection, {option: role for option, _, role in grants if role is not None})
        # This transaction only keeps others from migrating, and holds no lock of a table meanwhile.
        for chain in (_bridge, config):
            for revision in _missing(chain, before):
                _apply(database, partial(_upgrade_to, chain, revision), f"revision {revision}")
        for option, give, role in grants:
            if role is not None:
                _apply(database, partial(_give, give, role), option)
        return Move(before, head())


def _missing(chain: Callable[[], Config], revision: str | None) -> list[str]:
    """The revisions of a chain after this one, oldest first."""
    revisions = revisions_of(chain())
    if chain is _bridge:  # it ends where the other chain begins; an empty database needs none of it
        return revisions[: revisions.index(revision)][::-1] if revision in revisions else []
    return revisions[: revisions.index(revision)][::-1] if revision in revisions else revisions[::-1]


def _upgrade_to(chain: Callable[..., Config], revision: str, connection: Connection) -> None:
    command.upgrade(chain(connection), revision)


def _give(give: Callable[[Connection, str], None], role: str, connection: Connection) -> None:
    give(connection, role)


def _apply(database: Database, change: Callable[[Connection], None], name: str) -> None:
    """Make one change of PostgreSQL's schema, in a transaction of its own: it locks tables for as long as it takes. A
    lock that others hold is tried again, because their queries queue behind the one that waits.

    Raises:
        SettingsError: others hold it all the time. The changes before remain.
    """
    engine = database.engine.execution_options(tapeline_begin="write")
    for attempt in range(1, _LOCK_ATTEMPTS + 1):
        try:
            with engine.connect() as connection, connection.begin():
                _set_limits(connection, lock_timeout_s=_LOCK_TIMEOUT_S)
                change(connection)
            return
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in _LOCK_ERRORS:
                raise
            if attempt == _LOCK_ATTEMPTS:
                raise SettingsError(f"{name} needs a lock that other transactions hold. {_LOCK_REMEDY}") from error
            log.warning("a table is locked by other transactions; trying again", change=name, attempt=attempt)
        time.sleep(_LOCK_PAUSE_S)


def _set_limits(connection: Connection, lock_timeout_s: int = 0) -> None:
    """Let a transaction take as long as it needs, except for its waits for locks; 0: these, too."""
    limits = {"statement_timeout": 0, "idle_in_transaction_session_timeout": 0, "lock_timeout": lock_timeout_s}
    for name, limit_s in limits.items():
        connection.exec_driver_sql(f"SET LOCAL {name} = '{limit_s}s'")


def downgrade(database: Database, revision: str, *, delete_newer_kinds: bool = False) -> Move:
    """Take the schema back to that of an older version; what newer versions added is lost.

    Args:
        delete_newer_kinds: delete jobs and sweeps of kinds that the older version does not know.

    Raises:
        UnknownSchema: this version does not know the revision of the database.
        SettingsError: it cannot be taken back to this revision, or has such jobs. In each case nothing was changed.
    """
    with exclusively(database) as connection:
        before = find_revision(connection)
        older = revisions_of(config())
        older = older[older.index(before) :] if before in older else []
        if revision not in older:
            raise SettingsError(
                f"the database, at revision {before}, cannot be taken back to revision {revision}, only to one of: "
                f"{', '.join(reversed(older)) or 'none'}; restore a backup with the version that made it"
            )
        if revision <= _LAST_OF_0_2:
            newer_kinds.remove(connection, known=_KINDS_OF_0_2, delete=delete_newer_kinds)
        command.downgrade(config(connection), revision)
        return Move(before, revision)


def find_revision(connection: Connection) -> str | None:
    """The revision of a database that this version can upgrade; ``None``: it is empty.

    Raises:
        UnknownSchema: this version cannot upgrade it.
    """
    revision = MigrationContext.configure(connection).get_current_revision()
    inspector = inspect(connection)
    tables = set(inspector.get_table_names())
    if revision is None:
        if foreign := sorted(tables & set(Base.metadata.tables)):
            raise UnknownSchema("none", f"but has a table {foreign[0]}", "use an empty database")
        return None
    bridged, known = revisions_of(_bridge()), revisions_of(config())
    if revision not in known and revision not in bridged:
        if revision < bridged[-1]:
            remedy = f"upgrade it to {bridged[-1]} or later with an earlier version first, or use an empty database"
            raise UnknownSchema(revision, "which is too old for this version", remedy)
        remedy = "use the newer version that created it, or an empty database"
        raise UnknownSchema(revision, f"which this version (at {head()}) does not know", remedy)
    for number, (table, column) in _MARKS.items():
        exists = table in tables and column in {item["name"] for item in inspector.get_columns(table)}
        if exists != (revision >= number):
            problem = f"but {table}.{column}, of revision {number}, {'exists' if exists else 'is missing'}"
            remedy = "with the code that created it, take it back by a revision (alembic downgrade -1)"
            raise UnknownSchema(revision, problem, f"{remedy}, then upgrade it, or use an empty database")
    return revision


def head() -> str | None:
    """The revision of this version's schema."""
    return ScriptDirectory.from_config(config()).get_current_head()


def revisions_of(alembic: Config) -> list[str]:
    """All revisions of a chain, newest first."""
    return [script.revision for script in ScriptDirectory.from_config(alembic).walk_revisions()]


def is_current(database: Database) -> bool:
    """Whether the database has the schema of this version."""
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_heads() == (head(),)


def wait_for_schema(database: Database, timeout_s: float) -> str:
    """Wait until the database has the schema of this version, or of a newer one: migrations are additive. Returns its
    revision.

    Raises:
        SettingsError: not within this time; it says what is missing.
    """
    deadline, said, said_at = time.monotonic() + timeout_s, "", 0.0
    while True:
        try:
            with database.engine.connect() as connection:
                found = MigrationContext.configure(connection).get_current_revision()
            if found is not None and found >= str(head()):
                return found
            missing = f"the migration to revision {head()}: the database is at revision {found or 'none'}"
        except SQLAlchemyError as error:
            missing = f"the database: {str(getattr(error, 'orig', None) or error).strip()}"
        if time.monotonic() >= deadline:
            raise SettingsError(
                f"waited {timeout_s:g} seconds for {missing}; run python -m migrations.upgrade as its owner, or read "
                "the log of the process that does"
            )
        if missing != said or time.monotonic() - said_at >= _REPEAT_S:
            log.info(f"waiting for {missing}")
            said, said_at = missing, time.monotonic()
        time.sleep(_POLL_INTERVAL_S)


def configure_logs(process: str) -> None:
    """Log what a command did, without what Alembic says of each connection."""
    logs.configure(process)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def main() -> int:
    """Migrate the configured database."""
    parser = argparse.ArgumentParser(prog="python -m migrations.upgrade", description=main.__doc__)
    parser.add_argument("--grant-to", metavar="ROLE", help="PostgreSQL role that runs the service, if not the owner")
    parser.add_argument("--grant-to-workers", metavar="ROLE", help="PostgreSQL role of workers on other machines")
    parser.add_argument(
        "--grant-demand-to", metavar="ROLE", help="PostgreSQL role that reads the number of slots wanted"
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--check", action="store_true", help="only say whether the database can be upgraded")
    other.add_argument(
        "--wait",
        type=float,
        nargs="?",
        const=600.0,
        metavar="SECONDS",
        help="change nothing, and wait until another process has upgraded the database (default: 600)",
    )
    other.add_argument("--downgrade-to", metavar="REVISION", help="take the database back to an older schema")
    parser.add_argument(
        "--delete-newer-kinds",
        action="store_true",
        help="with --downgrade-to: delete jobs and sweeps of kinds that the older version does not know",
    )
    arguments = parser.parse_args()
    configure_logs("migrate")
    try:
        settings = Settings.from_env(os.environ, cores=1)
        with closing(Database(settings.database_url, application="tapeline-migrate")) as database:
            broker.require_kombu()
            server_promises.require(database.engine)
            if arguments.check:
                with database.engine.connect() as connection:
                    _report("checked", Move(find_revision(connection), head()))
            elif arguments.wait is not None:
                log.info("the schema is there", revision=wait_for_schema(database, arguments.wait))
            elif arguments.downgrade_to:
                move = downgrade(database, arguments.downgrade_to, delete_newer_kinds=arguments.delete_newer_kinds)
                _report("downgraded", move)
            else:
                move = upgrade(
                    database,
                    grant_to=arguments.grant_to,
                    grant_to_workers=arguments.grant_to_workers,
                    grant_demand_to=arguments.grant_demand_to,
                )
                _report("upgraded", move)
    except (SettingsError, DatabaseDamaged) as error:
        sys.stderr.write(f"tapeline: {error}\n")
        return 2
    return 0


def _report(what: str, move: Move) -> None:
    if move.before == move.after:
        log.info("nothing to do: the schema is current", revision=move.after)
    else:
        event = "the schema can be upgraded" if what == "checked" else f"{what} the schema"
        log.info(event, revision_before=move.before, revision_after=move.after)


if __name__ == "__main__":
    sys.exit(main())
