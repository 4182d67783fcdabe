"""SQLite and PostgreSQL behind the same two context managers."""

from __future__ import annotations

import copy
import select
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, cast

from sqlalchemy import BigInteger, ColumnElement, Select, create_engine, event, make_url, true
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.exc import (
    DisconnectionError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service import declarations
from service.declarations import Room
from service.errors import ServiceError
from service.runtime import server_promises
from service.runtime.files.private_files import create_private
from service.storage import (  # noqa: F401 - add their tables to Base.metadata
    file_tables,
    owner_tables,
    sweep_tables,
)
from service.storage.tables import Base

declarations.modules(Room.TABLES)  # likewise

_BUSY_S: Final = 30
_TIME_LIMITS: Final = (
    "SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = '15s'; "
    "SET LOCAL idle_in_transaction_session_timeout = '60s'"
)
_REPEATED: Final = 3
"""After so many executions, the server keeps the plan of a statement."""
PATIENCE_S: Final = 2.0
"""How long renewals wait for the only connection before they open another one."""
_TRUSTED_S: Final = 2.0
"""How long a pooled connection may be idle without being pinged before its next use."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Primary error codes of a file whose content is not that of a database."""

P = ParamSpec("P")
T = TypeVar("T")
_Query = TypeVar("_Query", bound=Select[*tuple[Any, ...]])


class now_ms(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock in ms since 1970; it advances within a transaction in PostgreSQL, too."""

    type = BigInteger()
    inherit_cache = True


NOW_SQLITE: Final = "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
NOW_POSTGRESQL: Final = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"


@compiles(now_ms, "sqlite")
def _now_sqlite(element: now_ms, compiler: SQLCompiler, **options: Any) -> str:
    return NOW_SQLITE


@compiles(now_ms, "postgresql")
def _now_postgresql(element: now_ms, compiler: SQLCompiler, **options: Any) -> str:
    return NOW_POSTGRESQL


def locking(
    query: _Query,
    *,
    skip_locked: bool = False,
    share: bool = False,
    keeps_key: bool = False,
    of: type[Base] | None = None,
) -> _Query:
    """``SELECT … FOR UPDATE`` (or ``FOR SHARE``), which also refreshes objects that the session has loaded already.

    Otherwise they would keep the state from before the lock, and another transaction may have changed the row since.

    Args:
        keeps_key: others may insert rows that refer to the locked ones meanwhile.
        of: lock the rows of this table only, not those of joined ones.
    """
    locked = query.with_for_update(skip_locked=skip_locked, read=share, key_share=keeps_key, of=of)
    return locked.execution_options(populate_existing=True)


def visible(column: InstrumentedAttribute[Any], owner: str | None) -> ColumnElement[bool]:
    """The condition that a row's ``column`` names this owner; ``None``: any; ``""``: everybody without a key, whose
    rows name none."""
    if owner is None:
        return true()
    return column == owner if owner else column.is_(None)


class DatabaseDamaged(ServiceError, SQLAlchemyError):  # type: ignore[misc]  # both have a ``code``
    """The file of the database is damaged: repeating what failed does not help."""

    remedy = (
        "stop the service, move this file and those that begin with its name to another folder, and restore a backup: "
        "tapeline restore FILE"
    )

    def __init__(self, path: str | None, reason: str) -> None:
        self.detail = f"the database {path or 'file'} is damaged ({reason})"
        super().__init__(f"{self.detail}: {self.remedy}")

    def __str__(self) -> str:
        """The message, without SQLAlchemy's link to a page about it."""
        return f"{self.detail}: {self.remedy}"


class Reader(Protocol):
    """What answers single queries: a database, or the supervisor of a process that has none."""

    def query(self, query: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a function of a session and further arguments."""
        ...


class Database:
    """Opens connections on first use, so an instance may be created before a fork.

    In SQLite, write transactions start with ``BEGIN IMMEDIATE``: one that upgraded from a read lock could
    fail and not be retried safely. A lock per process is acquired before the file's lock, because SQLite
    waits for the latter by sleeping in growing steps.

    A server may be PgBouncer in transaction mode: nothing depends on the state of a connection between transactions.

    Args:
        application: the name of the connections in PostgreSQL.
        idle_connections: maximum number of connections to PostgreSQL that are kept open between transactions.
        connections: maximum number of connections to PostgreSQL; further transactions wait. See also ``with_reserve``.
    """

    def __init__(
        self, url: str, *, application: str = "tapeline", idle_connections: int = 20, connections: int = 40
    ) -> None:
        self._turn: AbstractContextManager[object] = nullcontext()
        self.url = url
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.engine = create_engine(url, connect_args={"timeout": _BUSY_S, "check_same_thread": False})
            event.listen(self.engine, "do_connect", _create_sqlite)
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
            event.listen(self.engine, "handle_error", _recognize_damage)
        else:
            has_single = connections == 1
            if has_single:
                self._turn, connections = Turn(threading.Lock(), _BUSY_S), 2
            self.engine = create_engine(
                url,
                isolation_level="AUTOCOMMIT",  # _begin_postgresql sends BEGIN
                pool_size=idle_connections,  # 0 would mean no limit
                max_overflow=connections - idle_connections,
                connect_args={
                    "application_name": application[:60],
                    "connect_timeout": 5,
                    "tcp_user_timeout": 10_000,
                    # A server that is gone after it has received a query is noticed after 15 seconds.
                    "keepalives_idle": 5,
                    "keepalives_interval": 5,
                    "keepalives_count": 2,
                    "prepare_threshold": None,
                },
            )
            self.engine.dialect.use_insertmanyvalues_wo_returning = True  # one statement for several rows
            event.listen(self.engine, "begin", _begin_postgresql)
            event.listen(self.engine, "connect", server_promises.check)
            if has_single:  # it repeats a few statements
                event.listen(self.engine, "connect", _prepare_repeated)
            event.listen(self.engine, "connect", _record_use)
            event.listen(self.engine, "checkin", _record_use)
            event.listen(self.engine, "checkout", _check_idle)
        self._reader = self.engine.execution_options(tapeline_begin="snapshot")
        self._writer_engine = self.engine.execution_options(tapeline_begin="write")
        self._single = self.engine.execution_options(tapeline_begin="single")
        self._pending_lock = threading.Lock()
        self._pending: list[_Operation[Any]] = []
        self._writer = TimedLock() if self.is_sqlite else nullcontext()

    def with_reserve(self) -> Database:
        """The same database, for what must not wait behind other transactions: if the only connection is not free
        within ``PATIENCE_S``, because it hangs or waits for a lock, another one is opened for this use."""
        other = copy.copy(self)
        if isinstance(self._turn, Turn):
            other._turn = self._turn.with_reserve()
        return other

    def if_free(self) -> Database:
        """The same database, for what can be left out: ``PoolTimeout`` at once if the only connection is in use."""
        other = copy.copy(self)
        if isinstance(self._turn, Turn):
            other._turn = self._turn.if_free()
        return other

    def insert(self, table: type[Base]) -> sqlite.Insert:
        """An INSERT that supports ``ON CONFLICT``: the same syntax in both databases, but not in generic SQLAlchemy."""
        # PostgreSQL's construct has the same methods, but no common base that declares them.
        return sqlite.insert(table) if self.is_sqlite else cast(sqlite.Insert, postgresql.insert(table))

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that reads from one snapshot of the database."""
        with self._turn, Session(self._reader, expire_on_commit=False, autoflush=False) as session:
            yield session
            session.expunge_all()  # what the block has changed is not written
            session.commit()  # a rollback would discard the plans that the server keeps

    def query(self, query: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a function that reads in a session."""
        with self.read() as session:
            return query(session, *args, **kwargs)

    @contextmanager
    def read_once(self) -> Iterator[Session]:
        """A session for one statement, see ``run_alone``."""
        engine = self._reader if self.is_sqlite else self._single
        with self._turn, Session(engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back on an exception."""
        with self._turn, self._writer, Session(self._writer_engine, expire_on_commit=False) as session, session.begin():
            yield session

    def group_commit(self, work: Callable[[Connection], T]) -> T:
        """Run a short operation in a transaction that may be shared with concurrent callers.

        In SQLite each commit waits for the disk, and only one can run at a time: the thread that gets the write lock
        runs the operations of all waiting threads and commits once. Each operation has a savepoint, so an exception
        rolls back that operation only. If the commit or the database itself fails, every caller gets the error.
        """
        if not self.is_sqlite:
            with self._turn, self._writer_engine.begin() as connection:
                return work(connection)
        operation: _Operation[T] = _Operation(work)
        with self._pending_lock:
            self._pending.append(operation)
        try:
            with self._writer:
                if not operation.done.is_set():
                    with self._pending_lock:
                        batch, self._pending = self._pending, []
                    self._run(batch)
        except PoolTimeout:
            with self._pending_lock:
                if operation in self._pending:
                    self._pending.remove(operation)
                    raise
        return operation.result()  # another thread may still be running it

    def run_alone(self, work: Callable[[Connection], T], *, writes: bool = False) -> T:
        """Run one statement: alone it is a transaction of PostgreSQL, without the round trips of BEGIN and COMMIT, and
        without a limit of its time: it should wait for no lock for long."""
        if self.is_sqlite and writes:
            return self.group_commit(work)
        engine = self._reader if self.is_sqlite else self._single
        with self._turn, engine.connect() as connection:
            return work(connection)

    def _run(self, batch: Sequence[_Operation[Any]]) -> None:
        """Run several operations and commit once."""
        try:
            with self._writer_engine.connect() as connection, connection.begin():
                for operation in batch:
                    if len(batch) == 1:
                        operation.value = operation.work(connection)
                        continue
                    connection.exec_driver_sql("SAVEPOINT operation")
                    try:
                        operation.value = operation.work(connection)
                    except Exception as error:
                        # On a full disk, SQLite rolls the whole transaction back, with all savepoints.
                        if not _keeps_transaction(error):
                            raise
                        operation.error = error
                        connection.exec_driver_sql("ROLLBACK TO operation")
                    connection.exec_driver_sql("RELEASE operation")
        except BaseException as error:  # noqa: BLE001 - waiting callers must get any error
            for operation in batch:
                operation.error = operation.error or error
        for operation in batch:
            operation.done.set()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


class _Operation(Generic[T]):
    """An operation that waits for a group commit, and its result."""

    def __init__(self, work: Callable[[Connection], T]) -> None:
        self.work = work
        self.value: T | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()

    def result(self) -> T:
        """Wait for the result; raises the operation's exception."""
        self.done.wait()
        if self.error is not None:
            raise self.error
        return cast(T, self.value)


def _keeps_transaction(error: Exception) -> bool:
    """Whether the transaction survives the rollback of the operation that raised this."""
    return isinstance(error, IntegrityError) or not isinstance(error, SQLAlchemyError)


class TimedLock:
    """A lock whose acquisition times out: while another process holds the file's lock, queued threads would otherwise
    wait ``_BUSY_S`` each, one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=_BUSY_S):
            raise PoolTimeout(f"no write lock within {_BUSY_S} seconds")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Turn:
    """Lets one thread after the other use the only connection.

    Args:
        timeout_s: how long to wait.
        has_reserve: whether to go on then, with another connection, instead of an error.
    """

    def __init__(self, lock: threading.Lock, timeout_s: float, *, has_reserve: bool = False) -> None:
        self._lock, self._timeout_s, self._has_reserve = lock, timeout_s, has_reserve
        self._thread = threading.local()

    def with_reserve(self) -> Turn:
        """A turn at the same connection that does not wait for long."""
        return Turn(self._lock, PATIENCE_S, has_reserve=True)

    def if_free(self) -> Turn:
        """A turn at the same connection that does not wait."""
        return Turn(self._lock, 0.0)

    def __enter__(self) -> None:
        self._thread.holds = self._lock.acquire(timeout=self._timeout_s)
        if not self._thread.holds and not self._has_reserve:
            raise PoolTimeout(f"the connection was not free for {self._timeout_s:g} seconds")

    def __exit__(self, *_: object) -> None:
        if self._thread.holds:
            self._lock.release()


def _create_sqlite(dialect: Any, record: ConnectionPoolEntry, arguments: list[Any], options: dict[str, Any]) -> None:
    """Create the file for its owner alone: it has secrets. SQLite gives its log and index the same mode."""
    if (path := str(arguments[0])) and ":" not in path.partition("/")[0]:  # neither :memory: nor file:...
        create_private(path)


def _prepare_sqlite(connection: Any, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # _begin_sqlite sends BEGIN
    # SQLite's lower() handles ASCII only; search must match other letters as in PostgreSQL.
    connection.create_function("lower", 1, lambda text: text and text.lower(), deterministic=True)
    cursor = connection.cursor()
    _enable_wal(cursor)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _enable_wal(cursor: Any) -> None:
    """Enable the write-ahead log, a persistent setting of the file. SQLite's busy timeout does not apply to this
    statement, so processes that open a new file at the same time must retry it."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _recognize_damage(context: ExceptionContext) -> None:
    """Replace the errors of a damaged file by one that names the remedy."""
    cause = context.original_exception
    if getattr(cause, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
        raise DatabaseDamaged(context.engine.url.database if context.engine else None, str(cause)) from cause


def is_database_fault(error: Exception) -> bool:
    """Whether the database, rather than a query, is at fault: it does not respond, or lacks a table or column."""
    return isinstance(error, (OperationalError, ProgrammingError, InterfaceError, PoolTimeout))


def is_disk_full(error: Exception) -> bool:
    """Whether the disk of the database is full."""
    cause = getattr(error, "orig", None)
    return (
        getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(cause, "sqlstate", None) == "53100"
    )


def _begin_postgresql(connection: Connection) -> None:
    """Begin a transaction and limit its time, in one message: PgBouncer refuses such limits as parameters of the
    connection."""
    options = connection.get_execution_options()
    if options.get("isolation_level") == "AUTOCOMMIT" or options.get("tapeline_begin") == "single":
        return
    # Of one snapshot, as in SQLite.
    snapshot = " ISOLATION LEVEL REPEATABLE READ" if options.get("tapeline_begin") == "snapshot" else ""
    connection.exec_driver_sql(f"BEGIN{snapshot}; {_TIME_LIMITS}")


def _prepare_repeated(connection: Any, record: ConnectionPoolEntry) -> None:
    """Let the server keep the plans of statements that are repeated, which saves a third of its time. Not behind a
    pooler, where they belong to a connection that others get: there, the process of the server is another one than the
    connection was told."""
    (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone()
    connection.rollback()
    if pid == connection.info.backend_pid:
        connection.prepare_threshold = _REPEATED


def _record_use(connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["used"] = time.monotonic()


def _check_idle(connection: Any, record: ConnectionPoolEntry, _: object) -> None:
    """Replace a connection that was lost in the pool, without a round trip for each use.

    A server that ends a connection announces it, so an idle connection with nothing to read is sound. Only
    one that was idle for longer is pinged, because a firewall may have dropped it silently.
    """
    idle_s = time.monotonic() - record.info["used"]
    if idle_s < _TRUSTED_S:
        poller = select.poll()  # not select.select, which accepts no descriptor above 1,023
        poller.register(connection.fileno(), select.POLLIN)
        if not poller.poll(0):
            return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except Exception as error:  # the driver is imported with PostgreSQL only
        raise DisconnectionError("the server has closed the connection") from error


def _begin_sqlite(connection: Connection) -> None:
    is_write = connection.get_execution_options().get("tapeline_begin") == "write"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")
