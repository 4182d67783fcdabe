"""The kernel: processes and their threads as greenlets, one clock, and one tape that decides who runs next.

A thread runs until it reaches a *point*: a transaction, an access to the store, a failpoint, a wait. There it hands
over to the loop, which continues the thread whose turn it is by the clock. How long a point takes is drawn from the
tape, so the tape decides every order of events; between two points nothing else happens.

In SQLite a transaction is one step. On PostgreSQL, each statement is one: the loop continues other threads inside a
transaction, too, and a thread whose statement waits for a lock is continued once the lock is free.

A killed process is never resumed. As after a real kill, none of its ``finally`` runs: the loop keeps its greenlets
until the life has ended.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped]  # it has no stubs
from sqlalchemy.exc import SQLAlchemyError

from service.runtime.settings import Settings
from tests.simulation.kernel.faults import Climate, Fault
from tests.simulation.kernel.sometimes import Sometimes
from tests.simulation.kernel.tape import Tape
from tests.simulation.kernel.violation import Violation

START_MS: Final = 1_800_000_000_000
_LATENCIES_MS: Final = (1, 2, 3, 5, 8, 13, 40, 150)
"""What a point takes: long enough to overtake another process, or a whole transaction of it."""
_STATEMENTS_MS: Final = ((1, 5, 20, 60, 150, 400), (1, 1, 2, 3, 5, 20))
"""What a statement of a transaction takes, in lives with slow and fast transactions. Slow ones meet more often."""
_SLOW_MS: Final = (300, 900, 2500)
_FREEZES: Final = (0.3, 0.8, 1.1, 1.7, 4.0)
"""How long a process sleeps, in leases."""
_COMA_S: Final = 130.0
"""Longer than the lease of a message."""


@dataclass(eq=False)
class Process:
    """A process of the product: of one life, from its start to its end.

    Attributes:
        machine: what fails together.
        is_outside: whether it is no part of the system: users and operators meet no faults of their own.
        parent: its supervisor; a training process exits with it.
        troubled_ms: until when a fault has kept it from renewing leases.
        asleep_ms: until when it could do nothing at all.
    """

    name: str
    machine: str
    parent: Process | None = None
    settings: Settings | None = None
    is_outside: bool = False
    wall_skew_s: float = 0.0
    is_dead: bool = False
    frozen_until_ms: float = 0.0
    troubled_ms: float = -math.inf
    asleep_ms: float = -math.inf
    on_death: list[Callable[[], None]] = field(default_factory=list)


@dataclass(eq=False)
class Thread:
    """A thread of a process."""

    name: str
    process: Process
    greenlet: greenlet
    ticket: int = 0
    """Rises with each resumption: older appointments are void."""
    is_in_transaction: bool = False
    weight: int = 1
    """How much more often its statements meet a fault than others."""
    waits: int = 0
    """How often it has waited for a lock."""


class World:
    """One life of the whole system.

    Args:
        tape: of all choices.
        climate: which faults occur, and how often.
        lease_s: the unit of freezes.
        has_locks: whether threads are switched inside transactions.
        is_traced: whether to write down what happens, which takes as long as the life itself.
    """

    def __init__(
        self,
        tape: Tape,
        climate: Climate,
        sometimes: Sometimes,
        *,
        lease_s: float,
        has_locks: bool = False,
        is_traced: bool = False,
    ) -> None:
        self.tape, self.climate, self.sometimes, self.lease_s = tape, climate, sometimes, lease_s
        self.has_locks = has_locks
        self.now_ms: float = START_MS
        self.database_skew_ms = 0.0
        self.bucket_skew_ms = 0.0
        self.steps = self.faults = 0
        self.processes: list[Process] = []
        self.current: Thread | None = None
        self.is_calm = False
        self.roll_back: Callable[[Process], None] = lambda process: None
        """Ends the transactions of a process that has died."""
        self.after_step: Callable[[], None] = lambda: None
        """Checks the invariants."""
        self.trace: list[str] | None = [] if is_traced else None
        self._threads: list[Thread] = []
        self._appointments: list[tuple[float, int, int, int, Thread]] = []
        """When, an order among equals, the number of the appointment, the ticket, and who."""
        self._hub = getcurrent()
        self._made = self._ids = 0
        self._until_fault = tape.gap(climate.gap)
        self._statement_ms = _STATEMENTS_MS[tape.draw(len(_STATEMENTS_MS))] if has_locks else ()
        self._is_over = False
        self._failure: Violation | None = None

    # Processes and threads

    def start(
        self,
        name: str,
        main: Callable[[], None],
        *,
        machine: str | None = None,
        parent: Process | None = None,
        settings: Settings | None = None,
        is_outside: bool = False,
    ) -> Process:
        """Start a process."""
        process = Process(name, machine or name, parent, settings, is_outside)
        if self.climate.has(Fault.CLOCKS):
            process.wall_skew_s = (0.0, -3.0, 40.0, 4000.0)[self.tape.draw(4)]
        self.processes.append(process)
        self.note(f"{name} starts")
        self.spawn("main", main, process=process)
        return process

    def spawn(self, name: str, main: Callable[[], None], *, process: Process | None = None) -> Thread:
        """Start a thread, by default of the current process."""
        owner = process or self.process
        thread = Thread(name, owner, greenlet(parent=self._hub))
        thread.greenlet.run = lambda: self._run_thread(thread, main)
        self._threads.append(thread)
        self.wake(thread)
        return thread

    @property
    def process(self) -> Process:
        """The process of the current thread."""
        assert self.current is not None, "no thread runs"
        return self.current.process

    @property
    def is_in_transaction(self) -> bool:
        """Whether the current thread is in a transaction."""
        return self.current is not None and self.current.is_in_transaction

    def _run_thread(self, thread: Thread, main: Callable[[], None]) -> None:
        try:
            main()
        except GreenletExit:
            raise
        except (SQLAlchemyError, OSError) as error:
            self.note(f"the thread ends: {_line(error)}")  # as in the product, which has logged it
        except Violation as violation:
            self._failure = self._failure or violation
        except Exception as error:  # noqa: BLE001 - any other is a bug
            if self._is_over:
                return
            name = f"{thread.process.name}, {thread.name}"
            self._failure = self._failure or Violation(
                "no unexpected error", f"{name}: {type(error).__name__}: {error}"
            )
            self._failure.__cause__ = error

    def fail(self, violation: Violation) -> None:
        """End the life from within the product's code, which must not catch the violation."""
        self._failure = self._failure or violation
        self._leave()

    def has_threads(self, process: Process) -> bool:
        """Whether a thread of a process has not ended."""
        return any(thread.process is process and not thread.greenlet.dead for thread in self._threads)

    def kill(self, process: Process, why: str) -> None:
        """Kill a process, and with a supervisor its children: their pipes close."""
        if not process.is_dead:
            self._die(process, why)
        if self.current is not None and self.current.process.is_dead:
            self._leave()

    def _die(self, process: Process, why: str) -> None:
        process.is_dead = True
        self.note(f"{process.name} is killed: {why}")
        self.roll_back(process)
        for child in self.processes:
            if child.parent is process and not child.is_dead:
                self._die(child, "its supervisor is gone")
        for callback in process.on_death:
            callback()

    def freeze(self, process: Process, seconds: float) -> None:
        """Stop a process for a while, as SIGSTOP, a swapping machine or a migrated virtual machine do."""
        process.frozen_until_ms = max(process.frozen_until_ms, self.now_ms + 1000 * seconds)
        process.asleep_ms = process.frozen_until_ms
        process.troubled_ms = max(process.troubled_ms, process.asleep_ms)
        self.note(f"{process.name} sleeps for {seconds:.1f} s")
        if seconds > self.lease_s:
            self.sometimes("frozen past the lease")

    @property
    def is_over(self) -> bool:
        """Whether the life has ended: what unwinds now reaches nothing."""
        return self._is_over

    # The loop

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Run for a time, or until a condition holds.

        Raises:
            Violation: an invariant does not hold.
        """
        end_ms = self.now_ms + 1000 * seconds
        while self._appointments and not until():
            entry = at_ms, *_, ticket, thread = heapq.heappop(self._appointments)
            if ticket != thread.ticket or thread.process.is_dead:
                continue
            if at_ms > end_ms:
                heapq.heappush(self._appointments, entry)
                break
            thaw_ms = thread.process.frozen_until_ms
            if thaw_ms > max(self.now_ms, at_ms):
                heapq.heappush(self._appointments, (thaw_ms, *entry[1:]))
                continue
            self.now_ms = max(self.now_ms, at_ms)
            thread.ticket += 1
            self.steps += 1
            self.current = thread
            thread.greenlet.switch()
            self.current = None
            self.after_step()
            if self._failure is not None:
                raise self._failure
        if not until():
            self.now_ms = max(self.now_ms, end_ms)

    def end(self) -> None:
        """End all threads. Their ``finally`` blocks run now, and reach nothing."""
        self._is_over = True
        for process in self.processes:
            process.on_death.clear()
        for thread in self._threads:
            if not thread.greenlet.dead:
                self.current = thread
                thread.greenlet.throw()
        self.current = None

    def wake(self, thread: Thread, at_ms: float | None = None) -> None:
        """Continue a thread, by default at once."""
        self._made += 1
        entry = (self.now_ms if at_ms is None else at_ms, self.tape.draw(4), self._made, thread.ticket, thread)
        heapq.heappush(self._appointments, entry)

    def suspend(self, timeout_s: float | None) -> None:
        """Wait until the current thread is woken, or a time has passed."""
        assert self.current is not None, "no thread runs"
        assert not self.is_in_transaction, "waits inside a transaction"
        if timeout_s is not None:
            self.wake(self.current, self.now_ms + 1000 * max(0.0, timeout_s))
        self._leave()

    def wait_for_lock(self, timeout_s: float) -> None:
        """Wait until ``lock_is_free`` continues the current thread, or a time has passed."""
        assert self.current is not None, "no thread runs"
        self.wake(self.current, self.now_ms + 1000 * timeout_s)
        self._leave()

    def lock_is_free(self, thread: Thread) -> None:
        """Continue a thread that has waited for a lock."""
        self.wake(thread, self.now_ms + self._statement_ms[self.tape.draw(len(self._statement_ms))])

    def _leave(self) -> None:
        if self._is_over:
            raise GreenletExit
        self._hub.switch()
        if self._is_over:
            raise GreenletExit

    # Points

    def step(self, extra_ms: float = 0.0) -> None:
        """Let others run: what comes next happens a little later."""
        if self.current is None or (self.is_in_transaction and not self.has_locks):
            return
        latencies_ms = self._statement_ms if self.is_in_transaction else _LATENCIES_MS
        self.wake(self.current, self.now_ms + extra_ms + latencies_ms[self.tape.draw(len(latencies_ms))])
        self._leave()

    def fault(self, *candidates: Fault, weight: int = 1) -> Fault | None:
        """The fault that happens at this point, if any. Crashes, freezes and delays happen here; the caller does the
        others.

        Args:
            weight: how much more often it meets one than other points.
        """
        if self._is_over:
            raise GreenletExit
        if self._until_fault == 0:
            return None
        self._until_fault = max(0, self._until_fault - weight)
        if self._until_fault > 0:
            return None
        self._until_fault = self.tape.gap(self.climate.gap)
        possible = [fault for fault in candidates if self.climate.has(fault)]
        if not possible or self.current is None or self.process.is_outside:
            return None
        fault = possible[self.tape.draw(len(possible))]
        self.faults += 1
        match fault:
            case Fault.CRASH:
                self.sometimes("killed in a transaction" if self.is_in_transaction else "killed")
                self.kill(self.process, "at this point")
            case Fault.FREEZE:
                self.freeze(self.process, self.lease_s * _FREEZES[self.tape.draw(len(_FREEZES))])
                self.step()
            case Fault.COMA:
                self.freeze(self.process, _COMA_S)
                self.step()
            case Fault.SLOW:
                delay_ms = _SLOW_MS[self.tape.draw(len(_SLOW_MS))]
                self.process.asleep_ms = max(self.process.asleep_ms, self.now_ms + delay_ms)
                self.process.troubled_ms = max(self.process.troubled_ms, self.process.asleep_ms)
                self.step(delay_ms)
            case Fault.REFUSED:
                self.process.troubled_ms = max(self.process.troubled_ms, self.now_ms)
        return fault

    def calm(self) -> None:
        """From now on, no fault happens."""
        self.is_calm, self._until_fault = True, 0

    # What a process sees

    @property
    def database_ms(self) -> int:
        """The database's clock."""
        return int(self.now_ms + self.database_skew_ms)

    def new_number(self) -> int:
        """For ids, tokens and keys: unique in this life, and not set back with the database."""
        self._ids += 1
        return self._ids

    def note(self, text: str) -> None:
        """Write a line of the trace."""
        if self.trace is not None:
            who = f"{self.current.process.name}/{self.current.name}" if self.current is not None else "world"
            self.trace.append(f"{(self.now_ms - START_MS) / 1000:10.3f}  {who:<24} {text}")


def _line(error: Exception) -> str:
    """The first line of an error."""
    return str(error).partition("\n")[0]
