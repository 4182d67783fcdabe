"""The lower bound for a POST: a Flask view that only inserts the rows of a job in one transaction.

gunicorn serves it with the configuration of the service: ``gunicorn -c python:service.web.gunicorn_conf
benchmarks.service.bare.post:app``.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

from flask import Flask, Response, request
from ulid import ULID

from benchmarks.service.bare.rows import Rows, job_values
from service.runtime.settings import Settings
from service.spec.strict_json import canonical, parse_json
from service.storage.database import Database
from service.web.core.core import provide
from service.web.streaming.poller import Poller

_SPEC: Final[dict[str, Any]] = {"kind": "classifier", "name": "load", "tags": ["bench"], "epochs": 3}
_EVENT: Final = {"status": "queued", "requested": None, "attempt": 1, "lease": 0, "epoch": 0, "reason": "submitted"}
_JOB: Final = job_values(_SPEC)
_RESPONSE: Final = canonical({"id": "", **_JOB})

_settings = Settings.from_env(os.environ, cores=1)
_rows = Rows(_settings, _JOB)
app = Flask("bare")
provide(app, Poller(Database(_settings.database_url)))  # the gunicorn worker ends the streams


@app.get("/healthz")
def _healthz() -> str:
    return "ok"


@app.post("/jobs")
def _submit() -> Response:
    parse_json(request.get_data(cache=False))
    key, job_id, now = request.headers["Idempotency-Key"], f"job_{ULID()}", time.time_ns() // 1_000_000
    _rows.write(
        [
            ("idempotency", ("", key, "0" * 64, job_id, _RESPONSE, now)),
            _rows.new_job(job_id, now),
            ("job_tags", ("bench", job_id)),
            ("events", (job_id, 1, "status", now, canonical(_EVENT))),
        ]
    )
    headers = {"Location": f"/jobs/{job_id}"}
    return Response(_RESPONSE, 201, headers=headers, content_type="application/json")
