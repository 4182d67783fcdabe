"""The cost of the service's operations with a growing number of jobs, and of events per job.

The database itself creates the rows, from one job. Run as a program, this module draws ``results/service_growth.png``
from the stored figures.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import text

from benchmarks.service.figures import KINDS, Figures, both, spread
from benchmarks.service.rows import fill
from benchmarks.service.service_under_test import ROOT, ServiceLauncher, ServiceUnderTest
from service.jobs import leases
from service.jobs.queries import listing
from service.jobs.queries.listing import JobFilter
from service.maintenance import retention
from service.maintenance.retention import Policy
from service.storage.database import Database
from service.storage.stores import ArtifactFolder
from service.storage.tables import JOBS

JOB_COUNTS: Final = (1_000, 10_000, 100_000, 1_000_000)
EVENT_COUNTS: Final = (100, 1_000, 10_000)
RUNS: Final = 5
"""Number of runs of each operation in a round."""
SPEC: Final = {"kind": "classifier", "name": "one of many", "tags": ["bench"], "epochs": 3}
MAX_JOBS_VARIABLE: Final = "TAPELINE_BENCH_JOBS"
"""An environment variable that limits the number of jobs."""
_PICTURE: Final = ROOT / "benchmarks" / "results" / "service_growth.png"


def growth(launcher: ServiceLauncher, rounds: int) -> list[Figures]:
    """Operations with 1,000 to 1,000,000 jobs and 100 to 10,000 events of a job; grows_by: per tenfold number."""
    times_by_operation: dict[tuple[str, str], dict[int, list[float]]] = {}

    def measure(kind: str, operations: dict[str, Callable[[], object]], count: int) -> None:
        for name, run in operations.items():
            run()
            times_ms = times_by_operation.setdefault((kind, name), {}).setdefault(count, [])
            for _ in range(RUNS):
                started_at = time.perf_counter()
                run()
                times_ms.append(1000 * (time.perf_counter() - started_at))

    with both(launcher) as services:
        for service in services.values():
            service.serve()
            fill(service.database, 1)
        existing = 1
        for count in job_counts():
            for service in services.values():
                multiply(service.database, existing, count)
            existing = count
            cursors = {kind: _middle_cursor(service, count) for kind, service in services.items()}
            for _ in range(rounds):
                for kind, service in services.items():
                    measure(kind, _job_operations(service, cursors[kind]), count)
        job_ids = {kind: service.submit(**SPEC) for kind, service in services.items()}
        existing = 1
        for count in EVENT_COUNTS:
            for kind, service in services.items():
                add_events(service.database, job_ids[kind], existing, count)
            existing = count
            for _ in range(rounds):
                for kind, service in services.items():
                    measure(kind, _event_operations(service, job_ids[kind], count), count)
    return [
        _row(kind, operation, times_by_count)
        for (kind, operation), times_by_count in sorted(times_by_operation.items(), key=lambda item: item[0][1])
    ]


def job_counts() -> list[int]:
    return [count for count in JOB_COUNTS if count <= int(os.environ.get(MAX_JOBS_VARIABLE, JOB_COUNTS[-1]))]


def _row(kind: str, operation: str, times_by_count: dict[int, list[float]]) -> Figures:
    by_count = {f"{count:,}": spread(times_ms) for count, times_ms in times_by_count.items()}
    first, last = min(times_by_count), max(times_by_count)
    steps = math.log10(last / first)
    return {
        "database": kind,
        "what": operation,
        "of": "events" if first == EVENT_COUNTS[0] else "jobs",
        "grows_by": round((_median(times_by_count[last]) / _median(times_by_count[first])) ** (1 / steps), 2)
        if steps
        else 1.0,
        "ms": by_count,
    }


def _median(values: Sequence[float]) -> float:
    return float(spread(values, 4)["median"])


def _job_operations(service: ServiceUnderTest, middle_cursor: str) -> dict[str, Callable[[], object]]:
    database, store = service.database, ArtifactFolder(service.settings.artifacts)

    def ask(**query: str) -> Callable[[], object]:
        return lambda: service.http.get("/jobs", params=query).raise_for_status()

    def post() -> None:
        service.http.post("/jobs", json=SPEC, headers={"Idempotency-Key": uuid4().hex}).raise_for_status()

    return {
        "POST": post,
        "claim": lambda: leases.claim(database, "bench", 600),
        "list, newest first": ask(),
        "list, failed": ask(status="failed"),
        "list, a tag": ask(tag="rare"),
        "list, by name": ask(sort="name"),
        "list, in the middle": ask(cursor=middle_cursor),
        "list with counts": ask(counts="true"),
        "queue": lambda: service.http.get("/queue").raise_for_status(),
        "retention, nothing due": lambda: retention.plan(database, store, Policy(jobs_days=30, checkpoints_days=30)),
    }


def _event_operations(service: ServiceUnderTest, job_id: str, count: int) -> dict[str, Callable[[], object]]:
    return {
        "stream, first event": lambda: _events(service, job_id, after=0, count=1),
        "stream, last ten events": lambda: _events(service, job_id, after=count - 10, count=10),
        "stream, replay of 100 events": lambda: _events(service, job_id, after=0, count=100),
        "log, last page": lambda: service.http.get(f"/jobs/{job_id}/events", params={"after": count - 10}),
    }


def _events(service: ServiceUnderTest, job_id: str, *, after: int, count: int) -> None:
    with service.http.stream("GET", f"/jobs/{job_id}/stream", headers={"Last-Event-ID": str(after)}) as stream:
        for line in stream.iter_lines():
            count -= line.startswith("id: ")
            if count == 0:
                return
    raise RuntimeError("the stream ended")


def _middle_cursor(service: ServiceUnderTest, count: int) -> str:
    cursor = None
    with service.database.read() as session:
        for _ in range(3):
            cursor = listing.find(session, JobFilter(), limit=min(count // 6, 500), cursor=cursor).next_cursor
    assert cursor is not None
    return cursor


def multiply(database: Database, existing: int, count: int) -> None:
    """Copy the first job, with its event and a tag, until there are ``count`` jobs; nine in ten are queued."""
    number = "CAST(n AS TEXT)"
    changes = {
        "id": f"'job_01BENCH' || substr('0000000000000000000' || {number}, -19)"
        if database.is_sqlite
        else f"'job_01BENCH' || lpad({number}, 19, '0')",
        "status": "CASE WHEN n % 100 < 90 THEN 'queued' WHEN n % 100 < 98 THEN 'succeeded' WHEN n % 100 < 99 "
        "THEN 'cancelled' ELSE 'failed' END",
        "lease": "CASE WHEN n % 100 < 90 THEN 0 ELSE 1 END",
        "priority": "(n * 7) % 10",
        "name": f"'job ' || {number}",
        "created_ms": "created_ms + 50 * n",
        "queued_ms": "created_ms + 50 * n",
        "finished_ms": "CASE WHEN n % 100 < 90 THEN NULL ELSE created_ms + 50 * n + 5000 END",
    }
    names = [column.key for column in JOBS.columns]
    first = "SELECT jobs.* FROM jobs ORDER BY id LIMIT 1"
    numbers = (
        f"WITH RECURSIVE numbers(n) AS (SELECT {existing} UNION ALL SELECT n + 1 FROM numbers WHERE n < {count} - 1)"
        if database.is_sqlite
        else f"WITH numbers AS (SELECT generate_series({existing}, {count} - 1) AS n)"
    )
    expressions = ", ".join(changes.get(name, f"first.{name}") for name in names)
    tag = "CASE WHEN n % 1000 = 0 THEN 'rare' ELSE 'bench' END"
    event = """'{"status": "queued", "attempt": 1, "lease": 0, "epoch": 0, "reason": "submitted"}'"""
    inserts = [
        f"INSERT INTO jobs ({', '.join(names)}) {numbers} SELECT {expressions} FROM numbers, ({first}) AS first",
        f"INSERT INTO job_tags (tag, job_id) {numbers} SELECT {tag}, {changes['id']} FROM numbers",
        (
            f"INSERT INTO events (job_id, seq, type, data, created_ms) {numbers} "
            f"SELECT {changes['id']}, 1, 'status', {event}, created_ms + 50 * n FROM numbers, ({first}) AS first"
        ),
    ]
    _run(database, inserts)


def add_events(database: Database, job_id: str, existing: int, count: int) -> None:
    """Insert events of a job, until it has ``count``."""
    numbers = (
        f"WITH RECURSIVE numbers(n) AS (SELECT {existing} UNION ALL SELECT n + 1 FROM numbers WHERE n < {count} - 1)"
        if database.is_sqlite
        else f"WITH numbers AS (SELECT generate_series({existing}, {count} - 1) AS n)"
    )
    data = """'{"level": "info", "code": "note", "message": "one of many"}'"""
    _run(
        database,
        [
            (
                f"INSERT INTO events (job_id, seq, type, data, created_ms) {numbers} "
                f"SELECT '{job_id}', n + 1, 'log', {data}, created_ms FROM numbers, jobs WHERE jobs.id = '{job_id}'"
            ),
            f"UPDATE jobs SET last_seq = {count} WHERE id = '{job_id}'",
        ],
    )


def _run(database: Database, statements: Sequence[str]) -> None:
    with database.write() as session:
        if not database.is_sqlite:
            session.execute(text("SET LOCAL statement_timeout = 0"))
        for statement in statements:
            session.connection().exec_driver_sql(statement.replace("%", "%%") if not database.is_sqlite else statement)
    with database.engine.connect() as connection:  # as autovacuum would do some minutes later
        autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
        if not database.is_sqlite:
            autocommit.exec_driver_sql("SET statement_timeout = 0")
            autocommit.exec_driver_sql("VACUUM ANALYZE")
            autocommit.exec_driver_sql("RESET statement_timeout")


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel per database: milliseconds over the number of jobs or events, both on logarithmic axes."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, len(KINDS), figsize=(11, 8), layout="constrained", sharey="row", squeeze=False)
    for line, unit in zip(panels, ("jobs", "events"), strict=True):
        for panel, kind in zip(line, KINDS, strict=True):
            for row in rows:
                if (row["database"], row["of"]) == (kind, unit):
                    counts = [int(count.replace(",", "")) for count in row["ms"]]
                    panel.plot(
                        counts, [figures["median"] for figures in row["ms"].values()], marker=".", label=row["what"]
                    )
            panel.set(xscale="log", yscale="log", xlabel=f"{unit}, {kind}", ylabel="ms")
            panel.grid(alpha=0.3)
        line[-1].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    stored = json.loads((ROOT / "benchmarks" / "results" / "service.json").read_text())
    draw(stored["growth"]["rows"], _PICTURE)


if __name__ == "__main__":
    sys.exit(main())
