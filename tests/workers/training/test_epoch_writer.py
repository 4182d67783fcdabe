from __future__ import annotations

import contextvars
import threading

import pytest

from workers.training.epochs.writer import EpochWriter


def test_a_commit_runs_during_training_and_finishes_before_the_writer_closes() -> None:
    release, commits, threads_before = threading.Event(), list[int](), threading.active_count()

    def commit() -> None:
        release.wait(10)
        commits.append(1)

    with EpochWriter() as writer:
        writer.start(commit)
        assert writer.is_busy
        assert commits == []
        writer.check()  # no commit has failed
        release.set()
    assert commits == [1]
    assert not writer.is_busy
    assert threading.active_count() == threads_before


def test_a_commit_error_is_raised_when_it_occurs_and_only_once() -> None:
    fail = threading.Event()

    def commit() -> None:
        fail.wait(10)
        raise OSError("the disk is full")

    with EpochWriter() as writer:
        writer.start(commit)
        writer.check()
        fail.set()
        with pytest.raises(OSError, match="full"):
            writer.wait()
        writer.check()  # the error is raised only once


def test_a_commit_error_replaces_an_error_of_the_next_epoch() -> None:
    fail = threading.Event()

    def commit() -> None:
        fail.wait(10)
        raise OSError("the disk is full")

    def train() -> None:
        with EpochWriter() as writer:
            writer.start(commit)
            fail.set()
            raise ValueError("the next epoch diverged")

    with pytest.raises(OSError, match="full"):
        train()


def test_a_commit_runs_synchronously_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    commits: list[int] = []
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with EpochWriter() as writer:
        writer.start(lambda: commits.append(1))
        assert commits == [1]


def test_a_commit_runs_in_the_context_of_the_training() -> None:
    """So that its log lines name the job."""
    job: contextvars.ContextVar[str] = contextvars.ContextVar("job", default="none")
    job_ids: list[str] = []
    job.set("job_1")
    with EpochWriter() as writer:
        writer.start(lambda: job_ids.append(job.get()))
    assert job_ids == ["job_1"]
