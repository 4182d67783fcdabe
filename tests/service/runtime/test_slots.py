from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from service.errors import Busy
from service.runtime.slots import SlotPool
from tests.waiting import wait_until


class Occupant:
    """A thread that occupies a slot until it is told to leave."""

    def __init__(self, pool: SlotPool, owner: str | None, served: list[str | None]) -> None:
        self.leave, self._queued_before = threading.Event(), waiting(pool)
        self._is_served, self._pool, self.owner, self._served = threading.Event(), pool, owner, served
        self.thread = threading.Thread(target=self._occupy, daemon=True)
        self.thread.start()
        wait_until(lambda: self.is_served or waiting(pool) > self._queued_before, "a slot, or a place in the queue")

    def _occupy(self) -> None:
        with self._pool.slot(self.owner):
            self._served.append(self.owner)
            self._is_served.set()
            assert self.leave.wait(60)

    @property
    def is_served(self) -> bool:
        return self._is_served.is_set()

    def end(self) -> None:
        self.leave.set()
        self.thread.join()


def waiting(pool: SlotPool) -> int:
    return sum(map(len, pool._queues.values()))


Occupy = Callable[..., Occupant]


@pytest.fixture
def served() -> list[str | None]:
    """The owners in the order in which they got slots."""
    return []


@pytest.fixture
def occupy(served: list[str | None]) -> Iterator[Occupy]:
    occupants: list[Occupant] = []

    def start(pool: SlotPool, owner: str | None) -> Occupant:
        occupants.append(Occupant(pool, owner, served))
        return occupants[-1]

    yield start
    for occupant in occupants:
        occupant.leave.set()
    for occupant in occupants:
        occupant.thread.join()


def refusal(pool: SlotPool, owner: str | None) -> Busy:
    with pytest.raises(Busy) as caught, pool.slot(owner):
        pass
    return caught.value


def test_an_owner_gets_half_of_the_slots_and_another_one_the_rest(occupy: Occupy) -> None:
    pool = SlotPool("imports", 4)
    anns = [occupy(pool, "ann") for _ in range(4)]
    assert [occupant.is_served for occupant in anns] == [True, True, False, False]
    bobs = [occupy(pool, "bob") for _ in range(3)]
    assert [occupant.is_served for occupant in bobs] == [True, True, False]
    anns[0].end()
    wait_until(lambda: anns[2].is_served, "the slot that ann has left")
    assert not bobs[2].is_served


@pytest.mark.parametrize(("size", "share"), [(1, 1), (2, 1), (3, 1), (5, 2), (8, 4)])
def test_half_is_rounded_down_and_at_least_one(occupy: Occupy, size: int, share: int) -> None:
    pool = SlotPool("imports", size)
    assert sum(occupy(pool, "ann").is_served for _ in range(size + 1)) == share


def test_without_keys_everybody_together_gets_all_slots_and_places(occupy: Occupy) -> None:
    pool = SlotPool("imports", 4, waiting=4)
    assert [occupy(pool, None).is_served for _ in range(8)] == [True] * 4 + [False] * 4
    refusal(pool, None)


def test_a_maximum_per_owner_also_applies_without_keys(occupy: Occupy) -> None:
    pool = SlotPool("drawings", 4, per_owner=1)
    assert [occupy(pool, owner).is_served for owner in (None, None, "ann", "ann", "bob")] == [1, 0, 1, 0, 1]


def test_an_owner_fills_half_of_the_queue_and_the_next_request_is_refused(occupy: Occupy) -> None:
    pool = SlotPool("imports", 2, waiting=4)
    for _ in range(3):
        occupy(pool, "ann")
    error = refusal(pool, "ann")
    assert (error.code, error.members) == ("busy", {"retry_after_s": 5})
    assert str(error) == (
        "imports: 1 in progress (1 of them yours), 2 waiting (2 of them yours); send fewer at a time, or try again in "
        "5 seconds"
    )
    assert occupy(pool, "bob").is_served
    assert not occupy(pool, "bob").is_served
    assert waiting(pool) == 3
    assert not occupy(pool, "cid").is_served
    assert "4 waiting (0 of them yours)" in str(refusal(pool, "dan"))
    assert waiting(pool) == 4


def test_without_a_queue_a_request_is_served_at_once_or_refused(occupy: Occupy) -> None:
    pool = SlotPool("uploads", 2, waiting=0, code="too_many_uploads")
    ann = occupy(pool, "ann")
    error = refusal(pool, "ann")
    assert error.code == "too_many_uploads"
    assert "uploads: 1 in progress (1 of them yours); send fewer" in str(error)
    bob = occupy(pool, "bob")
    assert "uploads: 2 in progress (0 of them yours)" in str(refusal(pool, "cid"))
    bob.end()
    assert occupy(pool, "cid").is_served
    ann.end()
    assert occupy(pool, "ann").is_served


def test_owners_who_wait_are_served_in_turn(occupy: Occupy, served: list[str | None]) -> None:
    pool = SlotPool("large bodies", 1)
    occupants = [occupy(pool, owner) for owner in ("ann", "ann", "ann", "ann", "bob", "cid", "bob")]
    for count in range(1, 8):
        wait_until(lambda count=count: len(served) == count, "the next one")
        next(occupant for occupant in occupants if occupant.is_served and not occupant.leave.is_set()).end()
    assert served == ["ann", "bob", "cid", "ann", "bob", "ann", "ann"]


def test_a_free_slot_goes_to_the_owner_who_has_the_fewest(occupy: Occupy, served: list[str | None]) -> None:
    pool = SlotPool("imports", 6)
    anns = [occupy(pool, "ann") for _ in range(3)]
    for owner in ("bob", "bob", "cid"):
        assert occupy(pool, owner).is_served
    for owner in ("bob", "cid"):
        assert not occupy(pool, owner).is_served
    for count, owner in ((7, "cid"), (8, "bob")):
        anns[count - 7].end()
        wait_until(lambda count=count: len(served) == count, "the next one")
        assert served[-1] == owner


def test_a_slot_is_given_back_after_an_error() -> None:
    pool = SlotPool("exports", 1, waiting=0)
    for _ in range(3):
        with pytest.raises(OSError, match="disk"), pool.slot("ann"):
            raise OSError("disk")
    with ExitStack() as stack:
        stack.enter_context(pool.slot("ann"))
        refusal(pool, "bob")
    assert not pool._taken
    assert not pool._queues


@pytest.mark.parametrize("seed", range(3))
def test_requests_at_random_moments_never_exceed_a_limit_and_leave_no_slot_taken(seed: int) -> None:
    pool, size = SlotPool("tests", 4, waiting=8), 4
    lock, held, served = threading.Lock(), Counter[str](), Counter[str]()

    def work(number: int) -> None:
        rng, owner = random.Random(f"{seed}:{number}"), "abc"[number % 3]
        for _ in range(40):
            with suppress(Busy), pool.slot(owner):
                with lock:
                    held[owner] += 1
                    served[owner] += 1
                    assert held.total() <= size
                    assert held[owner] <= size // 2
                threading.Event().wait(rng.uniform(0, 0.001))
                with lock:
                    held[owner] -= 1

    with ThreadPoolExecutor(24) as executor:
        for future in [executor.submit(work, number) for number in range(24)]:
            future.result()
    assert set(served) == set("abc")
    assert pool._taken.total() == 0
    assert not pool._queues
