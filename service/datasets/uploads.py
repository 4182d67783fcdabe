"""Uploaded datasets: their rows, which are the commit point, and their files.

The files are in the store as ``datasets/<id>/<name>``: arrays and ``meta.json``, their digests. With a folder as the
store, arrays are mapped where they are. From an object store, each machine copies them into its cache once. What is
copied is compared with the digest in the row. ``datasets/<name>-<key>`` has arrays that one machine has downloaded for
all.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
import time
from array import array
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Final

from sqlalchemy import Select, delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.access import audit, owners
from service.access.audit import Actor, AuditAction
from service.datasets.info import (
    COLUMNS_FILE,
    IDX_NAMES,
    META,
    TEST_NAMES,
    DatasetInfo,
    content_sha256,
    version_name,
)
from service.errors import NoSpaceLeft, UploadExists, UploadInUse
from service.runtime.settings import Settings
from service.states import DatasetKind, Status
from service.storage import artifact_rows
from service.storage.artifacts import ArtifactDamaged, ArtifactStore, ArtifactUnreadable
from service.storage.database import Database, locking, now_ms
from service.storage.stores import open_store
from service.storage.tables import Job, Upload

_DIGITS: Final = re.compile(r"[0-9a-f]{6,64}")
_ROOT: Final = "datasets"
_PREFIX: Final = "ds_"
_CHUNK_BYTES: Final = 2**20
_HEADER: Final = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(\|u1|<f8)', 'fortran_order': False, 'shape': \(([0-9, ]+)\), \} *\n", re.DOTALL
)
_HEADER_BYTES: Final = 128
_IDX_BYTE, _IDX_DOUBLE = 0x08, 0x0E
_UNFINISHED: Final = (Status.QUEUED, Status.RUNNING, Status.PAUSED)


def parts(name: str) -> tuple[str, str]:
    """Split ``mine@1a2b3c`` into the name and the first digits of a version's SHA-256; without a version, "".

    Raises:
        ValueError: the part after the ``@`` is not 6 to 64 hexadecimal digits.
    """
    base_name, separator, digits = name.partition("@")
    if separator and _DIGITS.fullmatch(digits) is None:
        raise ValueError(f"{name!r} names no version")
    return base_name, digits


def of_id(session: Session, upload_id: str) -> Upload | None:
    """One version, even if its owner has deleted it; ``None`` once it is purged."""
    return session.get(Upload, upload_id)


def versions(session: Session, name: str, *, owner: str | None) -> Sequence[Upload]:
    """All versions of one name, newest first: the owner's, otherwise those that an admin has published."""
    published = select(Upload).where(Upload.shared, Upload.name == name, Upload.deleted_ms.is_(None))
    own = session.scalars(_versions(name, "", owner)).all()
    return own or session.scalars(published.order_by(Upload.created_ms.desc(), Upload.id.desc())).all()


def listed(session: Session, *, owner: str | None) -> Sequence[Upload]:
    """All versions of the datasets that an owner can use, as ``versions`` has them: by name, newest first."""
    is_own = Upload.owner == (owner or "")
    rows = session.scalars(
        select(Upload)
        .where(or_(is_own, Upload.shared), Upload.deleted_ms.is_(None))
        .order_by(Upload.name, Upload.created_ms.desc(), Upload.id.desc())
    ).all()
    own = {row.name for row in rows if row.owner == (owner or "")}
    return [row for row in rows if row.owner == (owner or "") or row.name not in own]


def publish(database: Database, name: str, *, shared: bool, owner: str | None, by: Actor | None = None) -> bool:
    """Let all owners use an owner's dataset, in all its versions, or only the owner; false if there is none."""
    with database.write() as session:
        rows = session.scalars(locking(_versions(name, "", owner))).all()
        for row in rows:
            row.shared = shared
        if rows:
            audit.record(session, by, AuditAction.PUBLISH, name, shared=shared)
    return bool(rows)


def _versions(name: str, digits: str, owner: str | None) -> Select[Upload]:
    query = select(Upload).where(Upload.owner == (owner or ""), Upload.name == name, Upload.deleted_ms.is_(None))
    if digits:
        query = query.where(Upload.sha256.startswith(f"sha256:{digits}"))
    return query.order_by(Upload.created_ms.desc(), Upload.id.desc())


def used_bytes(session: Session, *, owner: str | None) -> int:
    """Size of an owner's datasets in bytes."""
    return int(session.scalar(select(func.sum(Upload.size_bytes)).where(Upload.owner == (owner or ""))) or 0)


def total_bytes(session: Session) -> int:
    """Size of all owners' datasets in bytes."""
    return int(session.scalar(select(func.sum(Upload.size_bytes))) or 0)


def ids(session: Session) -> set[str]:
    """The ids of all uploads; a folder with another name is orphaned."""
    return set(session.scalars(select(Upload.id)))


def check_space(session: Session, owner: str | None, additional: int = 0, *, at_most: int) -> None:
    """Check that an owner has room for more bytes.

    Args:
        at_most: limit in bytes of an owner who has none of their own; 0, or no owner: no limit.

    Raises:
        NoSpaceLeft: the limit would be exceeded.
    """
    if owner and (at_most := owners.limit_of(session, owner, "dataset_bytes", at_most)):
        used = used_bytes(session, owner=owner)
        if used + additional > at_most or used == at_most:
            raise NoSpaceLeft(owner, used, additional, at_most)


def store(
    database: Database, upload: Upload, *, store_id: str | None, at_most: int = 0, by: Actor | None = None
) -> str:
    """Commit an upload whose files are stored already.

    If the same data were deleted, but are still kept for jobs, their row is restored.

    Args:
        store_id: the id of the store that has the files.
        at_most: maximum bytes of all datasets of the owner, including this one; 0: no limit.

    Returns:
        The id of the stored dataset; if it differs from the upload's, the caller removes the upload's files.

    Raises:
        UploadExists: the owner has the same data under this name.
        NoSpaceLeft: the limit would be exceeded.
        WrongStore: the service has moved to another store.
    """
    try:
        with database.write() as session:
            conditions = (Upload.owner == upload.owner, Upload.name == upload.name, Upload.sha256 == upload.sha256)
            existing = session.scalar(locking(select(Upload).where(*conditions)))
            if existing is not None:
                if existing.deleted_ms is None:
                    raise UploadExists(upload.name, upload.sha256)
                existing.deleted_ms, existing.created_ms = None, session.scalars(select(now_ms())).one()
                audit.record(
                    session,
                    by,
                    AuditAction.UPLOAD,
                    existing.name,
                    size_bytes=existing.size_bytes,
                    sha256=existing.sha256,
                )
                return existing.id
            check_space(session, upload.owner, upload.size_bytes, at_most=at_most)
            # A new version of a published dataset is published, too: its name means the newest.
            upload.shared = bool(session.scalar(_versions(upload.name, "", upload.owner).where(Upload.shared).limit(1)))
            upload.created_ms = session.scalars(select(now_ms())).one()
            session.add(upload)
            session.flush()
            artifact_rows.check_store(session, {store_id})
            audit.record(
                session, by, AuditAction.UPLOAD, upload.name, size_bytes=upload.size_bytes, sha256=upload.sha256
            )
            return upload.id
    except IntegrityError as error:
        raise UploadExists(upload.name, upload.sha256) from error


def remove(database: Database, name: str, *, owner: str | None, by: Actor | None = None) -> list[str] | None:
    """Delete an owner's dataset: all versions of a name, or the version that the name includes.

    Data that ended jobs were trained on are kept until those jobs are deleted (see ``purge``), but cannot be used for
    new jobs.

    Returns:
        The ids whose files the caller can remove now; ``None`` if there is no such dataset.

    Raises:
        UploadInUse: unfinished jobs use it.
    """
    try:
        base_name, digits = parts(name)
    except ValueError:
        return None
    with database.write() as session:
        rows = {row.id: row for row in session.scalars(locking(_versions(base_name, digits, owner)))}
        if not rows:
            return None
        query = select(Job.id).where(Job.upload_id.in_(rows), Job.status.in_(_UNFINISHED))
        if jobs := session.scalars(query.order_by(Job.id)).all():
            raise UploadInUse(name, jobs)
        pinned = set(session.scalars(select(Job.upload_id).where(Job.upload_id.in_(rows)).distinct()))
        now = session.scalars(select(now_ms())).one()
        for upload_id, row in rows.items():
            if upload_id in pinned:
                row.deleted_ms = now
            else:
                session.delete(row)
        audit.record(session, by, AuditAction.DELETE_DATASET, name)
        return [upload_id for upload_id in rows if upload_id not in pinned]


def purge(database: Database) -> list[str]:
    """Delete the rows of deleted datasets that no job uses any more; returns their ids, which name their folders."""
    unpinned = select(Upload).where(
        Upload.deleted_ms.is_not(None), ~select(Job.id).where(Job.upload_id == Upload.id).exists()
    )
    with database.read() as session:
        if session.scalars(unpinned.limit(1)).first() is None:
            return []
    with database.write() as session:
        # Lock first, then check again: a job that pins it concurrently holds this lock, or waits for it.
        locked = [row.id for row in session.scalars(locking(unpinned))]
        removed_ids = list(session.scalars(unpinned.where(Upload.id.in_(locked)).with_only_columns(Upload.id)))
        session.execute(delete(Upload).where(Upload.id.in_(removed_ids)))
        return removed_ids


class UploadFiles:
    """The files of all uploads.

    Args:
        artifacts: a local folder, for files that are being received; all web processes share it.
    """

    def __init__(self, store: ArtifactStore, artifacts: Path) -> None:
        self.store, self.artifacts = store, artifacts

    @classmethod
    def of(cls, settings: Settings) -> UploadFiles:
        """Those of a service."""
        return cls(open_store(settings), settings.artifacts)

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A new local folder, which is removed at the end of the block.

        Raises:
            OSError: it cannot be created.
        """
        folder = self.artifacts / _ROOT / f".{name}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add(self, upload_id: str, arrays: Path) -> None:
        """Store a folder of written and synced arrays, so that a row may refer to it.

        Raises:
            OSError: they could not be stored.
        """
        self.store.put_folder(f"{_ROOT}/{upload_id}", arrays)

    def local_folder(self, upload_id: str) -> Path | None:
        """The folder in which the arrays can be mapped; ``None``: they must be copied first."""
        return self.store.local_folder(f"{_ROOT}/{upload_id}")

    def names(self, upload_id: str) -> list[str]:
        """The names of the files of an upload.

        Raises:
            ArtifactDamaged: they are missing or damaged.
        """
        return [META, *(f"{name}.npy" for name in self._digests(upload_id) if name != COLUMNS_FILE)]

    @staticmethod
    def path(upload_id: str, name: str) -> str:
        """The path of a file in the store."""
        return f"{_ROOT}/{upload_id}/{name}"

    def open(self, upload_id: str, name: str) -> BufferedReader:
        """Open a file of an upload.

        Raises:
            ArtifactDamaged: it is missing.
        """
        return self.store.open(self.path(upload_id, name))

    def check(self, upload_id: str, sha256: str) -> None:
        """Read all files of an upload, and compare them with the digest in its row.

        Raises:
            ArtifactDamaged: they are missing, or differ.
        """
        _check(self._digests(upload_id), sha256, f"{_ROOT}/{upload_id}", lambda name: self.open(upload_id, name))

    def copy_to(self, folder: Path, upload_id: str, sha256: str, on_copied: Callable[[int], None]) -> None:
        """Copy the files of an upload into a local folder, and check them.

        Args:
            on_copied: called with the number of bytes that were copied so far.

        Raises:
            ArtifactDamaged: they are missing, or differ from the digest in the row.
            OSError: the folder cannot be written.
        """
        copied = 0
        for name in self.names(upload_id):
            with self.open(upload_id, name) as source, (folder / name).open("xb") as copy:
                while data := _read(source, self.path(upload_id, name)):
                    copy.write(data)
                    copied += len(data)
                    on_copied(copied)
        _check(self._digests(upload_id), sha256, f"{_ROOT}/{upload_id}", lambda name: (folder / name).open("rb"))

    def find_copy(self, folder: Path, key: str, sha256: str, on_copied: Callable[[int], None]) -> bool:
        """Copy arrays that another machine has downloaded into a local folder; returns whether there are intact ones.

        Raises:
            ArtifactUnreadable: the store does not respond now.
            OSError: the folder cannot be written.
        """
        if self.local_folder(key) is not None:  # each machine has the folder of downloads itself
            return False
        try:
            self.copy_to(folder, key, sha256, on_copied)
        except ArtifactUnreadable:
            raise
        except ArtifactDamaged:
            for path in folder.iterdir():
                path.unlink()
            return False
        return True

    def keep_copy(self, folder: Path, key: str) -> None:
        """Store downloaded arrays for other machines; without a copy, these download them, too."""
        if self.local_folder(key) is None:
            self.discard(key)  # a damaged copy, which would not be replaced
            for path in sorted(folder.iterdir(), key=lambda path: path.name == META):
                with suppress(OSError), path.open("rb") as file:
                    self.store.put_file(self.path(key, path.name), file)

    def copy_from(self, source: UploadFiles, upload_id: str) -> int:
        """Copy the files of an upload from another store; returns their size in bytes.

        Raises:
            ArtifactDamaged: they are missing.
            OSError: they could not be stored.
        """
        size_bytes = 0
        for name in source.names(upload_id):
            path = self.path(upload_id, name)
            with source.store.open(path) as file:
                self.store.remove([path])  # what an interrupted copy has left
                self.store.put_file(path, file)
                size_bytes += file.tell()
        return size_bytes

    def discard(self, upload_id: str) -> None:
        """Remove the files of an upload."""
        self.store.remove_folder(f"{_ROOT}/{upload_id}")

    def is_empty(self) -> bool:
        """Whether there are no files of uploads."""
        return next(self._stored(), None) is None

    def sweep(self, list_ids: Callable[[], Container[str]], *, older_than_s: float) -> list[str]:
        """Remove old files without rows, from aborted uploads and interrupted deletions; returns what was removed.

        Args:
            list_ids: returns the ids of all uploads with a row.
        """
        deadline = time.time() - older_than_s
        abandoned = [path for path in (self.artifacts / _ROOT).glob(".*") if path.lstat().st_mtime < deadline]
        for folder in abandoned:
            shutil.rmtree(folder, ignore_errors=True)
        ages: dict[str, float] = {}
        for upload_id, age_s in self._stored():
            ages[upload_id] = min(age_s, ages.get(upload_id, age_s))
        old = [name for name, age_s in ages.items() if age_s > max(older_than_s, self.store.min_orphan_age_s)]
        known_ids = list_ids() if old else ()
        orphans = [name for name in old if name not in known_ids]
        for name in orphans:
            self.discard(name)
        return [folder.name for folder in abandoned] + orphans

    def _stored(self) -> Iterator[tuple[str, float]]:
        """The upload and the age in seconds of each stored file."""
        for item in self.store.stored(_ROOT):
            name = item.path.split("/")[1]
            if name.startswith(_PREFIX):
                yield name, item.age_s

    def _digests(self, upload_id: str) -> dict[str, str]:
        path = self.path(upload_id, META)
        with self.store.open(path) as file:
            try:
                digests = {str(name): str(digest) for name, digest in json.loads(file.read())["files"].items()}
            except OSError as error:
                raise ArtifactUnreadable(path, str(error)) from error
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ArtifactDamaged(path, "is damaged") from error
        if not {*IDX_NAMES} <= digests.keys() <= {*IDX_NAMES, *TEST_NAMES, COLUMNS_FILE}:
            raise ArtifactDamaged(path, "is damaged")
        return digests


def _read(source: BufferedReader, path: str) -> bytes:
    try:
        return source.read(_CHUNK_BYTES)
    except OSError as error:
        raise ArtifactUnreadable(path, str(error)) from error


def _check(digests: Mapping[str, str], sha256: str, folder: str, open_file: Callable[[str], BufferedReader]) -> None:
    """Compare the content of an upload's files with their digests, and these with that of the dataset."""
    for name in digests.keys() - {COLUMNS_FILE}:
        path = f"{folder}/{name}.npy"
        with open_file(f"{name}.npy") as file:
            try:
                is_intact = _digest(file) == digests[name]
            except OSError as error:
                raise ArtifactUnreadable(path, str(error)) from error
        if not is_intact:
            raise ArtifactDamaged(path, "its SHA-256 differs from the stored one")
    if content_sha256(digests) != sha256:
        raise ArtifactDamaged(f"{folder}/{META}", "its SHA-256 differs from that of the dataset")


def _digest(file: BufferedReader) -> str:
    """The SHA-256 (hex) of the IDX file with the content of an .npy file, as ``ArrayFile.digest``; "" if it is none.
    Without NumPy, which backups and migrations must not load."""
    start = file.read(_HEADER_BYTES)
    if (header := _HEADER.match(start)) is None:
        return ""
    is_double, shape = header[1] == b"<f8", [int(size) for size in header[2].split(b",") if size.strip()]
    kind = _IDX_DOUBLE if is_double else _IDX_BYTE
    digest = hashlib.sha256(bytes((0, 0, kind, len(shape))) + struct.pack(f">{len(shape)}I", *shape))
    file.seek(header.end())
    while data := file.read(_CHUNK_BYTES):
        if is_double and len(data) % 8 == 0:
            values = array("d", data)
            values.byteswap()
            data = values.tobytes()
        digest.update(data)
    return digest.hexdigest()


def info_of(row: Upload, versions: Sequence[Upload] = ()) -> DatasetInfo:
    """What is known of an upload, and of all versions of its name."""
    return DatasetInfo(
        name=row.name,
        title=row.name,
        kind=DatasetKind(row.kind),
        image_shape=_image_shape(row),
        columns=tuple(row.columns or ()),
        classes=row.classes,
        train_count=row.train_count,
        validation_count=row.validation_count,
        test_count=row.test_count,
        class_names=tuple(row.class_names or map(str, range(row.classes))),
        source="an upload",
        licence="unknown",
        sha256=row.sha256,
        available=True,
        upload_id=row.id,
        owner=row.owner,
        shared=row.shared,
        report=row.report,
        versions=tuple(version_name(version.name, version.sha256) for version in versions),
    )


def _image_shape(row: Upload) -> tuple[int, ...]:
    if row.kind == DatasetKind.TABLE:
        return ()
    return (row.image_rows, row.image_columns, *((row.image_channels,) if row.image_channels > 1 else ()))
