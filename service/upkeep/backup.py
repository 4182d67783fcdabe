"""A whole service in one tar file: every row, and every file that a row names. It is read back into either database.

In the file, in this order: ``manifest.json``, ``rows/<table>/<number>.jsonl``, ``uploads/<id>/<name>``,
``files/<path>``, the rows of artifacts (only those whose file is in), ``end.json`` with what there should be. It is
written and read as a stream. The rows are one state of the database; a file that was removed since, as running jobs
remove their older checkpoints, is left out together with its row.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

from alembic import command
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, func, insert, select, text

from migrations import upgrade as migrations
from service.contract import jobs
from service.contract.artifacts import ArtifactDamaged, ArtifactKind, ArtifactStore
from service.contract.database import Database
from service.contract.errors import ContractError
from service.contract.tables import Artifact, Base, Upload, Worker
from service.contract.uploads import UploadFolder

FORMAT: Final = 1
_CHUNK: Final = 500
_PASSING: Final = frozenset({Worker.__tablename__})
"""Tables that say what runs now: nothing of that is true of a copy."""
_ARTIFACTS: Final = Artifact.__tablename__
_UPLOADS: Final = Upload.__tablename__
_FILE: Final = re.compile(rf"files/([a-z]+_[0-9A-Za-z]+/(?:{'|'.join(ArtifactKind)})/[0-9A-Za-z._-]+)", re.ASCII)
_UPLOAD: Final = re.compile(r"uploads/([a-z]+_[0-9A-Za-z]+)/([0-9A-Za-z_-][0-9A-Za-z._-]*)", re.ASCII)
_ROWS: Final = re.compile(r"rows/([a-z_]+)/[0-9]+\.jsonl", re.ASCII)


class BackupError(ContractError):
    """A backup cannot be made or read back; the text says what to do."""


@dataclass(slots=True)
class Report:
    """What was copied."""

    rows: dict[str, int] = field(default_factory=dict)
    files: int = 0
    size_bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    """Files that rows name and that were not what was written: they are left out, and their rows too."""


def backup(database: Database, store: ArtifactStore, received: UploadFolder, target: IO[bytes]) -> Report:
    """Write everything to a file or pipe.

    Raises:
        BackupError: the schema is not this version's.
    """
    if not migrations.is_current(database):
        raise BackupError("the database is of another version; bring it up to date: python -m migrations.upgrade")
    report = Report()
    with (
        tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        tempfile.TemporaryFile("w+", encoding="utf-8") as named,
    ):
        _add(
            tar,
            "manifest.json",
            {"format": FORMAT, "schema": ScriptDirectory.from_config(migrations.config()).get_current_head()},
        )
        sent: list[dict[str, Any]] = []
        with database.read() as session:
            connection = session.connection().execution_options(stream_results=True)
            for table in Base.metadata.sorted_tables:
                if table.name == _ARTIFACTS:
                    for row in connection.execute(select(table)).mappings():
                        named.write(json.dumps(dict(row)) + "\n")
                elif table.name == _UPLOADS:
                    sent = [dict(row) for row in connection.execute(select(table)).mappings()]
                    report.rows[table.name] = _add_rows(tar, table.name, iter(sent))
                elif table.name not in _PASSING:
                    rows = (dict(row) for row in connection.execute(select(table)).mappings())
                    report.rows[table.name] = _add_rows(tar, table.name, rows)
        for upload in sent:
            _add_upload(tar, received, upload, report)
        named.seek(0)
        kept = _add_files(tar, database, store, (json.loads(line) for line in named), report)
        report.rows[_ARTIFACTS] = _add_rows(tar, _ARTIFACTS, iter(kept))
        report.rows = {name: count for name, count in report.rows.items() if count}
        _add(tar, "end.json", {"rows": report.rows, "files": report.files})
    return report


def restore(database: Database, store: ArtifactStore, received: UploadFolder, source: IO[bytes]) -> Report:
    """Read everything back into an empty database and an empty store, and bring the schema up to date.

    The rows are one transaction. Where it fails, files may be left, which the sweep removes.

    Raises:
        BackupError: something is in the way, or the file is not a whole backup that this version can read.
    """
    if next(store.stored(), None) is not None:
        raise BackupError("there are artifacts already: restore into an empty folder")
    report = Report()
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar, migrations.exclusively(database) as connection:
            members = ((member, tar.extractfile(member)) for member in tar if member.isfile())
            _prepare(connection, _first(members))
            tables = _reflect(connection)
            seen: dict[str, str] = {}
            begun: dict[str, Path] = {}
            end: dict[str, Any] | None = None
            for member, content in members:
                if content is None or end is not None:
                    raise BackupError(f"{member.name} should not be there")
                if rows := _ROWS.fullmatch(member.name):
                    _insert(connection, tables, rows[1], content, seen, report)
                elif file := _FILE.fullmatch(member.name):
                    data = content.read()
                    store.put(file[1], data)
                    seen[file[1]] = hashlib.sha256(data).hexdigest()
                    report.files += 1
                    report.size_bytes += len(data)
                elif upload := _UPLOAD.fullmatch(member.name):
                    if upload[1] not in begun:
                        begun[upload[1]] = received.begin(upload[1])
                    _write(begun[upload[1]] / upload[2], content)
                    report.files += 1
                    report.size_bytes += member.size
                elif member.name == "end.json":
                    end = json.load(content)
                else:
                    raise BackupError(f"{member.name[:100]!r} is no part of a backup")
            if end is None or end != {"rows": report.rows, "files": report.files}:
                raise BackupError("the backup is not whole: it was cut off, or files are missing in it")
            for upload_id, folder in begun.items():
                received.finish(upload_id, folder)
            _go_on_counting(connection, tables.values())
            command.upgrade(migrations.config(connection), "head")
            connection.execute(jobs.measurement())  # the rows of files that were left out are not there
    except tarfile.TarError as error:
        raise BackupError(f"this is no backup, or it was cut off: {error}") from error
    return report


def _add(tar: tarfile.TarFile, name: str, document: object) -> None:
    _add_bytes(tar, name, json.dumps(document).encode())


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _add_rows(tar: tarfile.TarFile, table: str, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    while chunk := list(islice(rows, _CHUNK)):
        lines = "".join(json.dumps(row) + "\n" for row in chunk)
        _add_bytes(tar, f"rows/{table}/{count // _CHUNK:06d}.jsonl", lines.encode())
        count += len(chunk)
    return count


def _add_upload(tar: tarfile.TarFile, received: UploadFolder, row: dict[str, Any], report: Report) -> None:
    files = received.files(row["id"])
    if not files:
        report.damaged.append(f"the data set {row['name']} has no files")
    for name, path in files.items():
        with path.open("rb") as file:
            member = tarfile.TarInfo(f"uploads/{row['id']}/{name}")
            member.size = path.stat().st_size
            tar.addfile(member, file)
        report.files += 1
        report.size_bytes += member.size


def _write(path: Path, content: IO[bytes]) -> None:
    with path.open("xb") as file:
        shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())


def _add_files(
    tar: tarfile.TarFile, database: Database, store: ArtifactStore, rows: Iterable[dict[str, Any]], report: Report
) -> list[dict[str, Any]]:
    """Put the files in, and give the rows of those that are."""
    kept: list[dict[str, Any]] = []
    for row in rows:
        try:
            data = store.read(row["path"], row["sha256"])
        except ArtifactDamaged as error:
            with database.read() as session:
                if session.get(Artifact, row["id"]) is not None:
                    report.damaged.append(str(error))
            continue
        _add_bytes(tar, f"files/{row['path']}", data)
        report.files += 1
        report.size_bytes += len(data)
        kept.append(row)
    return kept


def _first(members: Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]) -> dict[str, Any]:
    member, content = next(members, (None, None))
    if member is None or content is None or member.name != "manifest.json":
        raise BackupError("this is no backup of Tapeline")
    found = json.load(content)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise BackupError("the backup was made by another version of Tapeline: restore it with that one")
    return found


def _prepare(connection: Connection, manifest: dict[str, Any]) -> None:
    """Bring an empty database to the schema of the backup."""
    schema, script = manifest.get("schema"), ScriptDirectory.from_config(migrations.config())
    known = [revision.revision for revision in script.walk_revisions()]
    if schema not in known:
        raise BackupError(f"the backup has the schema {schema!r}: restore it with a newer version of Tapeline")
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None:
        for name, table in _reflect(connection).items():
            if name not in _PASSING and connection.scalar(select(func.count()).select_from(table)):
                raise BackupError(f"the database is not empty (table {name}): restore into a new one")
    move = command.upgrade if found is None or known.index(found) > known.index(schema) else command.downgrade
    move(migrations.config(connection), schema)


def _reflect(connection: Connection) -> dict[str, Table]:
    """The tables as they are in the database, which may be older than the code."""
    metadata = MetaData()
    metadata.reflect(connection)
    return {name: table for name, table in metadata.tables.items() if name != "alembic_version"}


def _insert(
    connection: Connection,
    tables: dict[str, Table],
    name: str,
    content: IO[bytes],
    seen: dict[str, str],
    report: Report,
) -> None:
    rows = [json.loads(line) for line in content]
    if name not in tables or name in _PASSING or not rows:
        raise BackupError(f"a table {name} is no part of this backup's schema")
    if name == _ARTIFACTS:
        for row in rows:
            if seen.get(row["path"]) != row["sha256"]:
                raise BackupError(f"the file {row['path']} is missing in the backup, or damaged")
    connection.execute(insert(tables[name]), rows)
    report.rows[name] = report.rows.get(name, 0) + len(rows)


def _go_on_counting(connection: Connection, tables: Iterable[Table]) -> None:
    """PostgreSQL numbers rows from a sequence, which knows nothing of rows that brought their number along."""
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
