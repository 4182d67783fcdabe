"""``time``, ``threading`` and thread pools as the product sees them in a life: the world's clock, and its threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, Self, TypeVar

from tests.simulation.kernel.world import Thread as WorldThread
from tests.simulation.kernel.world import World

T = TypeVar("T")
R = TypeVar("R")


class Current:
    """The life that runs now."""

    def __init__(self) -> None:
        self._world: World | None = None
        self.children: list[Any] = []
        """All training processes that were started."""
        self.buckets: dict[str, Any] = {}
        """By the URL in settings."""
        self.receivers: Any = None
        self.journals: list[Any] = []
        """Of the command that moves the store."""

    @property
    def world(self) -> World:
        """Its world."""
        assert self._world is not None, "no life runs"
        return self._world

    @property
    def is_empty(self) -> bool:
        """Whether no life runs."""
        return self._world is None

    def set(self, world: World | None) -> None:
        """Begin or end a life."""
        self._world = world
        self.children, self.buckets, self.journals = [], {}, []


CURRENT: Final = Current()


class Time:
    """The module ``time``. The monotonic clock goes on while a process sleeps; the wall clock may be wrong."""

    @staticmethod
    def monotonic() -> float:
        return CURRENT.world.now_ms / 1000

    @staticmethod
    def time() -> float:
        world = CURRENT.world
        return world.now_ms / 1000 + (world.process.wall_skew_s if world.current is not None else 0.0)

    @staticmethod
    def time_ns() -> int:
        return int(1e9 * Time.time())

    thread_time = perf_counter = monotonic

    @staticmethod
    def sleep(seconds: float) -> None:
        CURRENT.world.suspend(seconds)


class _Waiters:
    """Threads that wait for something."""

    def __init__(self) -> None:
        self._waiting: list[tuple[WorldThread, int]] = []

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for ``wake_all``; may return early."""
        world = CURRENT.world
        assert world.current is not None
        self._waiting.append((world.current, world.current.ticket))
        world.suspend(timeout_s)

    def wait_until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until a condition holds, or a time has passed; returns whether it holds."""
        deadline = None if timeout_s is None else Time.monotonic() + timeout_s
        while not condition():
            left = None if deadline is None else deadline - Time.monotonic()
            if left is not None and left <= 0:
                return False
            self.wait(left)
        return True

    def wake_all(self) -> None:
        """Wake all that wait."""
        waiting, self._waiting = self._waiting, []
        for thread, ticket in waiting:
            if thread.ticket == ticket:
                CURRENT.world.wake(thread)


class Event:
    """As ``threading.Event``."""

    def __init__(self) -> None:
        self._is_set, self._waiters = False, _Waiters()

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._waiters.wake_all()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._waiters.wait_until(self.is_set, timeout)


class Semaphore:
    """As ``threading.Semaphore``."""

    def __init__(self, value: int = 1) -> None:
        self._value, self._waiters = value, _Waiters()

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        limit = 0.0 if not blocking else None if timeout is None or timeout < 0 else timeout
        is_free = self._waiters.wait_until(lambda: self._value > 0, limit)
        self._value -= is_free
        return is_free

    def release(self) -> None:
        self._value += 1
        self._waiters.wake_all()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Lock(Semaphore):
    """As ``threading.Lock``."""

    def __init__(self) -> None:
        super().__init__(1)


class Condition(Lock):
    """As ``threading.Condition``. Only one thread runs at a time, so waiting is enough to release its lock."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = _Waiters()

    def wait(self, timeout: float | None = None) -> None:
        self.release()
        self._changed.wait(timeout)
        self.acquire()

    def wait_for(self, predicate: Callable[[], bool]) -> bool:
        while not predicate():
            self.wait()
        return True

    def notify_all(self) -> None:
        self._changed.wake_all()


class Thread:
    """As ``threading.Thread``: a thread of the current process."""

    def __init__(
        self, *, target: Callable[..., object], args: tuple[Any, ...] = (), name: str = "thread", daemon: bool = False
    ) -> None:
        self.name = name
        self._target, self._args, self._ended = target, args, Event()

    def start(self) -> None:
        CURRENT.world.spawn(self.name, self._main)

    def _main(self) -> None:
        thread = CURRENT.world.current
        assert thread is not None
        _RUNNING[thread] = self
        try:
            self._target(*self._args)
        finally:
            _RUNNING.pop(thread)
            self._ended.set()

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)

    def is_alive(self) -> bool:
        return not self._ended.is_set()


_RUNNING: Final[dict[WorldThread, Thread]] = {}


class Threading:
    """The module ``threading``."""

    Event, Lock, Condition, Semaphore = Event, Lock, Condition, Semaphore

    @staticmethod
    def current_thread() -> Thread | None:
        thread = CURRENT.world.current
        return None if thread is None else _RUNNING.get(thread)

    Thread = Thread


class ThreadPoolExecutor:
    """As that of ``concurrent.futures``, with a thread for each call."""

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        pass

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        calls = [_Call(partial(function, item)) for item in items]
        for call in calls:
            call.thread.start()
        for call in calls:
            yield call.result()


class _Call:
    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._value: Any = None
        self._error: Exception | None = None
        self.thread = Thread(target=self._run, name="pool")

    def _run(self) -> None:
        try:
            self._value = self._function()
        except Exception as error:  # noqa: BLE001 - raised where the result is read
            self._error = error

    def result(self) -> Any:
        self.thread.join()
        if self._error is not None:
            raise self._error
        return self._value
