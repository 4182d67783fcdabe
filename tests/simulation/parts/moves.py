"""The command that moves the service to another store, run again until it has succeeded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from service.datasets.uploads import UploadFiles
from service.errors import ServiceError
from service.maintenance import store_migration
from service.runtime.settings import Settings
from tests.simulation.kernel.runtime import Time
from tests.simulation.kernel.world import World
from tests.simulation.parts.databases import SimulatedDatabase
from tests.simulation.substitutes import open_store

_ATTEMPTS: Final = 30
_BETWEEN_S: Final = 3.0


class Move:
    """A migration from one store to another.

    Args:
        then: called once it has succeeded: the operator starts all processes with the new store.
    """

    def __init__(
        self, world: World, database: SimulatedDatabase, source: Settings, target: Settings, then: Callable[[], None]
    ) -> None:
        self._world, self._database = world, database
        self._source, self._target, self._then = source, target, then
        self._has_switched = self.has_ended = False

    def run(self) -> None:
        """The main function of the operator's thread."""
        for _ in range(_ATTEMPTS):
            command = self._world.start("move", self._attempt, settings=self._source)
            while self._world.has_threads(command) and not command.is_dead:
                Time.sleep(_BETWEEN_S)
            if self._has_switched:
                self._world.note("the service has moved")
                self._world.sometimes("moved")
                self._then()
                self.has_ended = True
                return
            Time.sleep(_BETWEEN_S)

    def _attempt(self) -> None:
        source, target = (UploadFiles(open_store(settings), Path()) for settings in (self._source, self._target))
        try:
            report = store_migration.migrate(
                self._database.of_process(),
                source,
                target,
                home=Path(),
                progress=lambda *_: None,
                skip_damaged=True,
            )
        except (ServiceError, OSError, SQLAlchemyError) as error:
            self._world.note(f"the migration stops: {error}")
            return
        self._has_switched = report.switched
