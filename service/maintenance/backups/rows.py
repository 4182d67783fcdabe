"""Rows of a backup: read them from the database, check them against the backup's schema, and insert them again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.runtime.migration import MigrationContext
from sqlalchemy import JSON, Connection, MetaData, Table, func, insert, make_url, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from migrations import upgrade as migrations
from service.access import owners
from service.jobs import leases
from service.maintenance.backups.backup_format import BackupError
from service.states import Reason, Status
from service.storage import artifact_rows
from service.storage.database import Database
from service.storage.file_tables import DamagedFile, FileCheck
from service.storage.owner_tables import Owner, OwnerDefaults, OwnerQueue, UploadProgress
from service.storage.tables import Artifact, Base, Job, SchedulerHeartbeat, Store, Upload, Worker

ARTIFACTS: Final = Artifact.__tablename__
UPLOADS: Final = Upload.__tablename__
_TRANSIENT: Final = frozenset(
    table.__tablename__
    for table in (
        *(Worker, SchedulerHeartbeat, Store, FileCheck, DamagedFile),
        *(OwnerQueue, OwnerDefaults, UploadProgress),
    )
)
"""Tables that describe running processes, their settings, and their folder and its files, which a copy does not have,
or that triggers of ``jobs`` fill."""
_GROUP_ROWS: Final = 500


def encode(rows: Iterable[dict[str, Any]]) -> bytes:
    """Rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read_groups(database: Database) -> Iterator[tuple[str, bytes]]:
    """All rows from one snapshot, in groups of table name and JSON lines. Tables whose rows name files come last. The
    transaction stays open until the last group is read."""
    tables = sorted(Base.metadata.sorted_tables, key=lambda table: (table.name == ARTIFACTS, table.name == UPLOADS))
    with database.read() as session:
        connection = session.connection().execution_options(stream_results=True)
        for table in tables:
            if table.name not in _TRANSIENT:
                rows = (dict(row) for row in connection.execute(select(table)).mappings())
                while group := list(islice(rows, _GROUP_ROWS)):
                    yield table.name, encode(group)


@cache
def tables_of(schema: str) -> dict[str, Table]:
    """The tables in a backup of this schema.

    Raises:
        BackupError: the schema is newer than the code, or older than its first one.
    """
    revisions = migrations.revisions_of(migrations.config())
    if schema not in revisions:
        remedy = (
            "the version that made it, and upgrade that" if schema < revisions[-1] else "a newer version of Tapeline"
        )
        raise BackupError(f"the backup has the schema {schema!r}: restore it with {remedy}")
    with closing(Database("sqlite://")) as scratch, migrations.exclusively(scratch) as connection:
        command.upgrade(migrations.config(connection), schema)
        return {name: table for name, table in _reflect(connection).items() if name not in _TRANSIENT}


def decode(part: str, table: Table | None, data: bytes) -> list[dict[str, Any]]:
    """The rows of a part.

    Raises:
        BackupError: columns are missing or unknown, or a value does not fit its column.
    """
    if table is None:
        raise BackupError(f"{part}: the schema of this backup has no such table")
    try:
        rows = [json.loads(line) for line in data.splitlines()]
    except (ValueError, RecursionError) as error:
        raise BackupError(f"{part}: a row is not JSON: {error}") from error
    for number, row in enumerate(rows, start=1):
        if fault := _fault(table, row):
            raise BackupError(f"{part}, line {number}: {fault}")
    return rows


def check_empty(connection: Connection) -> None:
    """Raise BackupError if any table has rows."""
    for name, table in _reflect(connection).items():
        if name not in _TRANSIENT and connection.scalar(select(func.count()).select_from(table)):
            raise BackupError(f"the database is not empty (table {name}): restore into a new one")


def check_database_empty(database: Database) -> None:
    """Like ``check_empty``, but does not create a missing SQLite file."""
    if database.is_sqlite and not Path(make_url(database.url).database or "").exists():
        return
    with database.engine.connect() as connection:
        check_empty(connection)


def load(database: Database, schema: str, parts: Iterable[tuple[str, str, list[dict[str, Any]]]]) -> None:
    """Insert rows (part, table, rows) into an empty database and upgrade its schema, in one transaction.

    Raises:
        BackupError: the database is not empty, has the schema of a newer version, or rejects the rows.
    """
    with migrations.exclusively(database) as connection:
        _prepare(connection, schema)
        tables = _reflect(connection)
        for part, name, rows in parts:
            try:
                connection.execute(insert(tables[name]), rows)
            except SQLAlchemyError as error:
                reason = str(getattr(error, "orig", None) or error).splitlines()[0]
                raise BackupError(f"{part}: the database rejects these rows: {reason}") from error
        _advance_sequences(connection, tables.values())
        if not database.is_sqlite:  # a table with pending triggers cannot be altered
            connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        command.upgrade(migrations.config(connection), "head")
        connection.execute(artifact_rows.job_sizes_update())  # without the artifacts that the backup omitted
        with Session(connection) as session:
            _release_leases(session)
            for owner in session.scalars(select(Owner.id)):
                owners.copy_to_queue(database, session, owner)
            session.commit()


def _release_leases(session: Session) -> None:
    """Queue the jobs that ran during the backup: no worker of this database has their leases."""
    running = Job.status == Status.RUNNING
    session.execute(update(Job).where(running).values(claimed_ms=None))  # the time since then is not charged
    for job in session.scalars(select(Job).where(running)):
        leases.release(session, job, reason=Reason.RELEASED)


def _prepare(connection: Connection, schema: str) -> None:
    """Migrate an empty database to the schema of the backup."""
    revisions, current = (
        migrations.revisions_of(migrations.config()),
        MigrationContext.configure(connection).get_current_revision(),
    )
    if current is not None:
        check_empty(connection)
        if current not in revisions:
            raise BackupError(f"the database has the schema {current!r}, of a newer version: restore into a new one")
    migrate = (
        command.upgrade if current is None or revisions.index(current) > revisions.index(schema) else command.downgrade
    )
    migrate(migrations.config(connection), schema)


def _reflect(connection: Connection) -> dict[str, Table]:
    """The tables of the database, whose schema may be older than this version's."""
    metadata = MetaData()
    metadata.reflect(connection)
    return {name: table for name, table in metadata.tables.items() if name != "alembic_version"}


def _fault(table: Table, row: object) -> str | None:
    """Why this is not a valid row of the table; ``None`` if it is."""
    if not isinstance(row, dict):
        return "this is not a JSON object"
    columns = set(table.columns.keys())
    if unknown := row.keys() - columns:
        return f"the table {table.name} has no column {min(unknown)!r}"
    if missing := columns - row.keys():
        return f"the column {min(missing)!r} of the table {table.name} is missing"
    for column in table.columns:
        value = row[column.name]
        if isinstance(column.type, JSON) or (value is None and column.nullable):
            continue
        kind = column.type.python_type
        if type(value) is not kind and not (kind is float and type(value) is int):
            return f"{column.name!r} of the table {table.name} cannot be {json.dumps(value)[:40]}"
    return None


def _advance_sequences(connection: Connection, tables: Iterable[Table]) -> None:
    """Set PostgreSQL's sequences past the inserted ids: inserts with an explicit id do not advance them."""
    if connection.dialect.name != "postgresql":
        return
    for table in tables:
        key = list(table.primary_key.columns)
        if len(key) == 1 and key[0].identity is None and key[0].autoincrement is True:
            name = {"table": table.name, "column": key[0].name}
            highest = connection.scalar(select(func.max(key[0])))
            if highest is not None:
                connection.execute(
                    text("SELECT setval(pg_get_serial_sequence(:table, :column), :n)"), name | {"n": highest}
                )
