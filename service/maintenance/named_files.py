"""The stored files that rows name, in a stable order: the files of artifacts, then uploaded datasets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.storage.database import Database
from service.storage.tables import Artifact, Upload

TABLES: Final = (Artifact, Upload)
"""Tables whose rows name files, in the order of their names."""
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class NamedFile:
    """What a row names: the file of an artifact, or all files of an upload.

    Attributes:
        path: of the artifact; the id of the upload.
        sha256: of the artifact's file; of the upload's content.
    """

    row_id: str
    path: str
    sha256: str
    size_bytes: int
    table: type[Artifact | Upload]

    @property
    def position(self) -> str:
        """Its place in the order, for ``pages``."""
        return f"{self.table.__tablename__}/{self.row_id}"


def count(session: Session) -> int:
    """The number of rows that name files."""
    return sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in TABLES)


def size_bytes(session: Session) -> int:
    """The size of all of them."""
    return sum(int(session.scalar(select(func.sum(table.size_bytes))) or 0) for table in TABLES)


def pages(database: Database, *, after: str = "", limit: int = _PAGE) -> Iterator[list[NamedFile]]:
    """What is stored at the beginning: workers may store files faster than they are read. No transaction is open while
    the caller uses a page.

    Args:
        after: the position of a file, which need not exist any more: begin behind it.
    """
    table_name, _, row_id = after.partition("/")
    for table in TABLES:
        if table.__tablename__ < table_name:
            continue
        last = row_id if table.__tablename__ == table_name else ""
        path = table.path if table is Artifact else table.id
        with database.read() as session:
            newest = session.scalar(select(func.max(table.id))) or ""
        while True:
            with database.read() as session:
                query = select(table.id, path, table.sha256, table.size_bytes)
                query = query.where(table.id > last, table.id <= newest)
                rows = session.execute(query.order_by(table.id).limit(limit)).all()
            if not rows:
                break
            last = rows[-1][0]
            yield [NamedFile(*row, table) for row in rows]
