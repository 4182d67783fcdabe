"""Pools of slots for expensive work, which owners share fairly: with a limit for each, and a bounded queue.

Strangers' files, networks and plots occupy cores, memory and threads of a web process; one owner gets at most half of
the slots and of the queue. Pools are per process: several web processes have several times the slots.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from service.errors import Busy

RETRY_AFTER_S: Final = 5
"""When to try again after ``Busy``."""


class SlotPool:
    """The slots for one kind of work in this process.

    One owner occupies at most half of the slots, and of the places to wait for one, so that others find some.
    ``None`` stands for everybody where no keys are required: there is no one to leave slots to, so it may occupy all.
    A free slot goes to the waiting owner who has the fewest, and among equals to the one who was served longest ago.

    Args:
        work: what the slots are for, in the plural, for messages.
        size: number of slots.
        per_owner: maximum number of slots of one owner, also of ``None``, instead of half.
        waiting: maximum number of requests that wait for a slot.
        code: of the problem if no request can wait.
    """

    def __init__(
        self, work: str, size: int, *, per_owner: int | None = None, waiting: int = 32, code: str = "busy"
    ) -> None:
        self.work, self.size, self.waiting, self.code = work, size, waiting, code
        self._per_owner = per_owner
        self._lock = threading.Lock()
        self._taken: Counter[str | None] = Counter()
        self._queues: dict[str | None, deque[threading.Event]] = {}
        """The waiting requests of each owner; the owner who was served last is the last one."""

    @contextmanager
    def slot(self, owner: str | None) -> Iterator[None]:
        """Occupy a slot, once one is free for this owner.

        Raises:
            Busy: too many requests are waiting, of all owners or of this one.
        """
        granted = threading.Event()
        with self._lock:
            self._queues.setdefault(owner, deque()).append(granted)
            self._grant()
            if not granted.is_set():
                self._check_queue(owner)
        granted.wait()
        try:
            yield
        finally:
            with self._lock:
                self._taken[owner] -= 1
                if not self._taken[owner]:
                    del self._taken[owner]
                if owner in self._queues:
                    self._queues[owner] = self._queues.pop(owner)
                self._grant()

    def _grant(self) -> None:
        while self._taken.total() < self.size:
            ready = [owner for owner in self._queues if self._taken[owner] < self._most_slots(owner)]
            if not ready:
                return
            owner = min(ready, key=self._taken.__getitem__)
            queue = self._queues.pop(owner)
            queue.popleft().set()
            self._taken[owner] += 1
            if queue:
                self._queues[owner] = queue

    def _check_queue(self, owner: str | None) -> None:
        """Refuse the newest request of an owner if there is no place for it."""
        queue = self._queues[owner]
        most = self.waiting if owner is None else self.waiting // 2
        if len(queue) <= most and sum(map(len, self._queues.values())) <= self.waiting:
            return
        queue.pop()
        detail = f"{self.work}: {self._taken.total()} in progress ({self._taken[owner]} of them yours)"
        if self.waiting:
            detail += f", {sum(map(len, self._queues.values()))} waiting ({len(queue)} of them yours)"
        if not queue:
            del self._queues[owner]
        raise Busy(self.code, f"{detail}; send fewer at a time, or try again in {RETRY_AFTER_S} seconds", RETRY_AFTER_S)

    def _most_slots(self, owner: str | None) -> int:
        if self._per_owner is not None:
            return self._per_owner
        return self.size if owner is None else max(1, self.size // 2)
