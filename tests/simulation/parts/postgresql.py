"""The database of a life on PostgreSQL: a connection for each transaction, with a point before each statement.

The locks are the server's own. A session that waits for one would block the only thread of the simulator; so when there
is no answer within a millisecond, another connection asks the server whether that session waits for a lock. If it does,
its thread is suspended in the world, and continued once the server has answered. Whether a session waits depends on the
statements before it alone, and not on how fast the server is; so a seed repeats its life.

What depends on real time in the server depends on simulated time here: its clock and its timeouts. A deadlock is a
violation.
"""

from __future__ import annotations

import os
import select
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg import errors, pq
from psycopg.types.string import TextLoader
from psycopg.waiting import Ready
from sqlalchemy import Connection as Transactional
from sqlalchemy import event, make_url

from migrations.upgrade import upgrade
from tests.simulation.kernel.faults import Fault
from tests.simulation.kernel.runtime import CURRENT
from tests.simulation.kernel.violation import Violation
from tests.simulation.kernel.world import Process, Thread
from tests.simulation.parts.databases import SimulatedDatabase

T = TypeVar("T")

_ANSWER_MS: Final = 1
"""After this time without an answer, the server is asked whether the session waits for a lock."""
_LOCK_TIMEOUT_S: Final = 15.0
_IDLE_TIMEOUT_MS: Final = 60_000.0
"""As ``service.storage.database`` sets them; by real time, no life lasts so long."""
_SCHEMA: Final = """
CREATE SCHEMA simulation;
CREATE FUNCTION simulation.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
BEGIN RETURN to_timestamp(pg_read_file('{path}')::float8 / 1000); END $$;
ALTER DATABASE {database} SET search_path = simulation, pg_catalog, public;
ALTER DATABASE {database} SET deadlock_timeout = '1h';
"""
"""The clock of the life is found before that of the server. Its own detection of deadlocks is postponed:
``_check_no_deadlock`` finds them."""


@dataclass(eq=False, slots=True)
class Wait:
    """A session that waits for a lock.

    Attributes:
        blockers: processes of the server that hold the lock, or wait for it before this one.
        error: why the statement will have failed.
        is_over: whether the server has answered.
    """

    connection: SimulatedConnection
    thread: Thread
    blockers: Sequence[int] = ()
    error: psycopg.Error | None = None
    is_over: bool = False


class SimulatedConnection(psycopg.Connection[Any]):
    """A connection that suspends its thread in the world while the server lets it wait for a lock."""

    server: Server

    def wait(self, gen: Any, interval: float = 0.0, timeout: float | None = None) -> Any:
        return self.server.drive(self, gen)

    def has_answer(self, timeout_ms: int) -> bool:
        """Whether there is something to read."""
        poller = select.poll()
        poller.register(self.pgconn.socket, select.POLLIN)
        return bool(poller.poll(timeout_ms))


class Server:
    """A database of a PostgreSQL server: emptied for each life.

    Args:
        url: of an empty database.
    """

    has_locks = True

    def __init__(self, url: str) -> None:
        self._clock = tempfile.NamedTemporaryFile(prefix="tapeline-clock-")  # noqa: SIM115 - as long as the server
        os.fchmod(self._clock.fileno(), 0o644)  # the server may belong to another user
        self._clock_ms = 0
        self._holders: dict[SimulatedConnection, Thread] = {}
        """The threads of open transactions."""
        self._waits: dict[SimulatedConnection, Wait] = {}
        self.commits = 0
        self._database = PostgresDatabase(url, self)
        upgrade(self._database)
        self._monitor = psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(), autocommit=True)
        self._monitor.execute(_SCHEMA.format(path=self._clock.name, database=make_url(url).database))
        self._database.engine.dispose()
        self.connection = Reader(url, self)
        self._save_rows()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self._monitor.close()
        self._database.close()
        self._clock.close()

    # As ``Memory``

    def begin(self) -> PostgresDatabase:
        """Empty the database for a new life."""
        self._holders.clear()
        self._waits.clear()
        self._restore_rows()
        database = self._database.of_life()
        assert isinstance(database, PostgresDatabase)
        return database

    def roll_back(self, process: Process) -> None:
        """End the transactions of a process that has died: its connections are closed."""
        for connection in [item for item, thread in self._holders.items() if thread.process is process]:
            self._holders[connection].is_in_transaction = False
            self.lose(connection)

    def fail(self) -> None:
        """The server fails: all transactions end."""
        for connection in list(self._holders):
            self.lose(connection)

    def _save_rows(self) -> None:
        """Keep the rows that a migration has made."""
        execute = self._monitor.execute
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
        self._tables = [name for (name,) in execute(query).fetchall()]
        self._kept = [name for name in self._tables if execute(f"SELECT 1 FROM public.{name} LIMIT 1").fetchone()]
        for name in self._kept:
            execute(f"CREATE TABLE simulation.{name} AS TABLE public.{name}")
        execute("SET session_replication_role = replica")  # neither triggers nor foreign keys

    def _restore_rows(self) -> None:
        used = "; ".join(f"SELECT '{name}' WHERE EXISTS (SELECT FROM public.{name})" for name in self._tables)
        cursor = self._monitor.execute(used)
        names = list(self._kept)
        while True:
            names += [name for (name,) in cursor.fetchall() if name not in names]
            if not cursor.nextset():
                break
        tables = ", ".join(f"public.{name}" for name in names)
        rows = "; ".join(f"INSERT INTO public.{name} TABLE simulation.{name}" for name in self._kept)
        self._monitor.execute(f"BEGIN; TRUNCATE {tables} RESTART IDENTITY CASCADE; {rows}; COMMIT")

    # Sessions

    def hold(self, connection: SimulatedConnection, thread: Thread) -> None:
        """A thread uses a connection, until its transaction ends."""
        self._holders[connection] = thread

    def drive(self, connection: SimulatedConnection, generator: Any) -> Any:
        """Do what the driver wants to do, and let others run while the server lets it wait for a lock."""
        self._set_clock()
        try:
            wanted = next(generator)
            while True:
                wanted = generator.send(self._ready(connection, wanted))
        except StopIteration as end:
            return end.value
        except errors.QueryCanceled:
            wait = self._waits.get(connection)
            if wait is not None and wait.error is not None:
                raise wait.error from None
            raise
        except psycopg.Error:
            raise
        except BaseException:  # the life is over
            self.lose(connection)
            raise
        finally:
            self._waits.pop(connection, None)
            if connection.closed or connection.pgconn.transaction_status == pq.TransactionStatus.IDLE:
                self._holders.pop(connection, None)
                self.continue_released()

    def _ready(self, connection: SimulatedConnection, wanted: int) -> int:
        """Wait for the socket; returns what it is ready for."""
        poller = select.poll()
        events = (select.POLLIN if wanted & Ready.R else 0) | (select.POLLOUT if wanted & Ready.W else 0)
        poller.register(connection.pgconn.socket, events)
        while True:
            for _, found in poller.poll(_ANSWER_MS):
                is_readable = found & ~select.POLLOUT and wanted & Ready.R
                return (Ready.R if is_readable else 0) | (Ready.W if found & select.POLLOUT else 0)
            self._wait_if_blocked(connection)

    def _wait_if_blocked(self, connection: SimulatedConnection) -> None:
        thread = self._holders.get(connection)
        if thread is None or connection in self._waits or not (blockers := self._blockers([connection])[connection]):
            return
        world = CURRENT.world
        wait = self._waits[connection] = Wait(connection, thread, blockers)
        thread.waits += 1
        world.note("waits for a lock")
        world.sometimes("waited for a lock")
        self._check_no_deadlock(wait)
        world.wait_for_lock(_LOCK_TIMEOUT_S)
        if not wait.is_over and not connection.closed:
            world.note("has waited for too long for a lock")
            world.sometimes("lock timeout")
            wait.error = errors.LockNotAvailable("canceling statement due to lock timeout")
            self._cancel(connection)

    def _blockers(self, connections: Sequence[SimulatedConnection]) -> dict[SimulatedConnection, list[int]]:
        query = "SELECT pid, pg_blocking_pids(pid) FROM unnest(%s::int[]) AS pid"
        pids = [connection.pgconn.backend_pid for connection in connections]
        found = dict(self._monitor.execute(query, (pids,)).fetchall())
        return {connection: found[connection.pgconn.backend_pid] for connection in connections}

    def _check_no_deadlock(self, wait: Wait) -> None:
        """Fail if a session waits for itself.

        PostgreSQL would end one of the transactions after a second. The product takes its locks in one order, and does
        not repeat transactions.
        """
        waits = {item.connection.pgconn.backend_pid: item for item in self._waits.values() if not item.is_over}
        own = wait.connection.pgconn.backend_pid
        seen: list[int] = []
        reached = list(wait.blockers)
        while reached:
            pid = reached.pop()
            if pid == own:
                who = [f"{item.thread.process.name}/{item.thread.name}" for item in (wait, *(waits[p] for p in seen))]
                CURRENT.world.fail(Violation("no deadlock", " and ".join(sorted(who))))
            if pid in waits and pid not in seen:
                seen.append(pid)
                reached.extend(waits[pid].blockers)

    def would_skip(self, connection: SimulatedConnection, statement: str, parameters: Any) -> bool:
        """Whether a query is about to skip a row that another transaction has locked."""
        if not self._holders.keys() - {connection} or not statement.startswith("SELECT"):
            return False
        try:
            self._monitor.execute("BEGIN")
            self._monitor.execute(statement.replace("SKIP LOCKED", "NOWAIT"), parameters)
        except errors.LockNotAvailable:
            return True
        finally:
            self._monitor.execute("ROLLBACK")
        return False

    def continue_released(self) -> None:
        """Continue all threads whose sessions have got their locks. The server goes on with them at once, so nothing
        else happens until each of them has an answer, or waits again."""
        waiting = [wait for wait in self._waits.values() if not wait.is_over]
        answered: set[SimulatedConnection] = set()
        while left := [wait.connection for wait in waiting if wait.connection not in answered]:
            new = {connection for connection in left if connection.has_answer(0)}
            answered |= new
            blockers = self._blockers(left)
            is_stable = not new
            for wait in waiting:
                if wait.connection in left and wait.connection not in new:
                    wait.blockers = blockers[wait.connection]
                    is_stable = is_stable and bool(wait.blockers)
            if is_stable and not any(connection.has_answer(0) for connection in left):
                break
        for wait in waiting:
            if wait.connection in answered:
                wait.is_over = True
                if not CURRENT.world.is_over:
                    CURRENT.world.lock_is_free(wait.thread)

    def _cancel(self, connection: SimulatedConnection) -> None:
        self._monitor.execute("SELECT pg_cancel_backend(%s)", (connection.pgconn.backend_pid,))

    def lose(self, connection: SimulatedConnection) -> None:
        """A connection is lost, and the server rolls its transaction back at once."""
        self._holders.pop(connection, None)
        if connection.closed:
            return
        wait = self._waits.pop(connection, None)
        if wait is not None and wait.thread.process.is_dead:
            CURRENT.world.sometimes("killed while it waited for a lock")
        pgconn = connection.pgconn
        if pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            if not connection.has_answer(0):
                self._cancel(connection)
            while pgconn.get_result() is not None:
                pass
        pgconn.exec_(b"ROLLBACK")
        connection.close()
        if wait is not None and not wait.is_over and not CURRENT.world.is_over and not wait.thread.process.is_dead:
            wait.is_over = True
            CURRENT.world.lock_is_free(wait.thread)
        self.continue_released()

    def _set_clock(self) -> None:
        if not CURRENT.is_empty and (now_ms := CURRENT.world.database_ms) != self._clock_ms:
            self._clock_ms = now_ms
            os.pwrite(self._clock.fileno(), str(now_ms).encode(), 0)


class Reader:
    """A connection of the simulator, which sees what is committed. It takes the statements of SQLite, and returns JSON
    as text."""

    def __init__(self, url: str, server: Server) -> None:
        self._server = server
        self._connection = psycopg.connect(
            make_url(url).set(drivername="postgresql").render_as_string(), autocommit=True
        )
        for name in ("json", "jsonb"):
            self._connection.adapters.register_loader(name, TextLoader)

    @property
    def total_changes(self) -> int:
        """Rises with each write transaction."""
        return self._server.commits

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        """Execute a query."""
        return self._connection.execute(query.replace("?", "%s"), parameters or None)


class PostgresDatabase(SimulatedDatabase):
    """The product's database on PostgreSQL, with points before statements."""

    def __init__(self, url: str, server: Server) -> None:
        super().__init__(url, idle_connections=60, connections=90)
        self._server = server
        event.listen(self.engine, "do_connect", self._connect)
        event.listen(self.engine, "before_cursor_execute", self._before_statement)
        event.listen(self.engine, "commit", self._before_committing)

    def run_alone(self, work: Callable[[Transactional], T], *, writes: bool = False) -> T:
        if not writes:
            return super().run_alone(work)
        return self.group_commit(work)  # a commit of its own: the end of a wait must not be one

    def _connect(self, dialect: Any, record: Any, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
        connection = SimulatedConnection.connect(*arguments, **options)
        connection.server = self._server
        return connection

    def _before_statement(
        self, connection: Transactional, cursor: Any, statement: str, parameters: Any, context: Any, is_many: bool
    ) -> None:
        if CURRENT.is_empty or (world := CURRENT.world).current is None or world.is_over:
            return
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, SimulatedConnection)
        is_open = driver.pgconn.transaction_status != pq.TransactionStatus.IDLE
        self._server.hold(driver, world.current)
        if not is_open:
            return  # there was a point already
        before_ms = world.now_ms
        world.step()
        world.fault(Fault.CRASH, Fault.FREEZE, Fault.SLOW, weight=world.current.weight)
        if self.reach.is_down or world.process.machine in self.reach.cut_off:
            self._server.lose(driver)
        if world.now_ms - before_ms > _IDLE_TIMEOUT_MS:
            world.sometimes("transaction ended by the server")
            self._server.lose(driver)
        if "SKIP LOCKED" in statement and self._server.would_skip(driver, statement, parameters):
            world.sometimes("skipped a locked row")

    def _before_committing(self, connection: Transactional) -> None:
        if connection.get_execution_options().get("tapeline_begin") != "write":
            return
        # Deferred triggers lock rows. If they did so in COMMIT, the end of one transaction could be that of others.
        connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        if not CURRENT.is_empty and (world := CURRENT.world).current is not None and not world.is_over:
            world.step()
        self._server.commits += 1
