"""The id of the artifact store: a file in it, and a row in the database.

A process with another store (another bucket, a folder that is not mounted) would store files that nobody
can download, and would take the files of others for lost.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import WrongStore
from service.storage.artifacts import ID_FILE, ArtifactDamaged, ArtifactStore, ArtifactUnreadable
from service.storage.database import Database, now_ms
from service.storage.ids import new_id
from service.storage.tables import Artifact, Store, Upload

_SAMPLE: Final = 20
"""Number of files of which one must exist in the store of a database that has no store id yet."""

_CURRENT: Final = select(Store.id)


def verify(database: Database, store: ArtifactStore) -> None:
    """Check that the store is that of the database. The first one is registered, unless it lacks the files that the
    database knows.

    Raises:
        WrongStore: it is another one.
        OSError: the store cannot be read or written.
    """
    current = database.run_alone(lambda connection: connection.scalar(_CURRENT))
    if current is not None and store.read_id() == current:
        return
    with database.read() as session:
        registered = session.get(Store, 1)
        lacks_files = registered is None and _lacks_files(session, store)
        names_files = registered is not None or any(
            session.scalar(select(table.id).limit(1)) is not None for table in (Artifact, Upload)
        )
    remedy = "set TAPELINE_STORE there to the store of the service, or mount its folder"
    if lacks_files:
        raise WrongStore(f"{store.address} has none of the newest files of this database: {remedy}")
    if registered is None and not names_files and (found := store.read_id()) is not None and _has_files(store):
        raise WrongStore(
            f"{store.address} is the store {found} of another database, and has its files: correct TAPELINE_STORE, or "
            f"restore the backup of that database. To give up its files, remove the file {ID_FILE} there"
        )
    if registered is None:
        registered = _register(database, store.read_id() or _create(store))
    found = store.read_id()
    if found != registered.id:
        has = f"the store {found}" if found else f"no file {ID_FILE}"
        raise WrongStore(
            f"{store.address} has {has}, but the database has the store {registered.id} (registered by "
            f"{registered.host}): {remedy}. If the store is the right one, write this id into its file {ID_FILE}"
        )


def _lacks_files(session: Session, store: ArtifactStore) -> bool:
    paths = session.scalars(select(Artifact.path).order_by(Artifact.id.desc()).limit(_SAMPLE)).all()
    for path in paths:
        try:
            store.open(path).close()
        except ArtifactUnreadable as error:
            raise OSError(errno.EIO, error.reason) from error
        except ArtifactDamaged:
            continue
        return False
    return bool(paths)


def _has_files(store: ArtifactStore) -> bool:
    return any(next(store.stored(folder), None) is not None for folder in (None, "datasets"))


def _create(store: ArtifactStore) -> str:
    store.create(ID_FILE, new_id("str").encode())
    return store.read_id() or ""


def _register(database: Database, store_id: str) -> Store:
    insert = database.insert(Store).values(number=1, id=store_id, host=socket.gethostname(), created_ms=now_ms())
    with database.write() as session:
        session.execute(insert.on_conflict_do_nothing())
        return session.get_one(Store, 1)
