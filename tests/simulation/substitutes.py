"""What product modules find under some names while lives run: the one place where the simulator reaches into them."""

from __future__ import annotations

import io
import logging
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import IO, Any, Final
from unittest import mock

import structlog

from service.features.webhooks.delivery import deliveries, message_sender, sending
from service.jobs import leases, worker_registry
from service.maintenance import store_migration
from service.runtime import failpoints
from service.runtime.settings import Settings
from service.storage import artifacts, ids, object_store
from service.sweeps import trials
from tests.simulation.kernel.faults import Fault
from tests.simulation.kernel.runtime import CURRENT, Threading, ThreadPoolExecutor, Time
from tests.simulation.parts import receivers, sweeps, trainings
from tests.simulation.parts.buckets import BucketStore, SimulatedDatetime
from tests.simulation.parts.workers import Child
from workers import messages, pace
from workers.supervisor import child_pool, job_monitor, lease_keeper, machine, supervisor
from workers.training import run, training_run
from workers.training.epochs import writer

_WITH_TIME: Final = (
    *(child_pool, job_monitor, lease_keeper, machine, message_sender, messages, object_store, pace, run),
    *(store_migration, supervisor, training_run, writer),
)
_WITH_THREADS: Final = (child_pool, job_monitor, lease_keeper, machine, message_sender, supervisor, writer)
_WITH_SECRETS: Final = (artifacts, leases, object_store)
REACHED: Final = set[str]()
"""The failpoints at which a life has been so far."""


class _Numbers:
    """``secrets``, ``uuid4`` and ``ULID``: unique in a life, in order, and the same in its repetition."""

    @staticmethod
    def token_hex(count: int) -> str:
        return f"{CURRENT.world.new_number():0{2 * count}x}"

    @staticmethod
    def ulid() -> str:
        return f"{CURRENT.world.new_number():026d}"

    @staticmethod
    def uuid4() -> Any:
        return SimpleNamespace(hex=_Numbers.token_hex(16))


class _Random(random.Random):
    """``SystemRandom`` of the tape."""

    def shuffle(self, x: Any) -> None:
        for last in range(len(x) - 1, 0, -1):
            chosen = last - CURRENT.world.tape.draw(last + 1)
            x[last], x[chosen] = x[chosen], x[last]

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * CURRENT.world.tape.draw(5) / 4


def _reach(failpoint: str, detail: object = None) -> None:
    """A failpoint of the product is a point of the world."""
    world = CURRENT.world
    if world.current is None:
        return
    REACHED.add(failpoint)
    world.note(f"reaches {failpoint}{'' if detail is None else f' {detail}'}")
    if world.is_in_transaction:
        world.fault(Fault.CRASH)
    else:
        world.step()
        world.fault(Fault.CRASH, Fault.FREEZE)


@contextmanager
def installed() -> Iterator[None]:
    """Install them, and keep the product's log silent: a life warns thousands of times."""
    config = structlog.get_config()
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(logging.getLogger("sqlalchemy.pool.impl.QueuePool"), "disabled", True))

        def put(module: Any, **names: Any) -> None:
            for name, value in names.items():
                stack.enter_context(mock.patch.object(module, name, value))

        for module in _WITH_TIME:
            put(module, time=Time)
        for module in _WITH_THREADS:
            put(module, threading=Threading)
        for module in _WITH_SECRETS:
            put(module, secrets=_Numbers)
        for module in (object_store, store_migration):
            put(module, ThreadPoolExecutor=ThreadPoolExecutor)
        put(object_store, datetime=SimulatedDatetime)
        put(store_migration, _open_journal=open_journal)
        put(ids, ULID=_Numbers.ulid)
        put(deliveries, uuid4=_Numbers.uuid4, _RANDOM=_Random())
        put(worker_registry, new_id=lambda settings: f"{settings.worker_name}-1-{_Numbers.token_hex(4)}")
        put(failpoints, _hook=_reach)
        put(child_pool, ChildProcess=Child)
        for module in (machine, run):
            put(module, open_store=open_store)
        put(sending, send=receivers.send)
        put(message_sender, signing=SimpleNamespace(headers=lambda event_id, *_, **__: {"webhook-id": event_id}))
        put(job_monitor, ChildMeter=trainings.Meter)
        put(run, **trainings.substitutes())
        put(trials, resolve=sweeps.resolve)
        nothing = SimpleNamespace(beat=lambda: None)
        put(supervisor, prepare=lambda **_: None, Heartbeat=lambda *_: nothing, ArrayCache=_no_cache)
        structlog.configure(wrapper_class=quiet)
        try:
            yield
        finally:
            structlog.configure(**config)


def open_store(settings: Settings) -> BucketStore:
    """The store of the settings, as a process opens it."""
    return BucketStore(CURRENT.buckets[settings.store], lease_s=settings.lease_s)


@contextmanager
def open_journal(_: object) -> Iterator[IO[str]]:
    """The journal of a migration, in memory: the command may go on without it, on another machine."""
    journals = CURRENT.journals
    journal = io.StringIO(journals[-1].getvalue() if journals and CURRENT.world.tape.draw(3) else "")
    journals.append(journal)
    yield journal


def _no_cache(*_: object) -> Any:
    return SimpleNamespace(used_bytes=lambda: 0, limit_bytes=0)
