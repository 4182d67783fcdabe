"""The rows of jobs, as the invariants read them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields
from typing import Final

from tests.simulation.parts.postgresql import Reader


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a job."""

    id: str
    owner: str | None
    status: str
    requested: str | None
    lease: int
    lease_token: str | None
    lease_owner: str | None
    lease_expires_ms: int | None
    epoch: int
    last_seq: int
    attempt: int
    deaths: int
    size_bytes: int
    result_digest: str | None
    queued_ms: int
    priority: int
    sweep_id: str | None
    error: str | None
    hold_epoch: int | None
    finished_ms: int | None
    cpu_seconds: float | None


_QUERY: Final = f"SELECT {', '.join(item.name for item in fields(Row))} FROM jobs ORDER BY id"


def read_rows(connection: sqlite3.Connection | Reader) -> dict[str, Row]:
    """All jobs, by id."""
    return {row[0]: Row(*row) for row in connection.execute(_QUERY)}
