from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from service.web.server.thread_pool import ThreadPool
from tests.waiting import wait_until

MAX_THREADS = 200


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    thread_pool = ThreadPool(MAX_THREADS, idle_s=0.2)
    yield thread_pool
    thread_pool.shutdown()


def burst(pool: ThreadPool, count: int) -> None:
    """Run ``count`` requests that are all in progress at the same time."""
    barrier = threading.Barrier(count + 1, timeout=20)
    futures = [pool.submit(barrier.wait) for _ in range(count)]
    barrier.wait()
    for future in futures:
        future.result(20)


def test_threads_start_with_a_burst_and_end_after_it(pool: ThreadPool) -> None:
    thread_count = threading.active_count()
    for _ in range(2):
        burst(pool, MAX_THREADS)
        assert len(pool) == MAX_THREADS
        wait_until(lambda: len(pool) == 0, "the end of idle threads")
        wait_until(lambda: threading.active_count() == thread_count, "the end of the threads themselves")


def test_a_trickle_of_requests_keeps_only_one_thread(pool: ThreadPool) -> None:
    burst(pool, MAX_THREADS)
    deadline = time.monotonic() + 10
    while len(pool) > 1:
        assert time.monotonic() < deadline, f"{len(pool)} threads are left"
        pool.submit(time.sleep, 0.0001).result(5)
        time.sleep(0.0005)


def test_requests_beyond_the_maximum_wait_for_a_free_thread() -> None:
    pool = ThreadPool(2, idle_s=5)
    release = threading.Event()
    futures = [pool.submit(release.wait, 20) for _ in range(2)] + [pool.submit(lambda n=n: n) for n in range(20)]
    assert len(pool) == 2
    release.set()
    assert [future.result(5) for future in futures[2:]] == list(range(20))
    pool.shutdown()
    assert len(pool) == 0


def test_an_error_is_raised_to_the_caller_and_ends_no_thread(pool: ThreadPool) -> None:
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(5)
    assert len(pool) == 1


def test_a_pool_that_is_shut_down_finishes_its_work_and_accepts_no_more() -> None:
    pool = ThreadPool(1, idle_s=60)
    release = threading.Event()
    first, second, third = pool.submit(release.wait, 20), pool.submit(int), pool.submit(int)
    third.cancel()
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError):
        pool.submit(int)
    release.set()
    pool.shutdown()
    assert (first.result(), second.result(), third.cancelled()) == (True, 0, True)


def test_a_request_for_which_no_thread_starts_is_not_run_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool, done = ThreadPool(5), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            pool.submit(done.set)
    assert len(pool) == 0
    pool.submit(int).result(5)
    assert not done.is_set()
    pool.shutdown()
