"""Plans of queries whose time must not grow with the number of all jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from service.jobs import leases
from service.jobs.queries import queue
from service.maintenance import retention
from service.maintenance.retention import Policy
from service.storage.database import Database
from tests.conftest import sqlite_only
from tests.service.jobs.conftest import Submit


def query_plans(database: Database, run_queries: Callable[[Session], object]) -> str:
    """SQLite's plans of the queries that the function runs."""
    statements: list[tuple[str, Any]] = []

    def record_statement(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        statements.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", record_statement)
    with database.read() as session:
        run_queries(session)
        event.remove(database.engine, "before_cursor_execute", record_statement)
        connection = session.connection()
        return "\n".join(
            str(row[-1])
            for statement, parameters in statements
            if statement.startswith(("SELECT", "WITH"))
            for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)
        )


@sqlite_only
def test_waiting_jobs_per_owner_are_counted_without_their_rows(database: Database) -> None:
    assert "jobs" not in query_plans(database, queue.waiting_by_owner)


@sqlite_only
def test_retention_finds_expired_jobs_by_an_index_on_their_end(database: Database) -> None:
    now = leases.clock(database)
    plan = query_plans(database, lambda session: retention._expired_jobs(session, Policy(jobs_days=1), now))
    jobs, _, versions = plan.splitlines()
    assert jobs == "SEARCH jobs USING INDEX ix_jobs_finished (finished_ms<?)"
    assert versions == "SEARCH model_versions USING INDEX ix_model_versions_job_id (job_id=?)"


def test_queued_jobs_are_counted_by_owner_in_descending_order(database: Database, submit: Submit) -> None:
    for owner in ("bob", "ann", None, "ann", "ann", None):
        submit(owner=owner)
    job_id = submit(owner="cleo")
    assert leases.claim(database, "w", 60) is not None
    with database.read() as session:
        counts = queue.waiting_by_owner(session)
    assert job_id
    assert counts == {"ann": 3, "": 1, "bob": 1, "cleo": 1}, "the first claim is of the owner without a name"
    assert list(counts.values()) == [3, 1, 1, 1]
