"""The id of the artifact folder: a file in it, and a row in the database.

A process with another folder (a share that is not mounted, a second machine without it) would store files that nobody
can download, and would take the files of others for lost.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import ServiceError
from service.storage.artifacts import fsync_folder
from service.storage.database import Database, now_ms
from service.storage.ids import new_id
from service.storage.tables import Artifact, Store

FILE: Final = "store-id"
_SAMPLE: Final = 20
"""Number of files of which one must exist in the folder of a database that has no store id yet."""


class WrongStore(ServiceError):
    """The artifact folder of this process is not the one that the database knows."""


def verify(database: Database, root: Path) -> None:
    """Check that the folder is the store of the database. The first folder is registered, unless it lacks the files
    that the database knows.

    Raises:
        WrongStore: it is another one.
        OSError: the folder cannot be read or written.
    """
    with database.read() as session:
        registered = session.get(Store, 1)
        lacks_files = registered is None and _lacks_files(session, root)
    if lacks_files:
        raise WrongStore(f"{root} has none of the newest files of this database: mount the shared folder there")
    if registered is None:
        registered = _register(database, _create(root))
    found = _read(root)
    if found != registered.id:
        has = f"the store {found}" if found else f"no file {FILE}"
        raise WrongStore(
            f"{root} has {has}, but the database has the store {registered.id} (registered by {registered.host}): "
            f"mount the shared folder there. If the folder is the right one, write this id into its file {FILE}"
        )


def _lacks_files(session: Session, root: Path) -> bool:
    paths = session.scalars(select(Artifact.path).order_by(Artifact.id.desc()).limit(_SAMPLE)).all()
    return bool(paths) and not any((root / path).exists() for path in paths)


def _create(root: Path) -> str:
    """The id in the folder, created if there is none."""
    root.mkdir(parents=True, exist_ok=True)
    if (found := _read(root)) is not None:
        return found
    with suppress(FileExistsError), (root / FILE).open("x") as file:  # another process may be faster
        file.write(new_id("str"))
        file.flush()
        os.fsync(file.fileno())
    fsync_folder(root)
    return _read(root) or ""


def _read(root: Path) -> str | None:
    try:
        text = (root / FILE).read_text().strip()
    except FileNotFoundError:
        return None
    if not text:
        raise OSError(f"{root / FILE} is empty; another process may be writing it")
    return text


def _register(database: Database, store_id: str) -> Store:
    insert = database.insert(Store).values(number=1, id=store_id, host=socket.gethostname(), created_ms=now_ms())
    with database.write() as session:
        session.execute(insert.on_conflict_do_nothing())
        return session.get_one(Store, 1)
