"""Uploaded datasets: their rows, which are the commit point, and the folders of their files.

The files are in the artifact folder, as ``datasets/<id>``: web and workers always share it, it is writable, and backups
include it.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import Select, delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.access import audit, owners
from service.access.audit import Actor, AuditAction
from service.errors import NoSpaceLeft, UploadExists, UploadInUse
from service.states import Status
from service.storage.artifacts import fsync_folder
from service.storage.database import Database, locking, now_ms
from service.storage.tables import Job, Upload

_DIGITS: Final = re.compile(r"[0-9a-f]{6,64}")
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
    return session.scalar(select(func.sum(Upload.size_bytes)).where(Upload.owner == (owner or ""))) or 0


def total_bytes(session: Session) -> int:
    """Size of all owners' datasets in bytes."""
    return session.scalar(select(func.sum(Upload.size_bytes))) or 0


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


def store(database: Database, upload: Upload, *, at_most: int = 0, by: Actor | None = None) -> str:
    """Commit an upload whose files are on disk already.

    If the same data were deleted, but are still kept for jobs, their row is restored.

    Args:
        at_most: maximum bytes of all datasets of the owner, including this one; 0: no limit.

    Returns:
        The id of the stored dataset; if it differs from the upload's, the caller removes the upload's files.

    Raises:
        UploadExists: the owner has the same data under this name.
        NoSpaceLeft: the limit would be exceeded.
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


class UploadFolder:
    """The files of all uploads. Each upload has a folder, hidden until it is complete.

    Args:
        artifacts: the folder that web and workers share.
    """

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts
        self._root = artifacts / "datasets"

    def arrays(self, upload_id: str) -> Path:
        """The folder of an upload's arrays."""
        return self._root / upload_id

    def begin(self, upload_id: str) -> Path:
        """Create a folder for received files and the arrays made from them.

        Raises:
            OSError: it cannot be created.
        """
        folder = self._unfinished(upload_id)
        folder.mkdir(parents=True)
        return folder

    def finish(self, upload_id: str, arrays: Path) -> None:
        """Rename a folder of written and synced arrays, so that a row may refer to it."""
        fsync_folder(arrays)
        arrays.rename(self.arrays(upload_id))
        fsync_folder(self._root)
        shutil.rmtree(self._unfinished(upload_id), ignore_errors=True)

    def files(self, upload_id: str) -> dict[str, Path]:
        """The files of an upload by name, sorted."""
        return {path.name: path for path in sorted(self.arrays(upload_id).glob("*")) if path.is_file()}

    def discard(self, upload_id: str) -> None:
        """Remove the files of an upload, complete or not."""
        for folder in (self.arrays(upload_id), self._unfinished(upload_id)):
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, list_ids: Callable[[], Container[str]], *, older_than_s: float) -> list[str]:
        """Remove old folders without rows, from aborted uploads and interrupted deletions.

        Args:
            list_ids: returns the ids of all uploads with a row.
        """
        deadline = time.time() - older_than_s
        old = [folder for folder in self._root.glob("*") if folder.lstat().st_mtime < deadline]
        known_ids = list_ids() if old else ()
        orphans = [folder for folder in old if folder.name not in known_ids]
        for folder in orphans:
            shutil.rmtree(folder, ignore_errors=True)
        return [folder.name for folder in orphans]

    def _unfinished(self, upload_id: str) -> Path:
        return self._root / f".{upload_id}"
