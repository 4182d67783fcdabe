"""Lives on PostgreSQL: its locks, its clock, and their repetition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from service.storage.database import locking, now_ms
from service.storage.owner_tables import OwnerQueue
from tests.conftest import create_database
from tests.simulation import runs, substitutes
from tests.simulation.kernel.faults import Climate
from tests.simulation.kernel.runtime import CURRENT
from tests.simulation.kernel.sometimes import Sometimes
from tests.simulation.kernel.tape import Tape
from tests.simulation.kernel.violation import Violation
from tests.simulation.kernel.world import START_MS, World
from tests.simulation.lives import Simulator
from tests.simulation.parts.postgresql import PostgresDatabase, Server

_LIVES: Final = 3
_FIRST_OF_MANY: Final = 20_000
_MANY: Final = 150
_OWNERS: Final = ("ann", "bob")

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def server(postgres_server: str) -> Iterator[Server]:
    with Server(create_database(postgres_server)) as server:
        yield server


@pytest.fixture
def world(server: Server) -> Iterator[World]:
    """A world without faults, whose database has two rows to lock."""
    world = World(Tape(recorded=()), Climate(frozenset(), math.inf), Sometimes(), lease_s=6.0, has_locks=True)
    CURRENT.set(world)
    world.roll_back = server.roll_back
    try:
        yield world
    finally:
        world.end()
        CURRENT.set(None)


@pytest.fixture
def database(server: Server, world: World) -> PostgresDatabase:
    database = server.begin()
    with database.write() as session:
        session.add_all(OwnerQueue(owner=owner) for owner in _OWNERS)
    return database


def locks(database: PostgresDatabase, owners: Sequence[str], then: Callable[[], object]) -> Callable[[], None]:
    """A thread that locks rows of owners, one after the other."""

    def main() -> None:
        with database.write() as session:
            for owner in owners:
                session.scalar(locking(select(OwnerQueue).where(OwnerQueue.owner == owner)))
            then()

    return main


def test_a_killed_process_releases_its_locks_at_once(world: World, database: PostgresDatabase) -> None:
    got: list[float] = []
    holder = world.start("holder", locks(database, ["ann"], lambda: world.freeze(world.process, 9.0) or world.step()))
    world.run(0.1)
    world.start("waiter", locks(database, ["ann"], lambda: got.append(world.now_ms - START_MS)))
    world.run(5.0)
    assert got == []
    world.kill(holder, "the test kills it")
    world.run(0.1)
    assert len(got) == 1
    assert 5000 <= got[0] < 5200


def test_a_lock_times_out_by_the_clock_of_the_life(world: World, database: PostgresDatabase) -> None:
    failed: list[tuple[str, float]] = []

    def wait() -> None:
        try:
            locks(database, ["ann"], lambda: failed.append(("got the lock", 0.0)))()
        except OperationalError as error:
            failed.append((type(error.orig).__name__, (world.now_ms - START_MS) / 1000))

    world.start("holder", locks(database, ["ann"], lambda: world.freeze(world.process, 30.0) or world.step()))
    world.run(0.1)
    world.start("waiter", wait)
    world.run(40.0)
    assert [(name, round(seconds)) for name, seconds in failed] == [("LockNotAvailable", 15)]


def test_a_deadlock_is_a_violation(world: World, database: PostgresDatabase) -> None:
    for number, owners in enumerate((_OWNERS, _OWNERS[::-1])):
        world.start(f"process{number}", locks(database, owners, lambda: None))
    with pytest.raises(Violation, match="no deadlock: process0/main and process1/main"):
        world.run(10.0)


def test_statements_of_two_transactions_interleave(world: World, database: PostgresDatabase) -> None:
    """A locked row is skipped; a row is read as it was before a change that is not committed yet."""
    seen: list[Sequence[str]] = []

    def change() -> None:
        with database.write() as session:
            session.execute(update(OwnerQueue).where(OwnerQueue.owner == "ann").values(weight=7.0))
            world.freeze(world.process, 3.0)
            world.step()

    def look() -> None:
        with database.write() as session:
            seen.append(session.scalars(locking(select(OwnerQueue.owner), skip_locked=True)).all())
            seen.append(session.scalars(select(OwnerQueue.owner).where(OwnerQueue.weight == 7.0)).all())

    world.start("writer", change)
    world.run(1.0)
    world.start("reader", look)
    world.run(1.0)
    assert seen == [["bob"], []]


def test_the_clock_of_the_server_is_that_of_the_life(world: World, database: PostgresDatabase) -> None:
    world.now_ms += 123_456_789
    world.database_skew_ms = -1000
    with database.write() as session:
        assert session.scalar(select(now_ms())) == START_MS + 123_455_789
        session.execute(text("SET LOCAL search_path = pg_catalog"))
        assert session.scalar(select(now_ms())) != START_MS + 123_455_789


@pytest.fixture(scope="module")
def simulator(server: Server) -> Iterator[Simulator]:
    with substitutes.installed():
        yield Simulator(memory=server)


def test_no_life_on_postgresql_violates_an_invariant(simulator: Simulator) -> None:
    failed = runs.live(simulator, range(_LIVES)).failed
    assert failed is None, f"seed {failed.seed}: {failed.violation}"
    assert simulator.sometimes.counts["waited for a lock"]


def test_a_seed_repeats_its_life_after_other_lives(simulator: Simulator) -> None:
    first = simulator.run(4, is_traced=True)
    simulator.run(5)
    assert simulator.run(4, is_traced=True).trace == first.trace
    assert any("waits for a lock" in line for line in first.trace)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_many_lives_on_postgresql_violate_nothing_and_reach_every_rare_branch(simulator: Simulator) -> None:
    simulator.sometimes.counts.clear()
    failed = runs.live(simulator, range(_FIRST_OF_MANY, _FIRST_OF_MANY + _MANY)).failed
    assert failed is None, f"seed {failed.seed}: {failed.violation}"
    assert simulator.never_reached() == []
