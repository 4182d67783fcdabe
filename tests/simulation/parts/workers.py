"""Workers: the product's ``Supervisor`` with all that belongs to it, and simulated children that run its ``train``."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from service.errors import LeaseLost
from service.jobs.leases import Claim
from service.runtime.failpoints import failpoint
from tests.simulation.kernel.runtime import CURRENT, Event, Lock
from tests.simulation.parts.services import Service
from tests.simulation.parts.trainings import Meter
from workers.messages import ChildEndpoint, Command, Done, Preparing, Report, Stop, Train
from workers.operations import Call, OutcomeUnknown, Reply
from workers.supervisor.child_process import Exited
from workers.supervisor.supervisor import Supervisor
from workers.training import run
from workers.training.child import REUSABLE_OUTCOMES

T = TypeVar("T")


class Child:
    """The supervisor's end of a training process; as ``ChildProcess``."""

    def __init__(self) -> None:
        world = CURRENT.world
        self.pid = world.new_number()
        self.has_trained = False
        self.provenance = {"simulated": True}
        self.claim: Claim | None = None
        """What it trains."""
        self.tokens: set[str] = set()
        """Of the leases of all jobs that it was to train."""
        self.fenced_after_ms = math.inf
        """Its worker killed it, because it could not renew in time, so long after its last trouble."""
        self._reports: deque[Report | Exited] = deque()
        self._arrived = Event()
        self._endpoint = Endpoint(self._receive)
        supervisor = world.process
        self.process = world.start(
            f"{supervisor.name}.{self.pid}",
            self._main,
            machine=supervisor.machine,
            parent=supervisor,
            settings=supervisor.settings,
        )
        self.process.on_death.append(lambda: self._receive(Exited(-9)))
        CURRENT.children.append(self)

    @property
    def alive(self) -> bool:
        return not self.process.is_dead

    def wait_until_ready(self, _: float) -> bool:
        return self.alive

    def send(self, command: Command) -> None:
        if isinstance(command, Train):
            self.claim = command.claim
            self.tokens.add(command.claim.token)
        self._endpoint.receive(command)

    def report(self, timeout_s: float) -> Report | Exited | None:
        if not self._reports:
            self._arrived.clear()
            self._arrived.wait(timeout_s)
        if not self._reports:
            return None
        return self._reports[0] if isinstance(self._reports[0], Exited) else self._reports.popleft()

    def kill(self) -> None:
        thread = CURRENT.world.current
        if self.alive and thread is not None and thread.name == "fence":
            CURRENT.world.sometimes("fenced")
            self.fenced_after_ms = CURRENT.world.now_ms - thread.process.troubled_ms
        CURRENT.world.kill(self.process, "its supervisor kills it")

    close = kill

    def _receive(self, report: Report | Exited) -> None:
        self._reports.append(report)
        self._arrived.set()

    def _main(self) -> None:
        """As ``workers.training.child.main``."""
        settings, is_reusable = self.process.settings, True
        assert settings is not None
        while is_reusable:
            claim = self._endpoint.next_command().claim
            failpoint("commanded")
            self._endpoint.send(Preparing())
            try:
                outcome = run.train(settings, claim, self._endpoint, meter=Meter(claim))  # type: ignore[arg-type]  # its numbers
            except LeaseLost as error:
                if isinstance(error, OutcomeUnknown):
                    CURRENT.world.sometimes("outcome unknown")
                outcome = "lease lost"
            is_reusable = outcome in REUSABLE_OUTCOMES
            self.claim = None
            self._endpoint.send(Done(outcome, is_reusable))
        CURRENT.world.kill(self.process, "it exits")


class Endpoint(ChildEndpoint):
    """The child's end."""

    def __init__(self, send: Callable[[Report], None]) -> None:
        self._send = send
        self._commands: deque[Train] = deque()
        self._answers: deque[Reply] = deque()
        self._arrived = Event()
        self._in_turn = Lock()  # the thread that stores epochs calls, too
        self._last_progress = 0.0
        self.stopping, self.request = False, None

    def receive(self, command: Command) -> None:
        match command:
            case Train():
                self.stopping, self.request = False, None
                self._commands.append(command)
            case Stop(request):
                self.stopping, self.request = True, request
            case Reply():
                self._answers.append(command)
        self._arrived.set()

    def next_command(self) -> Train:
        return self._next(self._commands)

    def send(self, report: Report) -> None:
        CURRENT.world.step()
        self._send(report)

    def call(self, claim: Claim, message: Call) -> Reply:
        with self._in_turn:
            self.send(message)
            return self._next(self._answers)

    def _next(self, queue: deque[T]) -> T:
        while not queue:
            self._arrived.clear()
            self._arrived.wait()
        return queue.popleft()


class Worker(Service):
    """A worker process, on a machine of its own."""

    supervisor: Supervisor | None = None

    def main(self) -> None:
        self.supervisor = None
        supervisor = Supervisor(self.settings, self.open_database())
        supervisor.start()
        self.supervisor = supervisor

    @property
    def is_busy(self) -> bool:
        """Whether it trains a job."""
        return self.is_up and any(child.claim and child.process.parent is self.process for child in CURRENT.children)

    def wake_up(self) -> None:
        """A hint of the broker: there is a job."""
        if self.is_up and self.supervisor is not None:
            self.world.spawn("hint", self.supervisor.run_waiting_jobs, process=self.process)

    def terminate(self) -> None:
        """SIGTERM: release the jobs, and exit."""
        supervisor, process = self.supervisor, self.process
        if supervisor is None or process is None or process.is_dead:
            return

        def close() -> None:
            supervisor.close()
            self.world.kill(process, "it exits")

        self.world.sometimes("released")
        self.world.spawn("SIGTERM", close, process=process)
