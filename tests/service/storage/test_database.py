from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from service.storage import database as module
from service.storage.database import Database
from service.storage.tables import Worker
from tests.conftest import postgresql_only, sqlite_only
from tests.waiting import wait_until


def add(name: str, fails: bool = False) -> Callable[[Connection], str]:
    def add_row(connection: Connection) -> str:
        values = {"id": name, "host": "h", "pid": 1, "slots": 1, "running": 0, "started_ms": 0, "seen_ms": 0}
        connection.execute(insert(Worker).values(draining=False, **values))
        if fails:
            raise KeyError(name)
        return name

    return add_row


def names(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Worker.id)))


def run_concurrently(operations: Sequence[Callable[[], Any]], waiting_in: Database | None = None) -> list[Any]:
    """Run operations in threads that start together, and return their results or exceptions.

    Args:
        waiting_in: a SQLite database that is locked until all of them wait for it.
    """
    all_started = threading.Barrier(len(operations) + 1)

    def start(operation: Callable[[], Any]) -> Any:
        all_started.wait()
        return operation()

    with ThreadPoolExecutor(len(operations)) as pool:
        with waiting_in.write() if waiting_in else nullcontext():
            futures = [pool.submit(start, operation) for operation in operations]
            all_started.wait()
            if waiting_in:
                wait_until(lambda: len(waiting_in._pending) == len(operations), "all to wait for the lock")
        return [future.exception() or future.result() for future in futures]


def test_operations_in_a_shared_commit_fail_individually(database: Database) -> None:
    inserts = [(f"w{number}", number % 3 == 0) for number in range(24)]
    group_commits = [partial(database.group_commit, add(*insert)) for insert in inserts]
    results = run_concurrently(group_commits, database if database.is_sqlite else None)
    for (name, fails), result in zip(inserts, results, strict=True):
        assert isinstance(result, KeyError) if fails else result == name
    assert names(database) == {name for name, fails in inserts if not fails}


def test_an_operation_sees_what_an_earlier_one_wrote(database: Database) -> None:
    results = run_concurrently([lambda: database.group_commit(add("same")) for _ in range(6)])
    assert results.count("same") == 1
    assert sum(isinstance(result, IntegrityError) for result in results) == 5


@postgresql_only
def test_a_transaction_has_time_limits_without_parameters_of_the_connection(database: Database) -> None:
    """PgBouncer refuses such parameters, and gives the connection to others between transactions."""
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    for open_session in (database.read, database.write):
        with open_session() as session:
            assert [session.scalar(text(f"SHOW {limit}")) for limit in limits] == ["30s", "15s", "1min"]
    with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        assert [connection.scalar(text(f"SHOW {limit}")) for limit in limits] == ["0", "0", "0"]


@pytest.fixture
def single(migrated_url: str) -> Iterator[tuple[Database, Callable[[], int]]]:
    """A database with one connection, and a function that counts its connections."""
    count = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'single'")
    with (
        closing(Database(migrated_url)) as database,
        closing(Database(migrated_url, application="single", idle_connections=1, connections=1)) as single,
        database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as observer,
    ):
        yield single, lambda: observer.scalar(count) or 0


@postgresql_only
def test_one_connection_serves_one_thread_after_the_other(single: tuple[Database, Callable[[], int]]) -> None:
    database, connections = single

    def add_and_count(name: str) -> int:
        database.group_commit(add(name))
        return connections()

    counts = [add_and_count("first"), *run_concurrently([partial(add_and_count, f"w{n}") for n in range(16)])]
    assert set(counts) == {1}
    assert len(names(database)) == 17


@postgresql_only
def test_the_server_keeps_the_plans_of_a_single_connection(single: tuple[Database, Callable[[], int]]) -> None:
    database, _ = single
    for _ in range(10):
        database.run_alone(lambda connection: connection.scalar(text("SELECT 1")))
        with database.write() as session:
            session.scalar(text("SELECT 2"))
        database.query(lambda session: session.scalar(text("SELECT 3")))
    with database.read_once() as session:
        kept = set(session.scalars(text("SELECT statement FROM pg_prepared_statements")))
    assert kept == {"SELECT 1", "SELECT 2", "SELECT 3"}


def test_what_a_reader_changes_is_not_written(database: Database) -> None:
    database.group_commit(add("first"))
    with database.read() as session:
        session.scalars(select(Worker)).one().host = "other"
        session.scalar(text("SELECT 1"))
    with database.read() as session:
        assert session.scalars(select(Worker.host)).one() == "h"


@postgresql_only
def test_a_connection_that_hangs_does_not_keep_renewals_waiting(
    single: tuple[Database, Callable[[], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, connections = single
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    urgent, waiting = database.with_reserve(), threading.Event()

    def wait_for_a_turn() -> None:
        waiting.set()
        database.group_commit(add("last"))

    with database.read() as hanging:
        hanging.scalar(text("SELECT 1"))
        waiter = threading.Thread(target=wait_for_a_turn)
        waiter.start()
        waiting.wait()
        urgent.group_commit(add("first"))
        assert names(urgent) == {"first"}
        assert connections() <= 2
    waiter.join()
    wait_until(lambda: connections() == 1, "the reserve to end")
    assert names(database) == {"first", "last"}
    assert connections() == 1


@sqlite_only
def test_few_commits_serve_many_operations(database: Database) -> None:
    commits: list[int] = []
    module.event.listen(database.engine, "commit", lambda _: commits.append(1))
    run_concurrently([partial(database.group_commit, add(f"w{number}")) for number in range(16)], database)
    assert len(names(database)) == 16
    assert sum(commits) <= 3, "one for the lock's holder, one for all who waited"


@sqlite_only
def test_a_failed_commit_is_reported_to_all_who_share_it(database: Database) -> None:

    def refuse(_: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise OperationalError("COMMIT", None, Exception("disk full"))

    module.event.listen(database.engine, "commit", refuse)
    operations: list[Callable[[], Any]] = [lambda n=n: database.group_commit(add(f"w{n}")) for n in range(5)]  # type: ignore[misc]
    results = run_concurrently(operations, database)
    module.event.remove(database.engine, "commit", refuse)
    assert [type(result) for result in results] == [OperationalError] * 5
    assert names(database) == set()


@sqlite_only
def test_after_a_rollback_by_sqlite_only_stored_operations_report_success(database: Database) -> None:

    def fill_the_database(connection: Connection) -> str:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {connection.scalar(text('PRAGMA page_count'))}")
        try:
            return add("x" * 100_000)(connection)
        finally:
            connection.exec_driver_sql("PRAGMA max_page_count = 1000000")

    results: list[Any] = []
    operations: list[Callable[[], Any]] = [
        lambda: database.group_commit(add("before")),
        lambda: database.group_commit(fill_the_database),
        lambda: database.group_commit(add("after")),
    ]
    with database.write() as session:
        session.execute(text("SELECT 1"))
        threads = []
        for operation in operations:  # in this order
            threads.append(threading.Thread(target=lambda op=operation: results.extend(run_concurrently([op]))))  # type: ignore[misc]
            threads[-1].start()
            wait_until(lambda: len(database._pending) == len(threads), "it to wait for the lock")
    for thread in threads:
        thread.join()
    stored = names(database)
    assert {result for result in results if isinstance(result, str)} == stored
    assert any(isinstance(result, OperationalError) for result in results)


def test_switching_a_new_file_to_wal_waits_for_the_lock_of_another_connection(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")  # the lock that PRAGMA journal_mode=WAL also takes; the file is new
        with (
            closing(sqlite3.connect(path, timeout=5)) as plain,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            plain.execute("PRAGMA journal_mode=WAL")  # SQLite itself does not wait
        release = threading.Timer(0.3, lambda: other.execute("COMMIT"))
        release.start()
        with closing(Database(f"sqlite:///{path}")) as database, database.read() as session:
            assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        release.join()


@sqlite_only
def test_a_writer_that_waits_too_long_gives_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUSY_S", 0.1)
    with database.write():
        (result,) = run_concurrently([lambda: database.group_commit(add("late"))])
    assert isinstance(result, module.PoolTimeout)
    assert names(database) == set(), "and what it wanted is not done later"
    assert database.group_commit(add("next")) == "next"
