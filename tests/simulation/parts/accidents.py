"""What happens to the whole system: outages, lost machines, jumping clocks, a restored database, operators' orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from service.errors import ServiceError
from service.jobs import worker_registry
from service.states import Drain
from tests.simulation.kernel.faults import Fault
from tests.simulation.kernel.runtime import CURRENT, Time
from tests.simulation.kernel.world import World
from tests.simulation.parts.databases import Memory, SimulatedDatabase
from tests.simulation.parts.moves import Move
from tests.simulation.parts.postgresql import Server
from tests.simulation.parts.services import Service
from tests.simulation.parts.users import Ledger
from tests.simulation.parts.workers import Worker

_PAUSES_S: Final = (1.0, 3.0, 6.0, 2.0)
_OUTAGES_S: Final = (1.0, 5.0, 8.0, 20.0)
"""Around the duration of a lease."""
_LEASES_ASLEEP: Final = 1.5
_SLEEPS_S: Final = (5.0, 30.0, 3600.0, 8 * 3600.0)
_JUMPS_MS: Final = (-4_000.0, -3600_000.0, 5_000.0, 3600_000.0)


class Accidents:
    """Brings about what the climate permits, one after the other."""

    def __init__(
        self,
        world: World,
        memory: Memory | Server,
        database: SimulatedDatabase,
        workers: list[Worker],
        services: list[Service],
        ledger: Ledger,
        on_restore: Callable[[], None],
    ) -> None:
        self._world, self._memory, self._database = world, memory, database
        self._workers, self._services, self._ledger, self._on_restore = workers, services, ledger, on_restore
        self._saved: bytes | None = None
        self._saved_tokens: set[str] = set()
        """Tokens of the leases that the saved database has."""
        self._move_of_life: Move | None = None
        possible: dict[Fault, Callable[[], None]] = {
            Fault.OUTAGE: self._outage,
            Fault.STORE: self._store_outage,
            Fault.MACHINE: self._machine,
            Fault.CLOCKS: self._clock,
            Fault.SLEEP: self._sleep,
            Fault.RESTORE: self._restore,
            Fault.ORDERS: self._order,
            Fault.MOVE: self._move,
        }
        if memory.has_locks:
            possible.pop(Fault.RESTORE)
        self._possible = [run for fault, run in possible.items() if world.climate.has(fault)]

    def happen(self) -> None:
        """The main function of their thread."""
        tape = self._world.tape
        while self._possible and not self._world.is_calm:
            Time.sleep(_PAUSES_S[tape.draw(len(_PAUSES_S))])
            if isinstance(self._memory, Memory) and (self._saved is None or tape.draw(2)):
                self._saved, self._saved_tokens = self._memory.save(), self._memory.lease_tokens()
            Time.sleep(_PAUSES_S[tape.draw(len(_PAUSES_S))])
            if not self._world.is_calm:
                self._world.faults += 1
                self._possible[tape.draw(len(self._possible))]()

    def end(self) -> None:
        """All is well again."""
        self._database.reach.is_down = self._database.reach.refuses_writes = False
        self._database.reach.cut_off.clear()
        for bucket in CURRENT.buckets.values():
            bucket.is_down = False

    def _outage(self) -> None:
        reach, duration_s = self._database.reach, self._draw(_OUTAGES_S)
        if self._world.tape.draw(2):
            self._world.note(f"the database accepts no writes for {duration_s} s")
            self._world.sometimes("writes refused")
            reach.refuses_writes = True
        else:
            self._world.note(f"the database is down for {duration_s} s")
            self._world.sometimes("database outage")
            reach.is_down = True
            self._memory.fail()
        Time.sleep(duration_s)
        reach.is_down, reach.refuses_writes, reach.back_ms = False, False, self._world.now_ms
        self._world.note("the database is back")

    def _store_outage(self) -> None:
        duration_s = self._draw(_OUTAGES_S) * 3
        self._world.note(f"the store is down for {duration_s} s")
        self._world.sometimes("store outage")
        for bucket in CURRENT.buckets.values():
            bucket.is_down = True
        Time.sleep(duration_s)
        for bucket in CURRENT.buckets.values():
            bucket.is_down = False

    def _machine(self) -> None:
        busy = [worker for worker in self._workers if worker.is_busy] or self._workers
        worker = busy[self._world.tape.draw(len(busy))]
        if worker.process is None or worker.process.is_dead:
            return
        match self._world.tape.draw(3):
            case 0:
                self._world.sometimes("machine lost")
                self._world.kill(worker.process, "its machine is lost")
            case 1:
                duration_s = self._draw(_OUTAGES_S)
                self._world.note(f"{worker.name} does not reach the database for {duration_s} s")
                self._world.sometimes("one machine cut off")
                self._database.reach.cut_off.add(worker.name)
                worker.process.troubled_ms = self._world.now_ms + 1000 * duration_s
                Time.sleep(duration_s)
                self._database.reach.cut_off.discard(worker.name)
            case _:
                self._run_out_of_memory(worker)

    def _run_out_of_memory(self, worker: Worker) -> None:
        """A training process is killed, and its worker is swapped out past the lease: it reports the loss when another
        worker may have the job."""
        child = next(
            (child for child in CURRENT.children if child.claim and child.process.parent is worker.process), None
        )
        if child is None or worker.process is None:
            return
        self._world.sometimes("out of memory")
        self._world.kill(child.process, "its machine has no memory left")
        self._world.freeze(worker.process, _LEASES_ASLEEP * self._world.lease_s)

    def _clock(self) -> None:
        jump_ms = self._draw(_JUMPS_MS)
        self._world.note(f"the database's clock jumps by {jump_ms / 1000} s")
        self._world.sometimes("clock set forward" if jump_ms > 0 else "clock set back")
        self._world.database_skew_ms += jump_ms

    def _sleep(self) -> None:
        duration_s = self._draw(_SLEEPS_S)
        self._world.note(f"everything sleeps for {duration_s} s")
        self._world.sometimes("everything slept")
        for process in self._world.processes:
            process.frozen_until_ms = self._world.now_ms + 1000 * duration_s

    def _restore(self) -> None:
        if self._saved is None or self._move_of_life is not None:  # it would name the former store
            return
        assert isinstance(self._memory, Memory)
        tape, worker = self._world.tape, self._worker_to_forget()
        if tape.draw(2) and worker.process is not None and not worker.process.is_dead:
            self._world.freeze(worker.process, _LEASES_ASLEEP * self._world.lease_s)  # it does not notice for long
        self._world.note("the database goes back to an earlier state")
        self._world.sometimes("database restored")
        self._memory.restore(self._saved)
        self._on_restore()
        for other in self._workers:
            if tape.draw(4):
                other.wake_up()

    def _worker_to_forget(self) -> Worker:
        """A worker whose lease is not in the saved database, which may issue the same lease number again."""
        new = [child for child in CURRENT.children if child.claim and child.claim.token not in self._saved_tokens]
        parents = {child.process.parent for child in new if child.alive}
        workers = [worker for worker in self._workers if worker.process in parents] or self._workers
        return workers[self._world.tape.draw(len(workers))]

    def _order(self) -> None:
        match self._world.tape.draw(3):
            case 0:
                self._workers[self._world.tape.draw(len(self._workers))].terminate()
            case 1:
                service = self._services[self._world.tape.draw(len(self._services))]
                if service.process is not None:
                    self._world.kill(service.process, "it is restarted")
            case _:
                self._drain(self._workers[self._world.tape.draw(len(self._workers))])

    def _drain(self, worker: Worker) -> None:
        if worker.supervisor is None:
            return
        how, worker_id = list(Drain)[self._world.tape.draw(2)], worker.supervisor._id
        try:
            worker_registry.drain(self._database, worker_id, how)
            self._ledger.drained[worker_id] = self._world.now_ms
            self._world.note(f"was told that {worker_id} is drained")
            self._world.sometimes("drained")
            if self._world.tape.draw(2):  # a hint was on its way, and no heartbeat has told the worker
                worker.wake_up()
            Time.sleep(self._draw(_OUTAGES_S))
        except (ServiceError, SQLAlchemyError):
            pass
        self._ledger.drained.pop(worker_id, None)
        for _ in range(20):
            try:
                worker_registry.undrain(self._database, worker_id)
                return
            except SQLAlchemyError:
                Time.sleep(1.0)
            except ServiceError:
                return

    def _move(self) -> None:
        if self._move_of_life is not None:
            return
        source = self._services[0].settings
        target = replace(source, store="s3://two")
        self._world.note("the operator moves the service to another store")
        self._move_of_life = Move(self._world, self._database, source, target, lambda: self._use_store(target.store))
        self._move_of_life.run()

    def _use_store(self, store: str) -> None:
        """The operator starts every process with the new store."""
        for service in self._services:
            service.settings = replace(service.settings, store=store)
            if service.process is not None:
                self._world.kill(service.process, "it is to use the new store")

    @property
    def is_moving(self) -> bool:
        """Whether the service has not moved to its new store yet."""
        return self._move_of_life is not None and not self._move_of_life.has_ended

    def _draw(self, values: tuple[float, ...]) -> float:
        return values[self._world.tape.draw(len(values))]
