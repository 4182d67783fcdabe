"""Inserts rows of jobs that were never trained, thousands at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, select

from service.jobs import leases
from service.spec.validation import resolve, spec_hash
from service.states import Status
from service.storage.database import Database
from service.storage.tables import EVENTS, JOB_TAGS, JOBS, Epoch
from service.sweeps import decisions

_BATCH_SIZE = 5000
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
    for first in range(0, count, _BATCH_SIZE):
        rows, tags, events = [], [], []
        for number in range(first, min(first + _BATCH_SIZE, count)):
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


def end_sweep(database: Database, sweep_id: str, metrics: Sequence[str]) -> None:
    """End a running sweep: give its queued jobs random results without training, and make its decisions, repeatedly."""
    rng, now = random.Random(2), leases.clock(database)
    is_queued = (JOBS.c.sweep_id == sweep_id) & (JOBS.c.status == Status.QUEUED)
    while True:
        with database.write() as session:
            queued = session.execute(select(JOBS.c.id, JOBS.c.epochs).where(is_queued)).all()
            if not queued:
                return
            metrics_by_job = {job.id: {name: rng.betavariate(8, 2) for name in metrics} for job in queued}
            rows = [
                {
                    "job_id": job.id,
                    "epoch": epoch,
                    "step": epoch,
                    "metrics": metrics_by_job[job.id],
                    "seconds": 0.1,
                    "lease": 1,
                }
                for job in queued
                for epoch in range(1, job.epochs + 1)
            ]
            session.execute(insert(Epoch), [row | {"finished_ms": now} for row in rows])
            end_values = {"status": Status.SUCCEEDED, "lease": 1, "finished_ms": now, "result_digest": "sha256:0"}
            for job in queued:
                update = JOBS.update().where(JOBS.c.id == job.id)
                session.execute(update.values(metrics=metrics_by_job[job.id], epoch=job.epochs, **end_values))
        decisions.advance_all(database)
