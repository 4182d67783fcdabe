"""A burst of submissions, until all of the jobs are trained."""

from __future__ import annotations

import json
import time
from typing import Any

from sqlalchemy import case, func, select

from benchmarks.service.figures import KINDS, TINY, Figures, client
from benchmarks.service.service_under_test import ServiceLauncher, ServiceUnderTest
from service.jobs.events import EventType
from service.states import Status
from service.storage.tables import Event, Job

COUNT = 10_000
CLIENTS = 30
TIMEOUT_S = 1800


def burst(launcher: ServiceLauncher, rounds: int) -> list[Figures]:
    """10,000 tiny jobs, posted by 30 clients at once and trained by two child processes; one round."""
    return [_burst(launcher, kind) for kind in KINDS]


def _burst(launcher: ServiceLauncher, kind: str) -> Figures:
    with launcher.open(kind) as service:
        service.serve()
        service.work(2)
        started_at = time.monotonic()
        sender = client("post", service.port, clients=CLIENTS, count=COUNT, spec=json.dumps(TINY))
        posted = json.loads(sender.communicate()[0])
        while _unfinished(service):
            if time.monotonic() - started_at > TIMEOUT_S:
                raise TimeoutError(f"{_unfinished(service)} of {COUNT:,} jobs have not ended")
            time.sleep(1)
        elapsed_s = time.monotonic() - started_at
        defects = _count_defects(service)
        return {
            "database": kind,
            "posted_per_s": posted["per_s"],
            "p50_ms": posted["p50_ms"],
            "p99_ms": posted["p99_ms"],
            "failures": posted["failures"],
            "trained_per_s": round((COUNT - defects["lost"]) / elapsed_s, 1),
            "seconds": round(elapsed_s),
            **defects,
        }


def _unfinished(service: ServiceUnderTest) -> int:
    counts = service.http.get("/jobs", params={"limit": 1, "counts": True}).raise_for_status().json()["counts"]
    return sum(counts.get(status, 0) for status in (Status.QUEUED, Status.RUNNING))


def _count_defects(service: ServiceUnderTest) -> Figures:
    """Numbers of defective jobs.

    ``lost``: missing, or not succeeded under the first lease. ``doubled``: without exactly one event of the epoch and
    one of the end. ``holes``: with another number of events than the row states.
    """

    def count_of(kind: EventType) -> Any:
        return func.sum(case((Event.type == kind, 1), else_=0))

    log = select(Event.job_id).group_by(Event.job_id)
    succeeded_at_once = select(func.count()).select_from(Job).where(Job.status == Status.SUCCEEDED, Job.lease == 1)
    doubled = log.having((count_of(EventType.METRICS) != 1) | (count_of(EventType.END) != 1))
    counted = log.add_columns(func.count().label("count")).subquery()
    holes = (
        select(Job.id)
        .outerjoin(counted, counted.c.job_id == Job.id)
        .where(func.coalesce(counted.c.count, 0) != Job.last_seq)
    )
    with service.database.read() as session:
        succeeded = session.scalar(succeeded_at_once) or 0
        defects = {name: len(session.scalars(query).all()) for name, query in (("doubled", doubled), ("holes", holes))}
    return {"lost": COUNT - succeeded, **defects}
