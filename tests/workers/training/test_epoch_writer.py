from __future__ import annotations

import contextvars
import threading

import pytest

from workers.training.epochs.writer import EpochWriter


def test_a_commit_runs_while_the_training_goes_on_and_ends_with_the_context() -> None:
    go_on, seen, before = threading.Event(), list[int](), threading.active_count()

    def commit() -> None:
        go_on.wait(10)
        seen.append(1)

    with EpochWriter() as writer:
        writer.start(commit)
        assert writer.is_busy
        assert seen == []
        writer.check()  # nothing has failed
        go_on.set()
    assert seen == [1]
    assert not writer.is_busy
    assert threading.active_count() == before


def test_an_error_is_raised_once_it_is_known() -> None:
    fails = threading.Event()

    def commit() -> None:
        fails.wait(10)
        raise OSError("the disk is full")

    with EpochWriter() as writer:
        writer.start(commit)
        writer.check()
        fails.set()
        with pytest.raises(OSError, match="full"):
            writer.wait()
        writer.check()  # it is raised once


def test_the_error_of_a_commit_replaces_one_of_the_later_epoch() -> None:
    fails = threading.Event()

    def commit() -> None:
        fails.wait(10)
        raise OSError("the disk is full")

    def train() -> None:
        with EpochWriter() as writer:
            writer.start(commit)
            fails.set()
            raise ValueError("the next epoch diverged")

    with pytest.raises(OSError, match="full"):
        train()


def test_without_a_thread_the_training_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    seen: list[int] = []
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with EpochWriter() as writer:
        writer.start(lambda: seen.append(1))
        assert seen == [1]


def test_a_commit_has_the_context_of_the_training() -> None:
    """Log lines name the job."""
    job: contextvars.ContextVar[str] = contextvars.ContextVar("job", default="none")
    seen: list[str] = []
    job.set("job_1")
    with EpochWriter() as writer:
        writer.start(lambda: seen.append(job.get()))
    assert seen == ["job_1"]
