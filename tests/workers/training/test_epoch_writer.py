from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from tests.waiting import wait_until
from workers.training.epochs import writer as module
from workers.training.epochs.writer import EpochWriter


class Commits:
    """Records what is stored and committed; each step can be made to wait or fail."""

    def __init__(self, *, before_store: Callable[[], object] = lambda: None) -> None:
        self.stored: list[int] = []
        self.batches: list[list[int]] = []
        self.times: list[float] = []
        self.error: Exception | None = None
        self.bytes_per_epoch = 0
        self._before_store = before_store
        self.writer = EpochWriter(self.store, self.commit, lambda epoch: self.bytes_per_epoch)

    def store(self, epochs: Sequence[int]) -> Sequence[int]:
        self._before_store()
        self.stored += epochs
        return epochs

    def commit(self, epochs: Sequence[int]) -> None:
        if self.error is not None:
            raise self.error
        self.batches.append(list(epochs))
        self.times.append(time.monotonic())

    def train(self, *epochs: int) -> None:
        for epoch in epochs:
            self.writer.wait()
            self.writer.start(epoch)


def test_a_commit_runs_during_training_and_finishes_before_the_writer_closes() -> None:
    release, threads_before = threading.Event(), threading.active_count()
    commits = Commits(before_store=lambda: release.wait(10))
    with commits.writer as writer:
        writer.start(1)
        assert writer.is_busy
        assert commits.batches == []
        writer.check()  # no commit has failed
        release.set()
    assert commits.batches == [[1]]
    assert not writer.is_busy
    assert threading.active_count() == threads_before


def test_short_epochs_share_a_commit_and_none_is_lost_at_the_end() -> None:
    commits = Commits()
    with commits.writer:
        commits.train(1)
        wait_until(lambda: commits.batches, "the first commit, which does not wait")
        commits.train(2, 3, 4)
        commits.writer.wait()
        assert commits.stored == [1]
        assert commits.batches == [[1]]
    assert commits.batches == [[1], [2, 3, 4]]


def test_an_epoch_is_committed_after_the_interval_although_the_next_one_is_not_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "COMMIT_INTERVAL_S", 0.3)
    commits = Commits()
    with commits.writer:
        commits.train(1)
        wait_until(lambda: commits.batches, "the first commit")
        commits.train(2, 3)
        assert commits.writer.is_busy
        wait_until(lambda: len(commits.batches) == 2, "the second commit")
        assert commits.batches == [[1], [2, 3]]
        assert commits.times[1] - commits.times[0] >= 0.3


def test_long_epochs_are_committed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_INTERVAL_S", 0.0)
    commits = Commits()
    with commits.writer:
        commits.train(1, 2, 3)
    assert commits.batches == [[1], [2], [3]]


def test_large_epochs_are_not_kept_uncommitted() -> None:
    commits = Commits()
    commits.bytes_per_epoch = module.MAX_UNCOMMITTED_BYTES // 2
    with commits.writer:
        commits.train(1, 2, 3, 4, 5)
        commits.writer.wait()
        assert max(map(len, commits.batches)) <= 3


def test_an_error_is_raised_when_it_occurs_and_only_once() -> None:
    commits = Commits()
    commits.error = OSError("the disk is full")
    with commits.writer as writer:
        writer.start(1)
        with pytest.raises(OSError, match="full"):
            writer.wait()
        writer.check()  # the error is raised only once
    assert commits.batches == []


def test_no_epoch_is_committed_after_some_that_could_not_be_stored() -> None:
    is_full = threading.Event()

    def fail() -> None:
        if is_full.is_set():
            raise OSError("the disk is full")

    commits = Commits(before_store=fail)

    def train() -> None:
        with commits.writer:
            commits.train(1)
            wait_until(lambda: commits.batches, "the first commit")
            is_full.set()
            commits.train(2, 3, 4)

    with pytest.raises(OSError, match="full"):
        train()
    assert commits.batches == [[1]]


def test_a_commit_error_replaces_an_error_of_the_next_epoch() -> None:
    commits = Commits()

    def train() -> None:
        with commits.writer:
            commits.train(1)
            wait_until(lambda: commits.batches, "the first commit")
            commits.error = OSError("the disk is full")
            commits.train(2)
            raise ValueError("the next epoch diverged")

    with pytest.raises(OSError, match="full"):
        train()


def test_the_last_epochs_wait_for_the_result() -> None:
    commits = Commits()
    with commits.writer as writer:
        writer.start(1, ends_in_s=0.2)
        writer.wait()
        writer.start(2, ends_in_s=0.0)
        assert writer.take() == [1, 2]
    assert commits.batches == []


def test_the_last_epochs_do_not_wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_INTERVAL_S", 0.3)
    commits = Commits()
    with commits.writer as writer:
        writer.start(1, ends_in_s=0.0)
        wait_until(lambda: commits.batches, "the commit")
        assert writer.take() == []
        writer.start(2, ends_in_s=0.0)
        writer.flush()
        assert commits.batches == [[1], [2]]


def test_a_commit_runs_synchronously_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    commits = Commits()
    with commits.writer:
        commits.train(1, 2)
        assert commits.stored == [1, 2]
    assert commits.batches == [[1], [2]]


def test_a_commit_runs_in_the_context_of_the_training() -> None:
    """So that its log lines name the job."""
    job: contextvars.ContextVar[str] = contextvars.ContextVar("job", default="none")
    job_ids: list[str] = []
    job.set("job_1")
    with Commits(before_store=lambda: job_ids.append(job.get())).writer as writer:
        writer.start(1)
    assert job_ids == ["job_1"]
