"""Back up a service into one tar file, verify a backup, and restore it into SQLite or PostgreSQL.

Order of the parts: ``manifest.json``, then ``rows/<table>/<number>.jsonl``; the files of uploads and
artifacts (``uploads/<id>/<name>``, ``files/<path>``) precede the rows that name them. All rows come from one
snapshot of the database. They are first copied to a temporary file, so that a slow reader of the pipe does
not keep a transaction open. A file that is removed during the backup, such as an old checkpoint of a running
job, is omitted together with its row.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from sqlalchemy.exc import SQLAlchemyError

from migrations import upgrade as migrations
from service.datasets.uploads import UploadFolder
from service.maintenance import retention
from service.maintenance import rows as rows_of
from service.maintenance.backup_format import BackupError, PartWriter, read_parts
from service.storage.artifacts import ArtifactDamaged, ArtifactKind, ArtifactStore
from service.storage.database import Database
from service.storage.tables import Artifact, Base, Upload

__all__ = ["BackupError", "Report", "backup", "restore", "verify"]

FORMAT: Final = 2
_ID: Final = r"[a-z]+_[0-9A-Za-z]+"
_FILE: Final = re.compile(rf"files/(({_ID})/(?:{'|'.join(ArtifactKind)})/[0-9A-Za-z._-]+)", re.ASCII)
_UPLOAD: Final = re.compile(rf"uploads/({_ID})/([0-9A-Za-z_-][0-9A-Za-z._-]*)", re.ASCII)
_ROWS: Final = re.compile(r"rows/([a-z_]+)/[0-9]+\.jsonl", re.ASCII)


@dataclass(slots=True)
class Report:
    """What a backup, verification or restore processed."""

    rows: Counter[str] = field(default_factory=Counter)
    files: int = 0
    size_bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    """Missing or damaged files that rows name; they are omitted together with their rows."""

    def add_file(self, size_bytes: int) -> None:
        """Count a file."""
        self.files += 1
        self.size_bytes += size_bytes


def backup(database: Database, store: ArtifactStore, upload_folder: UploadFolder, target: IO[bytes]) -> Report:
    """Write a backup to a file or pipe. The rows are buffered in a temporary file in the artifact folder.

    Raises:
        BackupError: the database has the schema of another version.
    """
    if not migrations.is_current(database):
        raise BackupError("the database has another version; upgrade it with: python -m migrations.upgrade")
    report, numbers = Report(), Counter[str]()
    upload_folder.artifacts.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=upload_folder.artifacts) as buffer:
        groups = []
        for table, data in rows_of.read_groups(database):
            groups.append((table, buffer.write(data)))
        buffer.seek(0)
        writer = PartWriter(target)
        writer.add("manifest.json", json.dumps({"format": FORMAT, "schema": migrations.head()}).encode())
        for table, size in groups:
            rows = [json.loads(line) for line in buffer.read(size).splitlines()]
            if table == rows_of.UPLOADS:
                rows = [row for row in rows if _add_upload(writer, database, upload_folder, row, report)]
            elif table == rows_of.ARTIFACTS:
                rows = [row for row in rows if _add_file(writer, database, store, row, report)]
            if rows:
                writer.add(f"rows/{table}/{numbers[table]:06d}.jsonl", rows_of.encode(rows))
                numbers[table] += 1
                report.rows[table] += len(rows)
        writer.finish()
    return report


def verify(source: IO[bytes]) -> Report:
    """Check every byte of a backup, and every row against the schema, without writing anything.

    Raises:
        BackupError: it is damaged, truncated, or of another version; the message names the part.
    """
    report, _ = _read(source, None)
    return report


def restore(database: Database, store: ArtifactStore, upload_folder: UploadFolder, source: IO[bytes]) -> Report:
    """Restore a backup into an empty database and an empty store, and upgrade the schema.

    All or nothing: the rows are inserted in one transaction after the last byte has been verified. After a failure the
    files are removed; after a kill, the next ``restore`` into the same folder removes them.

    Raises:
        BackupError: database or store are not empty, or the file is not a complete backup that this version can read.
    """
    rows_of.check_database_empty(database)
    with _start_attempt(store, upload_folder) as attempt:
        attempt.roll_back()
        if next(store.stored(), None) is not None:
            raise BackupError("there are artifacts already: restore into an empty folder")
        if next((upload_folder.artifacts / "datasets").glob("*"), None) is not None:
            raise BackupError("there are datasets already: restore into an empty folder")
        try:
            report, schema = _read(source, attempt)
            attempt.finish_uploads()
            rows_of.load(database, schema, attempt.rows())
        except BaseException:
            # If the response to the commit was lost, the rows may exist and need their files.
            with suppress(SQLAlchemyError, BackupError):
                rows_of.check_database_empty(database)
                attempt.roll_back()
            raise
        attempt.keep()
    return report


def _add_upload(
    writer: PartWriter, database: Database, upload_folder: UploadFolder, row: dict[str, Any], report: Report
) -> bool:
    """Add the files of an upload; returns whether there are any."""
    files = upload_folder.files(row["id"])
    for name, path in files.items():
        with suppress(FileNotFoundError), path.open("rb") as file:
            report.add_file(writer.add(f"uploads/{row['id']}/{name}", file))
            continue
        files = {}
        break
    if not files and _exists(database, Upload, row["id"]):
        report.damaged.append(f"the dataset {row['name']} has no files")
    return bool(files)


def _add_file(
    writer: PartWriter, database: Database, store: ArtifactStore, row: dict[str, Any], report: Report
) -> bool:
    """Add the file of an artifact; returns whether it is intact."""
    try:
        data = store.read(row["path"], row["sha256"])
    except ArtifactDamaged as error:
        if _exists(database, Artifact, row["id"]):
            report.damaged.append(str(error))
        return False
    report.add_file(writer.add(f"files/{row['path']}", data))
    return True


def _exists(database: Database, table: type[Base], key: str) -> bool:
    with database.read() as session:
        return session.get(table, key) is not None


def _read(source: IO[bytes], attempt: _Attempt | None) -> tuple[Report, str]:
    """Check a backup, and pass its parts to the attempt to restore it, if any; also returns the schema."""
    report, files, datasets = Report(), dict[str, str](), set[str]()
    parts = read_parts(source)
    schema = _read_manifest(parts)
    tables = rows_of.tables_of(schema)
    for name, content in parts:
        if match := _ROWS.fullmatch(name):
            table, data = match[1], b"".join(content)
            rows = rows_of.decode(name, tables.get(table), data)
            _check_files(name, table, rows, files, datasets)
            report.rows[table] += len(rows)
            if attempt:
                attempt.add_rows(name, table, data)
        elif match := _FILE.fullmatch(name):
            data = b"".join(content)
            files[match[1]] = hashlib.sha256(data).hexdigest()
            report.add_file(len(data))
            if attempt:
                attempt.add_file(match[2], match[1], data)
        elif match := _UPLOAD.fullmatch(name):
            datasets.add(match[1])
            report.add_file(attempt.add_upload(match[1], match[2], content) if attempt else sum(map(len, content)))
        else:
            raise BackupError(f"{name!r} is not a part of a backup")
    return report, schema


def _read_manifest(parts: Iterator[tuple[str, Iterator[bytes]]]) -> str:
    name, content = next(parts, ("", iter(())))
    try:
        manifest = json.loads(b"".join(content))
        version, schema = manifest["format"], str(manifest["schema"])
    except (ValueError, TypeError, KeyError) as error:
        raise BackupError(f"this is not a backup of Tapeline: {name!r} is not its manifest") from error
    if name != "manifest.json" or version != FORMAT:
        raise BackupError(
            f"the backup was made by another version of Tapeline (format {version}): restore it with that version"
        )
    return schema


def _check_files(part: str, table: str, rows: list[dict[str, Any]], files: dict[str, str], datasets: set[str]) -> None:
    for row in rows:
        if table == rows_of.ARTIFACTS and files.get(row["path"]) != row["sha256"]:
            raise BackupError(f"{part}: the file {row['path']} is missing in the backup, or damaged")
        if table == rows_of.UPLOADS and row["id"] not in datasets:
            raise BackupError(f"{part}: the files of the dataset {row['name']} are missing in the backup")


class _Attempt:
    """One attempt to restore. Files are written to their final paths; rows are buffered until the backup is verified.

    A journal records the ids of jobs and uploads before their first file is written, so that the files of an attempt
    that was killed can be identified and removed.
    """

    def __init__(self, store: ArtifactStore, upload_folder: UploadFolder, work: Path) -> None:
        self._store, self._upload_folder, self._work = store, upload_folder, work
        self._journal = work / "journal"
        self._journaled: set[str] = set()
        self._uploads: dict[str, Path] = {}
        self._parts: list[tuple[str, str, int]] = []

    def add_file(self, job_id: str, path: str, data: bytes) -> None:
        self._journal_key(job_id)
        self._store.put_all({path: data})

    def add_upload(self, upload_id: str, name: str, content: Iterator[bytes]) -> int:
        self._journal_key(upload_id)
        if upload_id not in self._uploads:
            self._uploads[upload_id] = self._upload_folder.begin(upload_id)
        with (self._uploads[upload_id] / name).open("xb") as file:
            size = sum(file.write(data) for data in content)
            file.flush()
            os.fsync(file.fileno())
        return size

    def add_rows(self, part: str, table: str, data: bytes) -> None:
        with (self._work / "rows").open("ab") as file:
            file.write(data)
        self._parts.append((part, table, len(data)))

    def finish_uploads(self) -> None:
        for upload_id, folder in self._uploads.items():
            self._upload_folder.finish(upload_id, folder)

    def rows(self) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
        """All rows, by part and table."""
        if self._parts:
            with (self._work / "rows").open("rb") as file:
                for part, table, size in self._parts:
                    yield part, table, [json.loads(line) for line in file.read(size).splitlines()]

    def roll_back(self) -> None:
        """Remove the files of this attempt, or of an earlier one that was killed."""
        if self._journal.exists():
            for key in self._journal.read_text().splitlines():
                if re.fullmatch(_ID, key, re.ASCII):
                    self._store.remove_job(key)
                    self._upload_folder.discard(key)
        self.keep()

    def keep(self) -> None:
        """Delete journal and buffered rows: the files belong to rows now."""
        self._journal.unlink(missing_ok=True)
        (self._work / "rows").unlink(missing_ok=True)

    def _journal_key(self, key: str) -> None:
        if key not in self._journaled:
            with self._journal.open("a") as file:
                file.write(f"{key}\n")
                file.flush()
                os.fsync(file.fileno())
            self._journaled.add(key)


@contextmanager
def _start_attempt(store: ArtifactStore, upload_folder: UploadFolder) -> Iterator[_Attempt]:
    """Lock a folder for one attempt to restore; afterwards, remove the empty folders that were created for
    it."""
    work = retention.restore_folder(upload_folder.artifacts)
    created = [folder for folder in (upload_folder.artifacts / "datasets", work, *work.parents) if not folder.exists()]
    work.mkdir(parents=True, exist_ok=True)
    try:
        with retention.lock_restore(work):
            try:
                yield _Attempt(store, upload_folder, work)
            finally:
                for folder in dict.fromkeys((work, *created)):
                    with suppress(OSError):
                        folder.rmdir()
    except BlockingIOError as error:
        raise BackupError("another restore into this folder is running") from error
