"""Following a job that no worker claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from flask import Flask

from service.cli import progress
from service.cli.progress import FollowedJob, follow_jobs
from tapeline import Client, Event


@dataclass
class CancellingDisplay:
    """Cancels the job at its first note."""

    client: Client
    notes: list[str] = field(default_factory=list)

    def changed(self, job: FollowedJob, event: Event) -> None:
        pass

    def note(self, job: FollowedJob, text: str) -> None:
        self.notes.append(text)
        self.client.job(job.id).cancel()

    def outage(self, is_unavailable: bool) -> None:
        raise AssertionError


def test_watching_a_job_that_no_worker_claims_says_why(
    app: Flask, serve: Callable[[Flask], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_POLL_INTERVAL_S", 0.1)
    url = serve(app)
    with Client(url) as client:
        display = CancellingDisplay(client)
        job = client.submit({"kind": "classifier"})
        follow_jobs(lambda: Client(url), [FollowedJob.of(job)], display)
    assert [note.partition(":")[0] for note in display.notes] == ["No worker is running"]
