"""Insertions by one statement of PostgreSQL, and its connections."""

from __future__ import annotations

import json
import time
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import DBAPIError

from service.jobs import leases
from service.storage import database as module
from service.storage.database import Database
from service.storage.insertions import NewRow, TimeTemplate, insert_rows
from service.storage.tables import IDEMPOTENCY, JOB_TAGS, Idempotency, JobTag, Worker
from service.wording import at_time
from tests.conftest import postgresql_only
from tests.waiting import wait_until

pytestmark = postgresql_only
PLACEHOLDER = at_time(123_456_789_012_345)


def key_row(key: str, **overrides: Any) -> NewRow:
    answer = TimeTemplate(json.dumps({"at": PLACEHOLDER, "said": ["1970-01-01T00:00:00.000Z", "ü%s'"]}), PLACEHOLDER)
    values = {"owner": "", "key": key, "fingerprint": "0" * 64, "job_id": "job_1", "answer": answer}
    return NewRow(IDEMPOTENCY, values | overrides, times=("created_ms",))


def keys(database: Database) -> dict[str, Idempotency]:
    with database.read() as session:
        return {row.key: row for row in session.scalars(select(Idempotency))}


def test_all_rows_of_an_insertion_have_one_time_of_the_database_clock(database: Database) -> None:
    before = leases.clock(database)
    now = database.run_alone(lambda connection: insert_rows(connection, [key_row("a"), key_row("b")]))
    assert now is not None
    assert before <= now <= leases.clock(database)
    rows = keys(database)
    assert {row.created_ms for row in rows.values()} == {now}
    assert rows["a"].answer == {"at": at_time(now), "said": ["1970-01-01T00:00:00.000Z", "ü%s'"]}


def test_the_database_formats_every_millisecond_as_python_does(database: Database) -> None:
    times = set[int | None]()
    while len(times) < 25:
        times.add(database.run_alone(lambda connection: insert_rows(connection, [key_row(f"{time.monotonic_ns()}")])))
    for row in keys(database).values():
        assert row.answer["at"] == at_time(row.created_ms)


def test_nothing_is_inserted_if_the_first_row_exists(database: Database) -> None:
    assert database.run_alone(lambda connection: insert_rows(connection, [key_row("a")], once=True)) is not None
    assert (
        database.run_alone(lambda connection: insert_rows(connection, [key_row("a"), key_row("b")], once=True)) is None
    )
    assert set(keys(database)) == {"a"}


def test_a_failed_insertion_leaves_no_rows(database: Database) -> None:
    orphan = NewRow(JOB_TAGS, {"tag": "x", "job_id": "job_that_is_not_there"})
    with pytest.raises(DBAPIError):
        database.run_alone(lambda connection: insert_rows(connection, [key_row("a"), orphan], once=True))
    assert keys(database) == {}
    with database.read() as session:
        assert session.scalars(select(JobTag)).all() == []


def test_postgresql_refuses_values_that_are_too_long_instead_of_truncating_them(database: Database) -> None:
    with pytest.raises(DBAPIError, match="too long"):
        database.run_alone(lambda connection: insert_rows(connection, [key_row("a", job_id="j" * 41)]))


def test_an_insertion_is_a_single_statement_in_postgresql(database: Database) -> None:
    database.run_alone(lambda connection: insert_rows(connection, [key_row("first")]))
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    database.run_alone(lambda connection: insert_rows(connection, [key_row("a"), key_row("b")], once=True))
    assert [statement.split()[0] for statement in statements] == ["WITH"]


@pytest.mark.nightly
def test_connections_closed_by_the_server_are_replaced(database: Database) -> None:
    count_others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    terminate_others = count_others.replace("count(*)", "pg_terminate_backend(pid)")
    pooled = [database.engine.connect() for _ in range(3)]
    for connection in pooled:
        connection.execute(text("SELECT 1"))
        connection.close()
    with closing(Database(database.url)) as other:
        with other.read() as session:
            assert session.scalars(text(terminate_others)).all() == [True] * 3

        def have_ended() -> bool:
            with other.read() as session:  # a new transaction: each one sees one state
                return not session.scalar(text(count_others))

        wait_until(have_ended, "the end of the connections")
    for number in range(3):
        with database.write() as session:
            session.add(
                Worker(id=f"{number}", host="h", pid=1, slots=1, running=0, draining=False, started_ms=0, seen_ms=0)
            )


def test_a_long_idle_connection_is_pinged(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.read() as session:
        first = session.scalar(text("SELECT pg_backend_pid()"))
    monkeypatch.setattr(module, "_TRUSTED_S", 0.0)
    monkeypatch.setattr(module.select, "poll", None)  # must not be called
    with database.read() as session:
        assert session.scalar(text("SELECT pg_backend_pid()")) == first
