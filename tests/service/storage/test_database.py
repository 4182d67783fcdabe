from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from service.storage import database as module
from service.storage.database import Database
from service.storage.tables import Worker
from tests.conftest import on_sqlite


def add(name: str, fails: bool = False) -> Callable[[Session], str]:
    def work(session: Session) -> str:
        session.add(Worker(id=name, host="h", pid=1, slots=1, running=0, draining=False, started_ms=0, seen_ms=0))
        session.flush()
        if fails:
            raise KeyError(name)
        return name

    return work


def names(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Worker.id)))


def at_once(works: Sequence[Callable[[], Any]], during: AbstractContextManager[Any] | None = None) -> list[Any]:
    """The results or exceptions of works that threads begin together, and cannot commit before ``during`` ends."""
    begun = threading.Barrier(len(works) + 1)

    def begin(work: Callable[[], Any]) -> Any:
        begun.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        with during or nullcontext():
            futures = [pool.submit(begin, work) for work in works]
            begun.wait()
            time.sleep(1 if during else 0)  # all wait for the lock by then
        return [future.exception() or future.result() for future in futures]


def test_works_that_share_a_commit_fail_one_by_one(database: Database) -> None:
    works = [(f"w{number}", number % 3 == 0) for number in range(24)]
    piling_up = database.write() if database.is_sqlite else None
    found = at_once([lambda w=work: database.group_commit(add(*w)) for work in works], piling_up)  # type: ignore[misc]
    for (name, fails), answer in zip(works, found, strict=True):
        assert isinstance(answer, KeyError) if fails else answer == name
    assert names(database) == {name for name, fails in works if not fails}


def test_a_work_sees_what_the_one_before_it_did(database: Database) -> None:
    found = at_once([lambda: database.group_commit(add("same")) for _ in range(6)])
    assert found.count("same") == 1
    assert sum(isinstance(answer, IntegrityError) for answer in found) == 5


@on_sqlite
def test_few_commits_serve_many_works(database: Database) -> None:
    commits: list[int] = []
    module.event.listen(database.engine, "commit", lambda _: commits.append(1))
    at_once([lambda n=n: database.group_commit(add(f"w{n}")) for n in range(16)], database.write())  # type: ignore[misc]
    assert len(names(database)) == 16
    assert sum(commits) <= 3, "one for the lock's holder, one for all who waited"


@on_sqlite
def test_where_the_commit_fails_all_hear_of_it(database: Database) -> None:

    def refuse(_: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise OperationalError("COMMIT", None, Exception("disk full"))

    module.event.listen(database.engine, "commit", refuse)
    works: list[Callable[[], Any]] = [lambda n=n: database.group_commit(add(f"w{n}")) for n in range(5)]  # type: ignore[misc]
    found = at_once(works, database.write())
    module.event.remove(database.engine, "commit", refuse)
    assert [type(answer) for answer in found] == [OperationalError] * 5
    assert names(database) == set()


@on_sqlite
def test_where_sqlite_takes_everything_back_all_who_share_hear_of_it(database: Database) -> None:

    def filling(session: Session) -> str:
        connection = session.connection()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {connection.scalar(text('PRAGMA page_count'))}")
        try:
            return add("x" * 100_000)(session)
        finally:
            connection.exec_driver_sql("PRAGMA max_page_count = 1000000")

    found: list[Any] = []
    works: list[Callable[[], Any]] = [
        lambda: database.group_commit(add("before")),
        lambda: database.group_commit(filling),
        lambda: database.group_commit(add("after")),
    ]
    with database.write() as session:
        session.execute(text("SELECT 1"))
        threads = []
        for work in works:  # in this order
            threads.append(threading.Thread(target=lambda work=work: found.extend(at_once([work]))))  # type: ignore[misc]
            threads[-1].start()
            time.sleep(0.1)
    for thread in threads:
        thread.join()
    stored = names(database)
    assert {answer for answer in found if isinstance(answer, str)} == stored
    assert any(isinstance(answer, OperationalError) for answer in found)


def test_a_new_file_is_waited_for_that_another_process_turns_to_its_log(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")  # what PRAGMA journal_mode=WAL takes, too; the file is not there before
        with (
            closing(sqlite3.connect(path, timeout=5)) as plain,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            plain.execute("PRAGMA journal_mode=WAL")  # SQLite alone would not wait
        release = threading.Timer(0.3, lambda: other.execute("COMMIT"))
        release.start()
        with closing(Database(f"sqlite:///{path}")) as database, database.read() as session:
            assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        release.join()


@on_sqlite
def test_a_writer_that_waits_too_long_gives_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUSY_S", 0.1)
    with database.write():
        (found,) = at_once([lambda: database.group_commit(add("late"))])
    assert isinstance(found, module.PoolTimeout)
    assert names(database) == set(), "and what it wanted is not done later"
    assert database.group_commit(add("next")) == "next"
