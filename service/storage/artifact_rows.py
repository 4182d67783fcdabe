"""Rows of artifacts, and the total of their sizes in the job's row."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import Connection, Update, delete, func, select, update
from sqlalchemy.orm import Session

from service.errors import WrongStore
from service.storage.artifacts import MEDIA_TYPES, ArtifactDamaged, StoredFile
from service.storage.database import now_ms
from service.storage.ids import new_id
from service.storage.tables import Artifact, Job, Store

Found = TypeVar("Found")
T = TypeVar("T")


def use_current(
    find: Callable[[], Found], use: Callable[[Found], T], *, key: Callable[[Found], object] = attrgetter("id")
) -> T:
    """``use(find())``, repeated with another file if the first was just removed: a running job removes its older
    checkpoints.

    Args:
        key: identifies the file; by default, what ``find`` returns is its row.

    Raises:
        ArtifactDamaged: the same file was found twice, so it is lost.
    """
    found = find()
    while True:
        try:
            return use(found)
        except ArtifactDamaged:
            previous, found = found, find()
            if key(found) == key(previous):
                raise


def create(job_id: str, file: StoredFile, *, lease: int) -> Artifact:
    """The row of a stored file. A file without a committed row does not exist for the service."""
    return Artifact(**values(job_id, file, lease=lease))


def values(job_id: str, file: StoredFile, *, lease: int, now: int | None = None) -> dict[str, Any]:
    """The values of that row, by column.

    Args:
        now: by the database's clock; by default, that of the insertion.
    """
    return {
        "id": new_id("art"),
        "job_id": job_id,
        "kind": file.kind.value,
        "epoch": file.epoch,
        "lease": lease,
        "name": file.name,
        "path": file.path,
        "media_type": MEDIA_TYPES[file.kind],
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "created_ms": now_ms() if now is None else now,
    }


def check_store(transaction: Session | Connection, store_ids: AbstractSet[str | None]) -> None:
    """Check, after the rows of files were inserted, that the files are in the store of the database: a process that
    was not restarted after a migration has stored them in the previous one.

    Args:
        store_ids: of the stores that have the files.

    A migration waits for the transactions that have inserted rows before it changes the id; those that insert rows
    later read the new id.

    Raises:
        WrongStore: they are in another one.
    """
    if store_ids:
        check_same_store(transaction.scalar(select(Store.id)), store_ids)


def check_same_store(registered: str | None, store_ids: AbstractSet[str | None]) -> None:
    """Likewise, with the id of the database's store, if it has one, as read then."""
    if store_ids and registered is not None and store_ids != {registered}:
        raise WrongStore(
            "the service has moved to another store: restart this process with the TAPELINE_STORE of the others"
        )


def replace(session: Session, job_id: str, file: StoredFile) -> Artifact:
    """Create the row of a file, in place of an existing one of its kind and epoch, and recompute the job's size.

    The caller must hold the lock of the job's row.
    """
    conditions = (Artifact.job_id == job_id, Artifact.kind == file.kind, Artifact.epoch == file.epoch)
    session.execute(delete(Artifact).where(*conditions))
    row = create(job_id, file, lease=0)  # not written by a worker
    session.add(row)
    update_job_size(session, job_id)
    check_store(session, {file.store_id})
    return row


def job_sizes_update() -> Update:
    """The statement that recomputes the size of every job from its artifacts."""
    total = select(func.coalesce(func.sum(Artifact.size_bytes), 0)).where(Artifact.job_id == Job.id)
    return update(Job).values(size_bytes=total.scalar_subquery())


def update_job_size(session: Session, job_id: str) -> None:
    """Recompute the size of one job; refresh the session's copy of the job afterwards."""
    session.flush()
    session.execute(job_sizes_update().where(Job.id == job_id).execution_options(synchronize_session=False))
