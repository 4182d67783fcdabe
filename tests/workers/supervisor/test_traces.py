"""Traces of whole jobs, received by a collector: from the request over each attempt to the last epoch."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from service.local import LocalStack
from service.runtime.settings import Settings
from service.storage.tables import Job
from tests.otlp_receiver import Collector, Received, collector
from tests.waiting import wait_until
from tests.workers.conftest import STEADY_SPEC, WorkerHarness, children_of

REQUEST = f"00-{'ab' * 16}-{'cd' * 8}-01"


@pytest.fixture
def receiver() -> Iterator[Collector]:
    with collector() as running:
        yield running


def tree(spans: list[Received]) -> list[str]:
    """The spans of one trace by their start, each below its parent."""
    ids = {span.span_id for span in spans}

    def below(parent: str | None) -> Iterator[str]:
        children = [span for span in spans if (span.parent_id if span.parent_id in ids else None) == parent]
        for span in sorted(children, key=lambda span: span.start_ns):
            yield span.name + (f" {span.attributes['tapeline.epoch']}" if "tapeline.epoch" in span.attributes else "")
            yield from (f"  {line}" for line in below(span.span_id))

    return list(below(None))


EPOCHS = 20
"""Of some tenths of a second each, which leaves time for a kill."""


@pytest.mark.nightly
def test_a_request_leads_to_its_attempts_one_of_which_is_killed_and_to_the_commit_of_each_epoch(
    receiver: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    environ = {"TAPELINE_HOME": str(tmp_path / "home"), "TAPELINE_PORT": "0", "TAPELINE_WORKERS": "1"}
    with LocalStack(Settings.from_env(environ, cores=1)) as stack, httpx.Client(base_url=stack.url) as client:
        job = client.post("/jobs", json={**STEADY_SPEC, "epochs": EPOCHS}, headers={"traceparent": REQUEST}).json()
        url = f"/jobs/{job['id']}"
        wait_until(lambda: client.get(url).json()["progress"]["epoch"] >= 2, "two epochs")
        log = (tmp_path / "home" / "logs" / "worker.log").read_text()
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        os.kill(next(line["child"] for line in lines if line["event"] == "training"), signal.SIGKILL)
        wait_until(lambda: client.get(url).json()["status"] == "succeeded", "the end of the job")
        events = client.get(f"{url}/events").json()["data"]
        receiver.wait_for("attempt", 2)
    (request,) = receiver.named("POST /jobs")
    assert (request.trace_id, request.parent_id) == ("ab" * 16, "cd" * 8)
    assert job["trace_id"] == request.trace_id
    attempts = receiver.named("attempt")
    assert [span.links for span in attempts] == [[(request.trace_id, request.span_id)]] * len(attempts)
    claimed = [event["trace_id"] for event in events if event.get("reason") == "claimed"]
    assert claimed == [span.trace_id for span in attempts]
    killed, last = attempts[0], attempts[-1]
    assert (killed.error, last.error) == ("the training process ended with code -9", None)
    assert last.attributes["tapeline.outcome"] == "succeeded"
    assert {"load", "epoch 1", "  commit 1", "epoch 2"} <= {
        line.removeprefix("  ") for line in tree([span for span in receiver.spans if span.trace_id == killed.trace_id])
    }
    trace = [span for span in receiver.spans if span.trace_id == last.trace_id]
    first = next(span.attributes["tapeline.epoch"] for span in trace if span.name == "epoch")
    assert first > 1
    epochs = range(first, EPOCHS + 1)
    assert [line for line in tree(trace) if "commit" not in line and "upload" not in line] == [
        "attempt",
        "  claim",
        "  load",
        *(f"  epoch {number}" for number in epochs),
    ]
    commits = [span.attributes for span in trace if span.name == "commit"]
    ends = [(int(commit["tapeline.epoch"]), count) for commit in commits if (count := int(commit["tapeline.epochs"]))]
    assert [int(span.attributes["tapeline.epoch"]) for span in trace if span.name == "upload"] == [
        end for end, _ in ends
    ]
    assert [number for end, count in ends for number in range(end - count + 1, end + 1)] == list(epochs)
    about = {"tapeline.job.id": job["id"], "tapeline.job.lease": len(attempts)}
    assert all(about.items() <= span.attributes.items() for span in trace)


@pytest.mark.nightly
def test_in_child_mode_attempts_belong_to_the_trace_of_the_request(
    receiver: Collector, sqlite_workers: WorkerHarness
) -> None:
    job_id = sqlite_workers.submit(epochs=2)
    with sqlite_workers.database.write() as session:
        session.execute(update(Job).values(traceparent=REQUEST))
    sqlite_workers.start(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, TAPELINE_OTEL_PARENT="child")
    sqlite_workers.until_end(job_id)
    receiver.wait_for("attempt")
    assert {span.trace_id for span in receiver.spans} == {"ab" * 16}
    (attempt,) = receiver.named("attempt")
    assert (attempt.parent_id, attempt.links) == ("cd" * 8, [])
    lines = [json.loads(line) for line in (sqlite_workers.home / "workers.log").read_text().splitlines()]
    assert {line["trace_id"] for line in lines if line.get("job") == job_id} == {"ab" * 16}


@pytest.mark.nightly
def test_training_processes_are_used_again_and_have_no_exporter(
    receiver: Collector, sqlite_workers: WorkerHarness
) -> None:
    job_ids = [sqlite_workers.submit(epochs=1) for _ in range(3)]
    worker = sqlite_workers.start(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    for job_id in job_ids:
        sqlite_workers.until_end(job_id)
    if sys.platform == "linux":
        # One trains, and one reads commands; the thread that commits may outlive its job for a moment.
        def count_threads() -> int:
            return max(
                (len(list(Path(f"/proc/{child}/task").glob("*"))) for child in children_of(worker.pid)), default=0
            )

        wait_until(lambda: count_threads() <= 2, "the end of all other threads")
    lines = [json.loads(line) for line in (sqlite_workers.home / "workers.log").read_text().splitlines()]
    assert len({line["child"] for line in lines if line["event"] == "training"}) < len(job_ids)
    assert len(receiver.wait_for("attempt", 3)) == 3


@pytest.fixture(params=["nothing listens", "nobody answers"])
def dead_collector(request: pytest.FixtureRequest) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        if request.param == "nothing listens":
            server.close()
            yield "http://127.0.0.1:9"
        else:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.nightly
def test_a_dead_collector_changes_no_bits_and_holds_up_neither_the_job_nor_the_exit(
    dead_collector: str, sqlite_workers: WorkerHarness, undisturbed_job: Job
) -> None:
    job_id = sqlite_workers.submit()
    sqlite_workers.start(OTEL_EXPORTER_OTLP_ENDPOINT=dead_collector)
    job = sqlite_workers.until_end(job_id)
    assert (job.status, job.result_digest) == ("succeeded", undisturbed_job.result_digest)
    sqlite_workers.stop()  # fails if the worker does not stop in time
    log = (sqlite_workers.home / "workers.log").read_text()
    assert log.count("traces are not exported") <= 1
    assert "opentelemetry" not in log
