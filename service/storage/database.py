"""One database, two makes: SQLite and PostgreSQL behind the same two context managers."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final, Generic, TypeVar, cast

from sqlalchemy import BigInteger, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service.storage import sweep_tables  # noqa: F401 - whoever opens a database knows all of its tables
from service.storage.tables import Base

_BUSY_S: Final = 30

T = TypeVar("T")


class now_ms(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock, milliseconds since 1970; in PostgreSQL it moves within a transaction."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "sqlite")
def _now_sqlite(element: now_ms, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


@compiles(now_ms, "postgresql")
def _now_postgresql(element: now_ms, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"


class Database:
    """Opens connections when they are first needed, so that making one before a fork is harmless.

    In SQLite a writer takes the file's write lock at its first word (``BEGIN IMMEDIATE``): a transaction that
    read first and wrote then could not be repeated safely. One lock a process stands before the file's, since
    threads that wait for the file sleep in steps and would wait much longer.
    """

    def __init__(self, url: str, *, application: str = "tapeline") -> None:
        self.url = url
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.engine = create_engine(url, connect_args={"timeout": _BUSY_S, "check_same_thread": False})
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            self.engine = create_engine(
                url,
                pool_pre_ping=True,
                pool_size=20,
                max_overflow=20,
                connect_args={
                    "application_name": application[:60],
                    "connect_timeout": 5,
                    "tcp_user_timeout": 10_000,
                    "options": "-c statement_timeout=30000 -c lock_timeout=15000"
                    " -c idle_in_transaction_session_timeout=60000",
                },
            )
        # SQLite's transactions see one state anyway; PostgreSQL's do from this level on.
        self._reader = (
            self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        )
        self._writing = self.engine.execution_options(tapeline_write=True)
        self._sharing = threading.Lock()
        self._shared: list[_Shared[Any]] = []
        self._writer = TimedLock() if self.is_sqlite else nullcontext()

    def insert(self, table: type[Base]) -> sqlite.Insert:
        """An INSERT that knows ``ON CONFLICT``, which both makes spell alike and plain SQLAlchemy does not know."""
        # PostgreSQL's construct has the same methods, but no common base that declares them.
        return sqlite.insert(table) if self.is_sqlite else cast(sqlite.Insert, postgresql.insert(table))

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the database and changes nothing."""
        with Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back where it raises."""
        with self._writer, Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def group_commit(self, work: Callable[[Session], T]) -> T:
        """Do a small work in a transaction that it may share with others that wait at the same moment.

        In SQLite each commit waits for the disk, and no two can wait at once: so whoever's turn it is does the work
        of all who wait, and one commit serves them. Each has a savepoint: what one raises undoes its own work only.
        Where the commit fails, or the database itself while one is at work, all hear of it.
        """
        if not self.is_sqlite:
            with self.write() as session:
                return work(session)
        mine: _Shared[T] = _Shared(work)
        with self._sharing:
            self._shared.append(mine)
        try:
            with self._writer:
                if not mine.done.is_set():
                    with self._sharing:
                        batch, self._shared = self._shared, []
                    self._do(batch)
        except PoolTimeout:
            with self._sharing:
                if mine in self._shared:
                    self._shared.remove(mine)
                    raise
        return mine.result()  # somebody else may still be at it

    def _do(self, batch: Sequence[_Shared[Any]]) -> None:
        """Several works, one commit."""
        try:
            with Session(self._writing, expire_on_commit=False) as session, session.begin():
                for item in batch:
                    try:
                        with session.begin_nested() if len(batch) > 1 else nullcontext():
                            item.answer = item.work(session)
                    except Exception as error:
                        # On a full disk SQLite rolls back by itself, all the savepoints with it.
                        if len(batch) == 1 or not _undoes_one(error):
                            raise
                        item.error = error
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it was
            for item in batch:
                item.error = item.error or error
        for item in batch:
            item.done.set()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


class _Shared(Generic[T]):
    """A work that waits for its turn, and what came of it."""

    def __init__(self, work: Callable[[Session], T]) -> None:
        self.work = work
        self.answer: T | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()

    def result(self) -> T:
        """What the work gave, once it is done; raises what it raised."""
        self.done.wait()
        if self.error is not None:
            raise self.error
        return cast(T, self.answer)


def _undoes_one(error: Exception) -> bool:
    """Whether the transaction stands without the work that raised this."""
    return isinstance(error, IntegrityError) or not isinstance(error, SQLAlchemyError)


class TimedLock:
    """A lock that is not waited for without end: behind a file that others keep locked, a queue of threads would
    wait for ``_BUSY_S`` each, one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=_BUSY_S):
            raise PoolTimeout(f"no write lock within {_BUSY_S} seconds")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _prepare_sqlite(connection: Any, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    # SQLite's own knows no letters beyond ASCII, and a search is to find them as in PostgreSQL.
    connection.create_function("lower", 1, lambda text: text and text.lower(), deterministic=True)
    cursor = connection.cursor()
    _log_ahead(cursor)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _log_ahead(cursor: Any) -> None:
    """Turn the write-ahead log on, which stays in the file. SQLite does not wait for others here, as it does
    elsewhere: of several processes that open a new file at once, each would hold the others up."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("tapeline_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
