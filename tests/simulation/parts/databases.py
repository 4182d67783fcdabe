"""The database of a life: SQLite in memory, one connection for all processes, with a point around each transaction.

SQLite has one writer, and a transaction reads from one snapshot: to switch inside one would change nothing. The
product's ``Database`` is used as it is, on an engine whose pool hands out the one connection.
"""

from __future__ import annotations

import copy
import math
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final, TypeVar
from unittest import mock

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from migrations.upgrade import upgrade
from service.errors import LeaseLost, WrongStore
from service.features.webhooks.delivery.deliveries import Claim as MessageClaim
from service.jobs.leases import Claim
from service.storage import database
from service.storage.database import Database
from tests.simulation.kernel.faults import Fault
from tests.simulation.kernel.runtime import CURRENT
from tests.simulation.kernel.world import Process

T = TypeVar("T")

_PAGE_BYTES: Final = 512
"""Small pages: a new life copies the whole template."""
_UNDER_LEASE: Final = 4
"""How much more often a write under a lease meets a fault than other transactions do."""
_UNIX_EPOCH_JULIAN: Final = 2440587.5


@dataclass(slots=True)
class Transaction:
    """A write transaction, and under which leases it was made.

    Attributes:
        began_ms: by the clock of the world. On PostgreSQL, a transaction may end long after its first statement.
        clock_ms: when it began, by the database's clock.
    """

    operation: str
    process: Process
    claims: list[Claim] = field(default_factory=list)
    message: MessageClaim | None = None
    began_ms: float = 0.0
    clock_ms: int = 0

    def __str__(self) -> str:
        return " ".join([self.operation, *(f"{claim.job_id} lease {claim.lease}" for claim in self.claims)])


@dataclass(slots=True)
class Reach:
    """Whether processes reach the database, and what they did to it last."""

    is_down: bool = False
    refuses_writes: bool = False
    """A full disk."""
    cut_off: set[str] = field(default_factory=set)
    """Machines that do not reach it."""
    back_ms: float = -math.inf
    """When the last outage has ended."""
    restores: int = 0
    """How often it went back: what was acknowledged before may be gone."""
    last: Transaction | None = None
    refused: set[Claim] = field(default_factory=set)
    """Leases that a write has met as lost."""


class Memory:
    """The database in memory: emptied for each life, saved and restored."""

    has_locks = False

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", check_same_thread=False)
        self.connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")

        def engine(url: str, **options: Any) -> Any:
            return create_engine(url, poolclass=StaticPool, creator=lambda: self.connection, **options)

        with mock.patch.object(database, "create_engine", engine):
            self._database = SimulatedDatabase("sqlite://")
        upgrade(self._database)
        self.connection.execute("VACUUM")
        self._template = self.save()
        now = lambda _: _UNIX_EPOCH_JULIAN + CURRENT.world.database_ms / 86_400_000  # noqa: E731 - one expression
        self.connection.create_function("julianday", 1, now)

    def begin(self) -> SimulatedDatabase:
        """Empty the database for a new life."""
        self.restore(self._template)
        return self._database.of_life()

    def save(self) -> bytes:
        """The state of the database."""
        return self.connection.serialize()

    def restore(self, state: bytes) -> None:
        """Go back to a state."""
        self._end_transaction()
        self.connection.deserialize(state)

    def lease_tokens(self) -> set[str]:
        """The tokens of all leases that are held."""
        return {token for (token,) in self.connection.execute("SELECT lease_token FROM jobs WHERE status = 'running'")}

    def roll_back(self, process: Process) -> None:
        """End the transaction of a process that has died."""
        current = CURRENT.world.current
        if current is not None and current.process is process:
            current.is_in_transaction = False
            self._end_transaction()

    def fail(self) -> None:
        """The server fails: all transactions end. Here, there is none between two steps."""

    def _end_transaction(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")


class SimulatedDatabase(Database):
    """The product's database, with points and faults."""

    def __init__(self, url: str, **options: int) -> None:
        super().__init__(url, **options)
        self.reach = Reach()

    def of_life(self) -> SimulatedDatabase:
        """The database of a new life."""
        other = self.of_process()
        other.reach = Reach()
        return other

    def of_process(self) -> SimulatedDatabase:
        """The database as a new process opens it."""
        other = copy.copy(self)
        other._writer, other._pending = nullcontext(), []  # no thread is switched while it would hold the lock
        return other

    @contextmanager
    def read(self) -> Iterator[Session]:
        with self._around(), super().read() as session:
            yield session

    @contextmanager
    def read_once(self) -> Iterator[Session]:
        with self._around(), super().read_once() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        with self._around(_transaction(sys._getframe(2))), super().write() as session:
            yield session
            self._before_commit()

    def group_commit(self, work: Callable[[Connection], T]) -> T:
        def with_fault(connection: Connection) -> T:
            value = work(connection)
            self._before_commit()
            return value

        with self._around(_transaction(sys._getframe(1))):
            return super().group_commit(with_fault)

    def run_alone(self, work: Callable[[Connection], T], *, writes: bool = False) -> T:
        if writes:
            return super().run_alone(work, writes=True)
        with self._around():
            return super().run_alone(work)

    @contextmanager
    def _around(self, transaction: Transaction | None = None) -> Iterator[None]:
        if CURRENT.is_empty or CURRENT.world.current is None:  # the simulator itself
            yield
            return
        world, reach = CURRENT.world, self.reach
        weight = _UNDER_LEASE if transaction is not None and transaction.claims else 1
        world.step()
        if world.fault(Fault.CRASH, Fault.FREEZE, Fault.SLOW, Fault.REFUSED, weight=weight) is Fault.REFUSED:
            raise _unavailable("the transaction was refused")
        if reach.is_down or world.process.machine in reach.cut_off:
            raise _unavailable("the database does not respond")
        world.current.is_in_transaction, world.current.weight, waits = True, weight, world.current.waits
        if transaction is not None:
            transaction.began_ms, transaction.clock_ms = world.now_ms, world.database_ms
        try:
            yield
        except LeaseLost:
            self._count_refusal(transaction)
            if world.current.waits > waits:
                world.sometimes("lost its lease while it waited for a lock")
            raise
        except WrongStore:
            world.sometimes("wrong store")
            raise
        finally:
            world.current.is_in_transaction = False
        if transaction is not None:
            reach.last = transaction
            world.note(f"commits {transaction}")
        world.step()
        fault = world.fault(Fault.CRASH, Fault.FREEZE, Fault.LOST_ANSWER, weight=weight)
        if fault is Fault.LOST_ANSWER:
            if transaction is not None:
                world.sometimes("answer lost after the commit")
            raise _unavailable("the answer was lost")

    def _before_commit(self) -> None:
        """The end of a write transaction, which may not come."""
        if CURRENT.is_empty or (world := CURRENT.world).current is None:
            return
        if self.reach.refuses_writes:
            raise _unavailable("the disk is full")
        if world.fault(Fault.CRASH, Fault.REFUSED) is Fault.REFUSED:
            world.sometimes("failed before the commit")
            raise _unavailable("the commit was refused")

    def _count_refusal(self, transaction: Transaction | None) -> None:
        sometimes = CURRENT.world.sometimes
        sometimes("refused lease")
        for claim in transaction.claims if transaction is not None else ():
            if claim in self.reach.refused:
                sometimes("refused lease twice")
            self.reach.refused.add(claim)


def _transaction(frame: FrameType | None) -> Transaction | None:
    """Who writes: the function of the product that opens the transaction, and the leases among its variables."""
    while frame is not None and frame.f_globals["__name__"] in _TRANSPARENT:
        frame = frame.f_back
    if frame is None or CURRENT.is_empty or CURRENT.world.current is None:
        return None
    variables = frame.f_locals
    claims = variables.get("claims", [variables.get("claim")])
    name = f"{frame.f_globals['__name__'].rpartition('.')[2]}.{frame.f_code.co_name}"
    found = [claim for claim in claims if isinstance(claim, Claim)] if isinstance(claims, list) else []
    message = variables.get("claimed")
    return Transaction(name, CURRENT.world.process, found, message if isinstance(message, MessageClaim) else None)


_TRANSPARENT: Final = frozenset({__name__, "contextlib", database.__name__})


def _unavailable(message: str) -> OperationalError:
    return OperationalError(message, None, sqlite3.OperationalError(message))
