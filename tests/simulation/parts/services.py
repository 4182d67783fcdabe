"""Processes that are started again after their death, as by systemd."""

from __future__ import annotations

from typing import Final

from service.runtime.settings import Settings
from tests.simulation.kernel.runtime import Time
from tests.simulation.kernel.world import Process, World
from tests.simulation.parts.databases import SimulatedDatabase

_RESTARTS_S: Final = (0.5, 2.0, 5.0, 12.0)


class Service:
    """A process of the product, and its successors.

    Args:
        init: the process that starts them; it never dies.
    """

    def __init__(self, name: str, world: World, init: Process, settings: Settings, database: SimulatedDatabase) -> None:
        self.name, self.world, self.settings = name, world, settings
        self._init, self._database = init, database
        self.process: Process | None = None

    def start(self) -> None:
        """Start a process, unless there is one."""
        if not self.is_up:
            self.process = self.world.start(self.name, self.main, settings=self.settings)
            self.process.on_death.append(self._start_again)

    @property
    def is_up(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and not self.process.is_dead

    def main(self) -> None:
        """What the process does."""
        raise NotImplementedError

    def open_database(self) -> SimulatedDatabase:
        """The database as a new process sees it."""
        return self._database.of_process()

    def _start_again(self) -> None:
        delay_s = _RESTARTS_S[self.world.tape.draw(len(_RESTARTS_S))]

        def wait_and_start() -> None:
            Time.sleep(delay_s)
            self.start()

        self.world.spawn(f"restart {self.name}", wait_and_start, process=self._init)
