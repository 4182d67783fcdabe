"""One life: the system starts, users and accidents happen, faults stop, and everything must end well."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from service.features.webhooks.delivery.message_sender import MessageSender
from service.maintenance import store_id
from service.runtime.settings import Settings
from tests.simulation.kernel.faults import Climate
from tests.simulation.kernel.runtime import CURRENT, Event
from tests.simulation.kernel.sometimes import BRANCHES, ON_POSTGRESQL, ON_SQLITE, Sometimes
from tests.simulation.kernel.tape import Tape
from tests.simulation.kernel.violation import Violation
from tests.simulation.kernel.world import START_MS, Process, World
from tests.simulation.parts import receivers
from tests.simulation.parts.accidents import Accidents
from tests.simulation.parts.buckets import Bucket
from tests.simulation.parts.databases import Memory
from tests.simulation.parts.postgresql import Server
from tests.simulation.parts.receivers import Receivers
from tests.simulation.parts.schedulers import Scheduler
from tests.simulation.parts.services import Service
from tests.simulation.parts.sweeps import SWEEPS, undisturbed_digest
from tests.simulation.parts.users import Ledger, User, Web
from tests.simulation.parts.workers import Worker
from tests.simulation.rules.invariants import Invariants
from tests.simulation.substitutes import open_store

LEASE_S: Final = 6.0
_BUSY_S: Final = 60.0
_RECOVERY_S: Final = 130.0
"""For processes to be started again, and for a service that moves to arrive."""
_CALM_S: Final = 600.0
_DAY_S: Final = 24 * 3600.0
_HABITS: Final = ("cancel", "pause", "resume", "retry", "delete", "sweep", "submit")

S = TypeVar("S", bound=Service)


@dataclass
class Life:
    """What became of a life."""

    seed: int
    choices: Sequence[int] = ()
    steps: int = 0
    faults: int = 0
    hours: float = 0.0
    violation: Violation | None = None
    trace: Sequence[str] = ()


@dataclass
class Simulator:
    """Runs lives, one after the other."""

    sometimes: Sometimes = field(default_factory=Sometimes)
    memory: Memory | Server = field(default_factory=Memory)

    def __post_init__(self) -> None:
        """Find out what becomes of undisturbed sweeps."""
        world = World(Tape(recorded=()), Climate(frozenset(), math.inf), self.sometimes, lease_s=LEASE_S)
        CURRENT.set(world)
        self.sweep_digests = [undisturbed_digest(self.memory.begin(), number) for number in range(len(SWEEPS))]
        CURRENT.set(None)

    @property
    def branches(self) -> dict[str, str]:
        """The rare branches that lives on this database reach, and what they mean."""
        if self.memory.has_locks:
            return {branch: meaning for branch, meaning in BRANCHES.items() if branch not in ON_SQLITE} | ON_POSTGRESQL
        return BRANCHES

    def never_reached(self) -> list[str]:
        """The branches that no life has reached."""
        return [branch for branch in self.branches if not self.sometimes.counts[branch]]

    def run(self, seed: int, *, recorded: Sequence[int] | None = None, is_traced: bool = False) -> Life:
        """Run the life of a seed, or repeat a recording.

        Args:
            is_traced: whether to write down what happens.
        """
        tape = Tape(seed, recorded)
        world = World(
            tape,
            Climate.draw(tape),
            self.sometimes,
            lease_s=LEASE_S,
            has_locks=self.memory.has_locks,
            is_traced=is_traced,
        )
        CURRENT.set(world)
        life = Life(seed)
        try:
            _System(world, self.memory, self.sweep_digests).live()
        except Violation as violation:
            life.violation = violation
        finally:
            world.end()
            CURRENT.set(None)
        life.choices, life.steps, life.faults = tape.choices, world.steps, world.faults
        life.hours = (world.now_ms - START_MS) / 3_600_000
        life.trace = world.trace or ()
        return life


class _System:
    """All processes of a life."""

    def __init__(self, world: World, memory: Memory | Server, sweep_digests: Sequence[str]) -> None:
        self.world, self.memory = world, memory
        self.database = memory.begin()
        world.roll_back = memory.roll_back
        CURRENT.buckets = {"s3://one": Bucket("one"), "s3://two": Bucket("two")}
        CURRENT.receivers = Receivers()
        receivers.subscribe(self.database)
        self.ledger = Ledger()
        self.init = world.start("init", lambda: None, is_outside=True)
        tape, new = world.tape, self._service
        self._slots = 1 + tape.draw(2)
        self.webs = [new(Web, f"web{number}") for number in range(1, 3)]
        self.workers = [new(Worker, f"worker{number}") for number in range(1, 3 + (tape.draw(4) == 3))]
        self.schedulers = [new(Scheduler, f"scheduler{number}") for number in range(1, 2 + tape.draw(2))]
        self.services: list[Service] = [*self.webs, *self.workers, *self.schedulers]
        self.invariants = invariants = Invariants(
            world, memory.connection, self.database.reach, self.ledger, sweep_digests
        )
        self.accidents = Accidents(
            world,
            memory,
            self.database,
            self.workers,
            self.services,
            self.ledger,
            on_restore=invariants.database_went_back,
        )
        self._done = Event()
        """Users have done what they wanted."""
        store_id.verify(self.database, open_store(_settings("")))
        world.after_step = self.invariants.check

    def live(self) -> None:
        """Run the whole life."""
        world, tape = self.world, self.world.tape
        for service in self.services:
            service.start()
        habits = ["submit", *(habit for habit in _HABITS if tape.draw(2))]
        wishes = 3 + tape.draw(4)
        match tape.draw(10):
            case 7 | 8:
                habits, wishes = ["sweep"], 2 * wishes
            case 9:  # a queue
                habits, wishes = ["submit"], 3 * wishes
        world.start("users", lambda: self._act(habits, wishes), is_outside=True)
        world.start("accidents", self.accidents.happen, is_outside=True)
        world.run(_BUSY_S, until=lambda: self.is_quiescent)
        self._become_calm()
        world.run(_CALM_S, until=lambda: self.is_quiescent)
        self.invariants.check_end(is_quiescent=self.is_quiescent)
        self._clean_up()

    def _act(self, habits: Sequence[str], count: int) -> None:
        """The main function of users."""
        User(self.ledger, self.webs, self.workers, habits).act(count)
        self._done.set()

    @property
    def is_quiescent(self) -> bool:
        """Whether users have done what they wanted, and every job and sweep has ended."""
        return self._done.is_set() and self.invariants.is_quiescent

    def _become_calm(self) -> None:
        """Faults stop, sleepers wake up, and users want every job to end."""
        world = self.world
        world.calm()
        self.accidents.end()
        asleep_ms = max(process.frozen_until_ms for process in world.processes) - world.now_ms
        world.run(max(0.0, asleep_ms / 1000))
        world.run(_RECOVERY_S, until=lambda: not self.accidents.is_moving)
        world.run(_RECOVERY_S, until=lambda: all(service.is_up for service in self.services))
        user = User(self.ledger, self.webs, self.workers, ["submit"])
        world.start("resume", user.resume_repeatedly, is_outside=True)

    def _clean_up(self) -> None:
        """A day later, no file is left that no row names."""
        world = self.world
        for service in self.services:
            if service.process is not None:
                service.process.on_death.clear()
                world.kill(service.process, "the life is over")
        settings = self.schedulers[0].settings
        sender = MessageSender(self.database, settings)
        while (due_ms := self.invariants.next_message_ms) is not None:
            world.now_ms = max(world.now_ms, due_ms - world.database_skew_ms)
            self._finish(world.start("sender", lambda: self._send(sender), settings=settings))
        world.now_ms += 2 * _DAY_S * 1000
        cleaner = self.schedulers[0].clean
        self._finish(world.start("cleaner", lambda: cleaner(self.database), settings=settings))
        self.invariants.check_files_at_end(CURRENT.buckets[settings.store])

    @staticmethod
    def _send(sender: MessageSender) -> None:
        sender.send_due()

    def _finish(self, process: Process) -> None:
        """Run until all threads of a process have ended."""
        self.world.run(_CALM_S, until=lambda: not self.world.has_threads(process))

    def _service(self, kind: type[S], name: str) -> S:
        return kind(name, self.world, self.init, _settings(name, self._slots), self.database)


@functools.cache
def _settings(name: str, slots: int = 1) -> Settings:
    environ = {"TAPELINE_HOME": tempfile.gettempdir() + "/tapeline-simulation", "TAPELINE_WORKER_NAME": name}
    environ |= {"TAPELINE_STORE": "s3://one", "TAPELINE_LEASE_S": str(LEASE_S), "TAPELINE_WORKERS": str(slots)}
    return Settings.from_env(environ | {"TAPELINE_STORE_TIMEOUT_S": "30"}, cores=1)
