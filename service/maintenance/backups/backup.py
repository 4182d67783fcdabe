"""Back up a service into one tar file, verify a backup, and restore it into SQLite or PostgreSQL.

Order of the parts: ``manifest.json``, then ``rows/<table>/<number>.jsonl``; the files of uploads and
artifacts (``uploads/<id>/<name>``, ``files/<path>``) precede the rows that name them. All rows come from one
snapshot of the database. They are first copied to a temporary file, so that a slow reader of the pipe does
not keep a transaction open. A file that is removed during the backup, such as an old checkpoint of a running
job, is omitted together with its row.

A backup without the files of jobs (format 3) names their store in the manifest; the rows have names and digests. It is
restored beside a store that has the files.

The manifest also names the service, by the id of its store, and has the key that signs certificates, if that was asked
for. Version 0.2.0 ignores both.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from migrations import upgrade as migrations
from service.datasets.uploads import UploadFiles
from service.maintenance import retention
from service.maintenance.backups import rows as rows_of
from service.maintenance.backups import signing_key_backup
from service.maintenance.backups.backup_format import BackupError, PartWriter, read_parts
from service.storage.artifacts import ArtifactDamaged, ArtifactKind, ArtifactStore, ArtifactUnreadable
from service.storage.database import Database
from service.storage.tables import Artifact, Base, Store, Upload

__all__ = ["BackupError", "Report", "backup", "restore", "verify"]

FORMAT: Final = 2
FORMAT_WITHOUT_FILES: Final = 3
_CONCURRENT_CHECKS: Final = 8
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
    store: str | None = None
    """The address of the store that has the files of jobs, if the backup has none."""
    signing_key: str | None = None
    """The id of the key that signs certificates, if the backup has it."""

    def add_file(self, size_bytes: int) -> None:
        """Count a file."""
        self.files += 1
        self.size_bytes += size_bytes


def backup(
    database: Database,
    uploads: UploadFiles,
    target: IO[bytes],
    *,
    with_files: bool = True,
    signing_key: str | None = None,
) -> Report:
    """Write a backup to a file or pipe. The rows are buffered in a temporary file in the artifact folder.

    Args:
        with_files: include the files; otherwise, their names and digests only.
        signing_key: the private key that signs certificates, as PEM, which the backup then has.

    Raises:
        BackupError: the database has the schema of another version.
    """
    if not migrations.is_current(database):
        raise BackupError("the database has another version; upgrade it with: python -m migrations.upgrade")
    report, numbers, store = Report(), Counter[str](), uploads.store
    uploads.artifacts.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=uploads.artifacts) as buffer:
        groups = []
        for table, data in rows_of.read_groups(database):
            groups.append((table, buffer.write(data)))
        buffer.seek(0)
        writer = PartWriter(target)
        manifest: dict[str, Any] = {"format": FORMAT, "schema": migrations.head(), "service": _read_service(database)}
        if signing_key is not None:
            report.signing_key = signing_key_backup.kid_of(signing_key.encode(), "of this service")
            manifest["signing_key"] = signing_key
        if not with_files:
            report.store = store.address
            manifest |= {"format": FORMAT_WITHOUT_FILES, "store": {"address": store.address, "id": store.read_id()}}
        writer.add("manifest.json", json.dumps(manifest).encode())
        for table, size in groups:
            rows = [json.loads(line) for line in buffer.read(size).splitlines()]
            if table == rows_of.UPLOADS and with_files:
                rows = [row for row in rows if _add_upload(writer, database, uploads, row, report)]
            elif table == rows_of.ARTIFACTS and with_files:
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
    parts = read_parts(source)
    manifest = _read_manifest(parts)
    return _read(parts, manifest, None)


def service_of(source: IO[bytes]) -> str | None:
    """The id of the service that a backup, or the beginning of one, is of; ``None``: it does not say.

    Raises:
        BackupError: it is none.
    """
    return _read_manifest(read_parts(source)).service


def _read_service(database: Database) -> str | None:
    """The id that the service has by its store, once it has started."""
    with database.read() as session:
        return session.scalar(select(Store.id))


def restore(
    database: Database, uploads: UploadFiles, source: IO[bytes], *, signing_key_file: Path | None = None
) -> Report:
    """Restore a backup into an empty database and an empty store, and upgrade the schema.

    All or nothing: the rows are inserted in one transaction after the last byte has been verified. After a failure the
    files are removed; after a kill, the next ``restore`` into the same folder removes them.

    Of a backup without files, rows are omitted whose file is not in the store or has another size. A dataset without
    its files is reported, and its row kept, since jobs name it.

    Args:
        signing_key_file: where the key that signs certificates is put, if the backup has it; ``None``: nowhere.

    Raises:
        BackupError: another signing key is in its file, or database or store are not empty, or the file is not a
            complete backup that this version can read, or the store has none of the files of a backup without them.
    """
    rows_of.check_database_empty(database)
    parts = read_parts(source)
    manifest = _read_manifest(parts)
    key = manifest.signing_key if signing_key_file is not None else None
    if signing_key_file is not None and key is not None:
        signing_key_backup.check_place(signing_key_file, key)
    with _start_attempt(uploads) as attempt:
        attempt.roll_back()
        if manifest.store is None and next(uploads.store.stored(), None) is not None:
            raise BackupError("there are artifacts already: restore into an empty folder")
        if manifest.store is None and not uploads.is_empty():
            raise BackupError("there are datasets already: restore into an empty folder")
        key_is_new = False
        try:
            report = _read(parts, manifest, attempt)
            lost = set() if manifest.store is None else _find_lost(uploads, manifest.store, attempt, report)
            attempt.finish_uploads()
            if signing_key_file is not None and key is not None:
                key_is_new = signing_key_backup.put_back(signing_key_file, key)
            rows_of.load(database, manifest.schema, attempt.rows(without=lost))
        except BaseException:
            # If the response to the commit was lost, the rows may exist and need their files, and the key.
            with suppress(SQLAlchemyError, BackupError):
                rows_of.check_database_empty(database)
                attempt.roll_back()
                if key_is_new and signing_key_file is not None:
                    signing_key_file.unlink(missing_ok=True)
            raise
        attempt.keep()
    return report


def _add_upload(
    writer: PartWriter, database: Database, uploads: UploadFiles, row: dict[str, Any], report: Report
) -> bool:
    """Add the files of an upload; returns whether they are there."""
    try:
        for name in uploads.names(row["id"]):
            with uploads.open(row["id"], name) as file:
                report.add_file(writer.add(f"uploads/{row['id']}/{name}", file))
    except ArtifactUnreadable:
        raise
    except ArtifactDamaged as error:
        if _exists(database, Upload, row["id"]):
            report.damaged.append(f"the dataset {row['name']}: {error}")
        return False
    return True


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


def _find_lost(uploads: UploadFiles, former: str, attempt: _Attempt, report: Report) -> set[str]:
    """The ids of the rows whose file is not in the store; they are reported."""
    store, count, lost = uploads.store, 0, set[str]()
    with ThreadPoolExecutor(_CONCURRENT_CHECKS) as pool:
        for _, table, rows in attempt.rows():
            if table == rows_of.ARTIFACTS:
                count += len(rows)
                for row, error in zip(rows, pool.map(functools.partial(_find_fault, store), rows), strict=True):
                    if error is not None:
                        lost.add(row["id"])
                        report.damaged.append(error)
            elif table == rows_of.UPLOADS:
                report.damaged += [error for row in rows if (error := _find_upload_fault(uploads, row)) is not None]
    if count and len(lost) == count:
        raise BackupError(
            f"{store.address} has none of the {count} files of this backup, which has their names and digests only: "
            f"set TAPELINE_STORE to the store that has them (it was {former}). A backup with --files has them, too"
        )
    return lost


def _find_upload_fault(uploads: UploadFiles, row: dict[str, Any]) -> str | None:
    """Why the files of a dataset are not in the store; their content is checked when they are read."""
    try:
        for name in uploads.names(row["id"]):
            uploads.store.size(uploads.path(row["id"], name))
    except ArtifactUnreadable as error:
        raise BackupError(f"{error}: restore again when the store responds") from error
    except ArtifactDamaged as error:
        return f"the dataset {row['name']}: {error}"
    return None


def _find_fault(store: ArtifactStore, row: dict[str, Any]) -> str | None:
    """Why the file of a row is not in the store; its content is checked when it is read."""
    try:
        size = store.size(row["path"])
    except ArtifactUnreadable as error:
        raise BackupError(f"{error}: restore again when the store responds") from error
    except ArtifactDamaged as error:
        return str(error)
    return None if size == row["size_bytes"] else f"{row['path']}: has {size} bytes instead of {row['size_bytes']}"


@dataclass(frozen=True, slots=True)
class _Manifest:
    """What a backup says of itself.

    Attributes:
        store: the address of the store that has the files of jobs; ``None``: the backup has them.
        service: the id of the service; ``None``: of a former version, or of a service that had not started yet.
        signing_key: the private key that signs certificates, as PEM, and its id; ``None``: the backup does not have it.
    """

    schema: str
    store: str | None
    service: str | None
    signing_key: str | None
    kid: str | None


def _read(parts: Iterator[tuple[str, Iterator[bytes]]], manifest: _Manifest, attempt: _Attempt | None) -> Report:
    """Check a backup, and pass its parts to the attempt to restore it, if any."""
    report = Report(store=manifest.store, signing_key=manifest.kid)
    files, datasets = dict[str, str](), set[str]()
    tables = rows_of.tables_of(manifest.schema)
    for name, content in parts:
        if match := _ROWS.fullmatch(name):
            table, data = match[1], b"".join(content)
            rows = rows_of.decode(name, tables.get(table), data)
            _check_files(name, table, rows, files if manifest.store is None else None, datasets)
            report.rows[table] += len(rows)
            if attempt:
                attempt.add_rows(name, table, data)
        elif (match := _FILE.fullmatch(name)) and manifest.store is None:
            data = b"".join(content)
            files[match[1]] = hashlib.sha256(data).hexdigest()
            report.add_file(len(data))
            if attempt:
                attempt.add_file(match[2], match[1], data)
        elif (match := _UPLOAD.fullmatch(name)) and manifest.store is None:
            datasets.add(match[1])
            report.add_file(attempt.add_upload(match[1], match[2], content) if attempt else sum(map(len, content)))
        else:
            raise BackupError(f"{name!r} is not a part of a backup")
    return report


def _read_manifest(parts: Iterator[tuple[str, Iterator[bytes]]]) -> _Manifest:
    name, content = next(parts, ("", iter(())))
    try:
        manifest = json.loads(b"".join(content))
        version, schema = manifest["format"], str(manifest["schema"])
        store = str(manifest["store"]["address"]) if version == FORMAT_WITHOUT_FILES else None
    except (ValueError, TypeError, KeyError) as error:
        raise BackupError(f"this is not a backup of Tapeline: {name!r} is not its manifest") from error
    if name != "manifest.json" or version not in (FORMAT, FORMAT_WITHOUT_FILES):
        raise BackupError(
            f"the backup was made by another version of Tapeline (format {version}): restore it with that version"
        )
    service, key = manifest.get("service"), manifest.get("signing_key")
    kid = None if key is None else signing_key_backup.kid_of(str(key).encode(), "in the backup")
    return _Manifest(schema, store, service, key, kid)


def _check_files(
    part: str, table: str, rows: list[dict[str, Any]], files: dict[str, str] | None, datasets: set[str]
) -> None:
    for row in rows:
        if files is not None and table == rows_of.ARTIFACTS and files.get(row["path"]) != row["sha256"]:
            raise BackupError(f"{part}: the file {row['path']} is missing in the backup, or damaged")
        if files is not None and table == rows_of.UPLOADS and row["id"] not in datasets:
            raise BackupError(f"{part}: the files of the dataset {row['name']} are missing in the backup")


class _Attempt:
    """One attempt to restore. Files are written to their final paths; rows are buffered until the backup is verified.

    A journal records the ids of jobs and uploads before their first file is written, so that the files of an attempt
    that was killed can be identified and removed.
    """

    def __init__(self, uploads: UploadFiles, work: Path) -> None:
        self._uploads, self._work = uploads, work
        self._journal = work / "journal"
        self._journaled: set[str] = set()
        self._received: set[str] = set()
        self._parts: list[tuple[str, str, int]] = []

    def add_file(self, job_id: str, path: str, data: bytes) -> None:
        self._journal_key(job_id)
        self._uploads.store.put_all({path: data})

    def add_upload(self, upload_id: str, name: str, content: Iterator[bytes]) -> int:
        self._journal_key(upload_id)
        folder = self._work / upload_id
        if upload_id not in self._received:
            self._received.add(upload_id)
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
            folder.mkdir()
        with (folder / name).open("xb") as file:
            size = sum(file.write(data) for data in content)
            file.flush()
            os.fsync(file.fileno())
        return size

    def add_rows(self, part: str, table: str, data: bytes) -> None:
        with (self._work / "rows").open("ab") as file:
            file.write(data)
        self._parts.append((part, table, len(data)))

    def finish_uploads(self) -> None:
        for upload_id in self._received:
            self._uploads.add(upload_id, self._work / upload_id)

    def rows(self, *, without: Container[str] = ()) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
        """All rows, by part and table, without those of artifacts with these ids."""
        if self._parts:
            with (self._work / "rows").open("rb") as file:
                for part, table, size in self._parts:
                    rows = [json.loads(line) for line in file.read(size).splitlines()]
                    if table == rows_of.ARTIFACTS:
                        rows = [row for row in rows if row["id"] not in without]
                    if rows:
                        yield part, table, rows

    def roll_back(self) -> None:
        """Remove the files of this attempt, or of an earlier one that was killed."""
        if self._journal.exists():
            for key in self._journal.read_text().splitlines():
                if re.fullmatch(_ID, key, re.ASCII):
                    self._uploads.store.remove_folder(key)
                    self._uploads.discard(key)
        self.keep()

    def keep(self) -> None:
        """Delete journal and what is buffered: the files belong to rows now."""
        for folder in self._work.glob("*/"):
            shutil.rmtree(folder, ignore_errors=True)
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
def _start_attempt(uploads: UploadFiles) -> Iterator[_Attempt]:
    """Lock a folder for one attempt to restore; afterwards, remove the empty folders that were created for
    it."""
    work = retention.restore_folder(uploads.artifacts)
    created = [folder for folder in (uploads.artifacts / "datasets", work, *work.parents) if not folder.exists()]
    work.mkdir(parents=True, exist_ok=True)
    try:
        with retention.lock_restore(work):
            try:
                yield _Attempt(uploads, work)
            finally:
                for folder in dict.fromkeys((work, *created)):
                    with suppress(OSError):
                        folder.rmdir()
    except BlockingIOError as error:
        raise BackupError("another restore into this folder is running") from error
