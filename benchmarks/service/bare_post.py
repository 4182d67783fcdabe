"""The lower bound for a POST: a Flask view that only inserts the rows of a job in one transaction.

gunicorn serves it with the configuration of the service: ``gunicorn -c python:service.web.gunicorn_conf
benchmarks.service.bare_post:app``. It uses the database driver itself, with one connection per thread; the statements
and their JSON texts are made once.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, Final

import psycopg
from flask import Flask, Response, request
from ulid import ULID

from service.runtime.settings import Settings
from service.spec.strict_json import canonical, parse_json
from service.spec.validation import resolve, spec_hash
from service.web.services import EXTENSION

_SENT: Final = {"kind": "classifier", "name": "load", "tags": ["bench"], "epochs": 3}
_SPEC: Final = resolve(_SENT)
_EVENT: Final = {"status": "queued", "requested": None, "attempt": 1, "lease": 0, "epoch": 0, "reason": "submitted"}
_JOB: Final[dict[str, Any]] = {
    "kind": "classifier",
    "name": "load",
    "tags": canonical(["bench"]),
    "priority": 0,
    "spec": canonical(_SENT),
    "resolved": canonical(_SPEC.model_dump(mode="json")),
    "spec_hash": spec_hash(_SPEC),
    "start_epoch": 0,
    "status": "queued",
    "attempt": 1,
    "deaths": 0,
    "lease": 0,
    "epoch": 0,
    "epochs": 3,
    "step": 0,
    "steps": 510,
    "metrics": "{}",
    "health": "[]",
    "extremes": "{}",
    "starred": False,
    "size_bytes": 0,
    "last_seq": 1,
}
_ANSWER: Final = canonical({"id": "", **_JOB})

_settings = Settings.from_env(os.environ, cores=1)
_writer = threading.Lock() if _settings.embedded_database else nullcontext()
_of_thread = threading.local()


def _connection() -> Any:
    if not hasattr(_of_thread, "connection"):
        if _settings.embedded_database:
            path = _settings.database_url.removeprefix("sqlite:///")
            _of_thread.connection = sqlite3.connect(path, timeout=30, isolation_level=None)
            _of_thread.connection.execute("PRAGMA synchronous=FULL")
        else:
            _of_thread.connection = psycopg.connect(_settings.database_url.replace("+psycopg", ""))
    return _of_thread.connection


def _insert(table: str, columns: list[str]) -> str:
    mark = "?" if _settings.embedded_database else "%s"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"


_INSERTS: Final = {
    "idempotency": _insert("idempotency", ["owner", "key", "fingerprint", "job_id", "answer", "created_ms"]),
    "jobs": _insert("jobs", ["id", "created_ms", "queued_ms", *_JOB]),
    "tags": _insert("job_tags", ["tag", "job_id"]),
    "events": _insert("events", ["job_id", "seq", "type", "created_ms", "data"]),
}

app = Flask("bare")
app.extensions[EXTENSION] = SimpleNamespace(hub=SimpleNamespace(), feed=SimpleNamespace())  # the worker ends them


@app.get("/healthz")
def _healthz() -> str:
    return "ok"


@app.post("/jobs")
def _submit() -> Response:
    parse_json(request.get_data(cache=False))
    key, job_id, now = request.headers["Idempotency-Key"], f"job_{ULID()}", time.time_ns() // 1_000_000
    rows = {
        "idempotency": ("", key, "0" * 64, job_id, _ANSWER, now),
        "jobs": (job_id, now, now, *_JOB.values()),
        "tags": ("bench", job_id),
        "events": (job_id, 1, "status", now, canonical(_EVENT)),
    }
    connection = _connection()
    with _writer:
        if _settings.embedded_database:
            connection.execute("BEGIN IMMEDIATE")
        for name, row in rows.items():
            connection.execute(_INSERTS[name], row)
        connection.commit()
    headers = {"Location": f"/jobs/{job_id}"}
    return Response(_ANSWER, 201, headers=headers, content_type="application/json")
