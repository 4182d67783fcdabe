"""Data sets that people sent: their rows, which are the commit point, and the folders of their files.

These lie in the folder of the artifacts, ``datasets/<id>``: web and workers share that one wherever they run, it is
always writable, and whoever keeps a copy of the files that go with the database has them too.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.contract import audit
from service.contract.audit import Actor, Deed
from service.contract.database import Database, now_ms
from service.contract.errors import UploadExists, UploadInUse
from service.contract.states import Status
from service.contract.tables import Job, Upload

_NEEDING: Final = (Status.QUEUED, Status.RUNNING, Status.PAUSED)


def find(session: Session, name: str, *, owner: str | None) -> Upload | None:
    """An owner's data set, where there is one of this name."""
    return session.scalar(select(Upload).where(Upload.owner == (owner or ""), Upload.name == name))


def listed(session: Session, *, owner: str | None) -> Sequence[Upload]:
    """All data sets of an owner, by name."""
    return session.scalars(select(Upload).where(Upload.owner == (owner or "")).order_by(Upload.name)).all()


def total_bytes(session: Session) -> int:
    """What the data sets of all owners take."""
    return session.scalar(select(func.sum(Upload.size_bytes))) or 0


def ids(session: Session) -> set[str]:
    """The ids of all: whose folder has none of these belongs to nobody."""
    return set(session.scalars(select(Upload.id)))


def store(database: Database, upload: Upload, *, by: Actor | None = None) -> None:
    """Make an upload count: its files lie on disk by now.

    Raises:
        UploadExists: the owner has one of this name.
    """
    try:
        with database.write() as session:
            upload.created_ms = session.scalars(select(now_ms())).one()
            session.add(upload)
            audit.record(session, by, Deed.UPLOAD, upload.name, size_bytes=upload.size_bytes, sha256=upload.sha256)
    except IntegrityError as error:
        raise UploadExists(upload.name) from error


def remove(database: Database, name: str, *, owner: str | None, by: Actor | None = None) -> str | None:
    """Delete an owner's data set; gives the id under which its files lie, ``None`` where there is no such one.

    Raises:
        UploadInUse: jobs that have not ended need it.
    """
    with database.write() as session:
        upload = find(session, name, owner=owner)
        if upload is None:
            return None
        needing = select(Job.id).where(
            Job.status.in_(_NEEDING),
            Job.owner == owner if owner is not None else Job.owner.is_(None),
            Job.resolved["dataset"]["name"].as_string() == name,
        )
        if jobs := session.scalars(needing.order_by(Job.id)).all():
            raise UploadInUse(name, jobs)
        session.execute(delete(Upload).where(Upload.id == upload.id))
        audit.record(session, by, Deed.DELETE_DATASET, name)
        return upload.id


class UploadFolder:
    """The files of all uploads. Each upload has a folder, hidden until it is whole.

    Args:
        artifacts: the folder that web and workers share.
    """

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts
        self._root = artifacts / "datasets"

    def arrays(self, upload_id: str) -> Path:
        """Where the arrays of an upload lie that has a row."""
        return self._root / upload_id

    def begin(self, upload_id: str) -> Path:
        """A new folder for what arrives, and for what is made of it.

        Raises:
            OSError: there is no room, or no right to make one.
        """
        folder = self._unfinished(upload_id)
        folder.mkdir(parents=True)
        return folder

    def finish(self, upload_id: str, arrays: Path) -> None:
        """Give a folder of arrays, all written and synced, the name by which a row may refer to it."""
        _sync(arrays)
        arrays.rename(self.arrays(upload_id))
        _sync(self._root)
        shutil.rmtree(self._unfinished(upload_id), ignore_errors=True)

    def files(self, upload_id: str) -> dict[str, Path]:
        """The files of an upload by their names, in order."""
        return {path.name: path for path in sorted(self.arrays(upload_id).glob("*")) if path.is_file()}

    def discard(self, upload_id: str) -> None:
        """Remove the files of an upload, whole or not."""
        for folder in (self.arrays(upload_id), self._unfinished(upload_id)):
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, named: Callable[[], Container[str]], *, older_than_s: float) -> list[str]:
        """Remove old folders that no row names: of uploads that broke off, or were deleted halfway.

        Args:
            named: gives the ids of all uploads that have a row.
        """
        deadline = time.time() - older_than_s
        old = [folder for folder in self._root.glob("*") if folder.lstat().st_mtime < deadline]
        kept = named() if old else ()
        gone = [folder for folder in old if folder.name not in kept]
        for folder in gone:
            shutil.rmtree(folder, ignore_errors=True)
        return [folder.name for folder in gone]

    def _unfinished(self, upload_id: str) -> Path:
        return self._root / f".{upload_id}"


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
