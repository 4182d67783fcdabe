"""Writes rows of jobs directly with the database driver: one connection per thread; SQL and JSON are prepared once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Final

import psycopg

from service.runtime.settings import Settings
from service.spec.strict_json import canonical
from service.spec.validation import resolve, spec_hash

TABLES: Final = {
    "idempotency": ["owner", "key", "fingerprint", "job_id", "answer", "created_ms"],
    "job_tags": ["tag", "job_id"],
    "events": ["job_id", "seq", "type", "created_ms", "data"],
    "epochs": ["job_id", "epoch", "step", "metrics", "confusion", "samples_digest", "seconds", "lease", "finished_ms"],
    "artifacts": [
        *("id", "job_id", "kind", "epoch", "lease", "name", "path", "media_type"),
        *("size_bytes", "sha256", "created_ms"),
    ],
}
"""The columns that are written, for each table except ``jobs``."""


def job_values(document: dict[str, Any]) -> dict[str, Any]:
    """The columns of a new job, except its id and times."""
    spec = resolve(document)
    return {
        "kind": document["kind"],
        "name": spec.name or None,
        "tags": canonical(list(spec.tags)),
        "priority": 0,
        "spec": canonical(document),
        "resolved": canonical(spec.model_dump(mode="json")),
        "spec_hash": spec_hash(spec),
        "start_epoch": 0,
        "status": "queued",
        "attempt": 1,
        "deaths": 0,
        "lease": 0,
        "epoch": 0,
        "epochs": spec.epochs,
        "step": 0,
        "steps": 170 * spec.epochs,
        "metrics": "{}",
        "health": "[]",
        "extremes": "{}",
        "starred": False,
        "size_bytes": 0,
        "last_seq": 1,
    }


class Rows:
    """Writes rows in transactions.

    Args:
        job: the result of ``job_values``.
    """

    def __init__(self, settings: Settings, job: dict[str, Any]) -> None:
        self._is_sqlite = settings.embedded_database
        self._url = settings.database_url
        self._writer = threading.Lock() if self._is_sqlite else nullcontext()
        self._thread_local = threading.local()
        self._job = job
        tables = {**TABLES, "jobs": ["id", "created_ms", "queued_ms", *job]}
        self._inserts = {
            name: self._with_placeholders(
                f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
            )
            for name, columns in tables.items()
        }
        self._updates: dict[str, str] = {}

    def new_job(self, job_id: str, now: int) -> tuple[str, Sequence[Any]]:
        """The row of a new job."""
        return "jobs", (job_id, now, now, *self._job.values())

    def write(self, rows: Iterable[tuple[str, Sequence[Any]]], **changed: Any) -> None:
        """Insert rows, each with the name of its table, and change the job ``id``, in one transaction."""
        connection = self._connection()
        with self._writer:
            if self._is_sqlite:
                connection.execute("BEGIN IMMEDIATE")
            for name, row in rows:
                connection.execute(self._inserts[name], row)
            if changed:
                job_id = changed.pop("id")
                names = ", ".join(f"{name} = ?" for name in changed)
                statement = self._updates.setdefault(
                    names, self._with_placeholders(f"UPDATE jobs SET {names} WHERE id = ?")
                )
                connection.execute(statement, (*changed.values(), job_id))
            connection.commit()

    def _with_placeholders(self, statement: str) -> str:
        return statement if self._is_sqlite else statement.replace("?", "%s")

    def _connection(self) -> Any:
        if not hasattr(self._thread_local, "connection"):
            if self._is_sqlite:
                path = self._url.removeprefix("sqlite:///")
                self._thread_local.connection = sqlite3.connect(path, timeout=30, isolation_level=None)
                self._thread_local.connection.execute("PRAGMA synchronous=FULL")
            else:
                self._thread_local.connection = psycopg.connect(self._url.replace("+psycopg", ""))
        return self._thread_local.connection
