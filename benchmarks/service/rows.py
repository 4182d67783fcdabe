"""Inserts 100,000 jobs, a thousand at a time."""

from __future__ import annotations

import random
from typing import Any

from service.jobs import leases
from service.spec.validation import resolve, spec_hash
from service.states import Status
from service.storage.database import Database
from service.storage.tables import EVENTS, JOB_TAGS, JOBS

_AT_ONCE = 5000
_STATES = [Status.QUEUED] * 90 + [Status.SUCCEEDED] * 8 + [Status.CANCELLED] + [Status.FAILED]


def fill(database: Database, count: int) -> None:
    """Insert jobs: nine in ten are queued, some have ended, 1% failed, and 0.1% have the tag ``rare``."""
    document = {"kind": "classifier", "name": "one of many", "tags": ["bench"], "epochs": 3}
    spec = resolve(document)
    fixed: dict[str, Any] = {
        "kind": "classifier",
        "name": spec.name,
        "tags": ["bench"],
        "spec": document,
        "resolved": spec.model_dump(mode="json"),
        "spec_hash": spec_hash(spec),
        "start_epoch": 0,
        "attempt": 1,
        "deaths": 0,
        "epoch": 0,
        "epochs": 3,
        "step": 0,
        "steps": 510,
        "metrics": {},
        "health": [],
        "last_seq": 1,
    }
    rng, now = random.Random(1), leases.clock(database)
    for first in range(0, count, _AT_ONCE):
        rows, tags, events = [], [], []
        for number in range(first, min(first + _AT_ONCE, count)):
            status, created = rng.choice(_STATES), now - 60_000 - 50 * (count - number)
            job_id = f"job_01BENCH{number:019d}"
            times = {"created_ms": created, "queued_ms": created, "priority": rng.randrange(10)}
            lease = 0 if status == Status.QUEUED else 1
            rows.append(fixed | times | {"id": job_id, "status": status, "lease": lease})
            tags.append({"tag": "rare" if number % 1000 == 0 else "bench", "job_id": job_id})
            data = {"status": "queued", "requested": None, "attempt": 1, "lease": 0, "epoch": 0, "reason": "submitted"}
            events.append({"job_id": job_id, "seq": 1, "type": "status", "created_ms": created, "data": data})
        with database.write() as session:
            session.execute(JOBS.insert(), rows)
            session.execute(JOB_TAGS.insert(), tags)
            session.execute(EVENTS.insert(), events)
    if not database.is_sqlite:  # as autovacuum would do some minutes later
        with database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM ANALYZE")
