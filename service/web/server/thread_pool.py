"""Threads that come with a burst of requests, and go after it: the standard library's pool keeps all it ever made."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final, TypeVar

IDLE_THREAD_S: Final = 60.0
"""How long a thread waits for a request before it ends."""

T = TypeVar("T")


class _Work:
    def __init__(self, future: Future[Any], call: Callable[[], Any]) -> None:
        self._future, self._call = future, call

    def run(self) -> None:
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    def cancel(self) -> None:
        self._future.cancel()


class ThreadPool(Executor):
    """Up to ``max_threads``. The one that worked last works next: so a few are busy, and the others come to their end.

    The threads are daemons: who shuts the pool down decides how long to wait for them.
    """

    def __init__(self, max_threads: int, *, idle_s: float = IDLE_THREAD_S) -> None:
        self._max_threads, self._idle_s = max_threads, idle_s
        self._lock = threading.RLock()  # gunicorn shuts down from a signal handler, perhaps amid a submit
        self._threads: set[threading.Thread] = set()
        self._idle: list[queue.SimpleQueue[_Work | None]] = []
        """Where each waiting thread is given its work."""
        self._backlog: deque[_Work] = deque()
        self._is_shut = False

    def __len__(self) -> int:
        """How many threads there are."""
        return len(self._threads)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call in a thread: one that waits, or a new one; where there are enough, once one is free.

        Raises:
            RuntimeError: no thread can be started, or the pool is shut down.
        """
        future: Future[T] = Future()
        work = _Work(future, lambda: fn(*args, **kwargs))
        with self._lock:
            if self._is_shut:
                raise RuntimeError("the pool is shut down")
            if self._idle:
                self._idle.pop().put(work)
            elif len(self._threads) < self._max_threads:
                thread = threading.Thread(target=self._serve, args=(work,), name="request", daemon=True)
                self._threads.add(thread)
                try:
                    thread.start()
                except RuntimeError:
                    self._threads.discard(thread)
                    raise
            else:
                self._backlog.append(work)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; threads end once they have done what was submitted."""
        with self._lock:
            self._is_shut = True
            while cancel_futures and self._backlog:
                self._backlog.popleft().cancel()
            while self._idle:
                self._idle.pop().put(None)
            threads = list(self._threads)
        if wait:
            for thread in threads:
                thread.join()

    def _serve(self, work: _Work | None) -> None:
        given: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        try:
            while work is not None:
                work.run()
                work = None  # what it holds is not kept until the next request
                work = self._next(given)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _next(self, given: queue.SimpleQueue[_Work | None]) -> _Work | None:
        """The next work, ``None`` where the thread is to end."""
        with self._lock:
            if self._backlog:
                return self._backlog.popleft()
            if self._is_shut:
                return None
            self._idle.append(given)
        try:
            return given.get(timeout=self._idle_s)
        except queue.Empty:
            with self._lock:
                if given in self._idle:
                    self._idle.remove(given)
                    # Here, not later: whoever submits next must not count on it.
                    self._threads.discard(threading.current_thread())
                    return None
        return given.get()  # it was given work at the last moment
