"""A PostgreSQL server for lives outside pytest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.conftest import create_database, serve_postgres
from tests.simulation.parts.postgresql import Server


@contextmanager
def postgresql() -> Iterator[Server]:
    """A database on a server that runs until the end of the block."""
    with serve_postgres() as socket_folder, Server(create_database(socket_folder)) as server:
        yield server
