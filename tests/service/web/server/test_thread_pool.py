from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from service.web.server.thread_pool import ThreadPool
from tests.waiting import wait_until

MANY = 200


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    made = ThreadPool(MANY, idle_s=0.2)
    yield made
    made.shutdown()


def burst(pool: ThreadPool, count: int) -> None:
    """So many requests that all are there at once."""
    together = threading.Barrier(count + 1, timeout=20)
    futures = [pool.submit(together.wait) for _ in range(count)]
    together.wait()
    for future in futures:
        future.result(20)


def test_threads_come_with_a_burst_and_go_after_it(pool: ThreadPool) -> None:
    before = threading.active_count()
    for _ in range(2):
        burst(pool, MANY)
        assert len(pool) == MANY
        wait_until(lambda: len(pool) == 0, "the end of idle threads")
        wait_until(lambda: threading.active_count() == before, "the end of the threads themselves")


def test_a_trickle_of_requests_keeps_one_thread_and_not_all(pool: ThreadPool) -> None:
    burst(pool, MANY)
    deadline = time.monotonic() + 10
    while len(pool) > 1:
        assert time.monotonic() < deadline, f"{len(pool)} threads are left"
        pool.submit(time.sleep, 0.0001).result(5)
        time.sleep(0.0005)


def test_what_is_more_than_the_threads_waits_for_one() -> None:
    pool = ThreadPool(2, idle_s=5)
    go = threading.Event()
    futures = [pool.submit(go.wait, 20) for _ in range(2)] + [pool.submit(lambda n=n: n) for n in range(20)]
    assert len(pool) == 2
    go.set()
    assert [future.result(5) for future in futures[2:]] == list(range(20))
    pool.shutdown()
    assert len(pool) == 0


def test_an_error_is_the_callers_and_ends_no_thread(pool: ThreadPool) -> None:
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(5)
    assert len(pool) == 1


def test_a_pool_that_is_shut_down_finishes_its_work_and_takes_no_more() -> None:
    pool = ThreadPool(1, idle_s=60)
    go = threading.Event()
    first, second, third = pool.submit(go.wait, 20), pool.submit(int), pool.submit(int)
    third.cancel()
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError):
        pool.submit(int)
    go.set()
    pool.shutdown()
    assert (first.result(), second.result(), third.cancelled()) == (True, 0, True)


def test_where_no_thread_can_be_started_nothing_is_left_to_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
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
