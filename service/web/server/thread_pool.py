"""A thread pool that shrinks after a burst of requests; the standard library's never does."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, Final, TypeVar

IDLE_THREAD_S: Final = 60.0
"""How long an idle thread waits for a request before it ends."""

T = TypeVar("T")


_Work = tuple[Future[Any], Callable[[], Any]]


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - passed to the caller
        future.set_exception(error)
    else:
        future.set_result(result)


class ThreadPool(Executor):
    """Up to ``max_threads`` threads. Work goes to the thread that became idle last, so that the others can time out.

    The threads are daemons: the caller of ``shutdown`` decides whether to wait for them.
    """

    def __init__(self, max_threads: int, *, idle_s: float = IDLE_THREAD_S) -> None:
        self._max_threads, self._idle_s = max_threads, idle_s
        self._lock = threading.RLock()  # gunicorn calls shutdown in a signal handler, which may interrupt a submit
        self._threads: set[threading.Thread] = set()
        self._idle: list[queue.SimpleQueue[_Work | None]] = []
        """The queues of the idle threads."""
        self._backlog: deque[_Work] = deque()
        self._is_shut = False

    def __len__(self) -> int:
        """Number of threads."""
        return len(self._threads)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a call in an idle thread, in a new one or, at ``max_threads``, as soon as a thread is free.

        Raises:
            RuntimeError: no thread can be started, or the pool is shut down.
        """
        future: Future[T] = Future()
        work = (future, partial(fn, *args, **kwargs))
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
        """Accept no more work; threads end once all submitted work is done."""
        with self._lock:
            self._is_shut = True
            while cancel_futures and self._backlog:
                self._backlog.popleft()[0].cancel()
            while self._idle:
                self._idle.pop().put(None)
            threads = list(self._threads)
        if wait:
            for thread in threads:
                thread.join()

    def _serve(self, work: _Work | None) -> None:
        inbox: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        try:
            while work is not None:
                _run(*work)
                work = None  # release its references before waiting
                work = self._next(inbox)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _next(self, inbox: queue.SimpleQueue[_Work | None]) -> _Work | None:
        """Wait for the next work; ``None`` if the thread must end."""
        with self._lock:
            if self._backlog:
                return self._backlog.popleft()
            if self._is_shut:
                return None
            self._idle.append(inbox)
        try:
            return inbox.get(timeout=self._idle_s)
        except queue.Empty:
            with self._lock:
                if inbox in self._idle:
                    self._idle.remove(inbox)
                    # With the lock held, so that the next submit does not count this thread.
                    self._threads.discard(threading.current_thread())
                    return None
        return inbox.get()  # work was assigned just before the timeout
