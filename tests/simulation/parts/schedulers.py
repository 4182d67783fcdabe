"""Schedulers: the duties of ``workers.scheduler``, each in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from service.errors import WrongStore
from service.features.webhooks.delivery.message_sender import MessageSender
from service.jobs import owner_queue, submissions
from service.jobs.rescue import LeaseExpiryPolicy, fail_without_store, rescue
from service.maintenance import retention, store_id
from service.maintenance.retention import Policy
from service.sweeps import actions as sweep_actions
from service.sweeps import decisions
from tests.simulation.kernel.runtime import CURRENT, Time
from tests.simulation.parts.databases import SimulatedDatabase
from tests.simulation.parts.services import Service
from tests.simulation.substitutes import open_store

_PACES: Final = (1.0, 2.0, 4.0)
"""By how much a scheduler is slower than the product, which does most of its duties each second."""


class Scheduler(Service):
    """A scheduler process."""

    def main(self) -> None:
        database = self.open_database()
        pace = _PACES[self.world.tape.draw(len(_PACES))]
        policy, messages = LeaseExpiryPolicy(self.settings.lease_s), MessageSender(database, self.settings)
        duties: dict[str, tuple[float, Callable[[], object]]] = {
            "rescue": (1.0, lambda: rescue(database, policy)),
            "sweeps": (2.0, lambda: (sweep_actions.requeue_stragglers(database), decisions.advance_all(database))),
            "preempt": (1.0, lambda: owner_queue.preempt(database)),
            "accrue": (6.0, lambda: owner_queue.accrue(database)),
            "store": (5.0, lambda: self._fail_without_store(database)),
            "messages": (3.0, messages.send_due),
            "retention": (40.0, lambda: self.clean(database)),
        }
        for name, (interval_s, duty) in duties.items():
            slow_s = interval_s if name == "rescue" else interval_s * pace
            self.world.spawn(name, partial(_repeat, duty, slow_s))

    def _fail_without_store(self, database: SimulatedDatabase) -> None:
        if fail_without_store(database, self.settings.store_timeout_s, then=decisions.after_result):
            self.world.sometimes("failed without a store")

    def clean(self, database: SimulatedDatabase) -> None:
        """As ``delete_expired_data``."""
        store = open_store(self.settings)
        submissions.purge_expired(database)
        try:
            store_id.verify(database, store)
        except WrongStore:
            return
        if retention.apply(database, store, Policy()).files:
            self.world.sometimes("orphans removed")


def _repeat(duty: Callable[[], object], interval_s: float) -> None:
    while True:
        try:
            duty()
        except (SQLAlchemyError, OSError) as error:
            CURRENT.world.note(f"could not do it: {error}")
        Time.sleep(interval_s)
