"""The stream of all jobs."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from flask import Flask
from httpx_sse import ServerSentEvent, connect_sse
from sqlalchemy import event as database_event
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.jobs import commits, epoch_commits, leases, transitions
from service.jobs import events as log
from service.jobs.queries import lookup
from service.states import Status
from service.storage.database import Database, now_ms
from service.web.core.core import EXTENSION, provided
from service.web.jobs import stream as job_stream
from service.web.streaming.poller import Poller
from service.web.streaming.response import Permission, StreamClient
from tests.waiting import wait_until

Submit = Callable[..., str]
Serve = Callable[[Flask], str]


@contextmanager
def opened(base: str, *job_ids: str) -> Iterator[Iterator[ServerSentEvent]]:
    query = f"?jobs={','.join(job_ids)}" if job_ids else ""
    with (
        httpx.Client(base_url=base, timeout=20, trust_env=False) as http,
        connect_sse(http, "GET", f"/stream{query}") as source,
    ):
        assert source.response.status_code == 200
        yield (event for event in source.iter_sse() if event.data)


def read_until(events: Iterator[ServerSentEvent], ends: int) -> list[dict[str, Any]]:
    """Read events up to the end of as many jobs as ``ends``."""
    received = []
    for event in events:
        received.append(json.loads(event.data) | {"event": event.event})
        assert not event.id
        ends -= event.event == "end"
        if not ends:
            return received
    raise AssertionError("the stream ended by itself")


def read(database: Database, reader: job_stream.LogReader) -> list[job_stream.FeedEvent]:
    with database.read() as session:
        return reader.read(session)


def run_next_job(worker: Any) -> None:
    worker.claim()
    worker.commit_epoch(1)
    worker.succeed()


def test_every_event_of_every_job_is_sent_once(
    either_app: Flask, make_worker: Any, submit: Submit, serve: Serve
) -> None:
    client, worker, base = either_app.test_client(), make_worker(either_app), serve(either_app)
    waiting = submit(client)
    with opened(base) as events:
        snapshot_event = next(events)
        later = submit(client)
        run_next_job(worker)
        run_next_job(worker)
        streamed = read_until(events, ends=2)
    snapshot = json.loads(snapshot_event.data)
    assert snapshot_event.event == "snapshot"
    assert ([job["id"] for job in snapshot["jobs"]], snapshot["has_more"]) == ([waiting], False)
    for job_id, earlier in ((waiting, 1), (later, 0)):
        logged = client.get(f"/jobs/{job_id}/events").json["data"]
        received = [event for event in streamed if event["job"] == job_id and event["event"] != "progress"]
        assert [event["seq"] for event in received] == [event["seq"] for event in logged[earlier:]]


def test_only_events_of_the_selected_jobs_are_sent(
    either_app: Flask, make_worker: Any, submit: Submit, serve: Serve
) -> None:
    client, worker, base = either_app.test_client(), make_worker(either_app), serve(either_app)
    first, second = submit(client), submit(client)
    with opened(base, second) as events:
        snapshot = json.loads(next(events).data)
        run_next_job(worker)
        run_next_job(worker)
        streamed = read_until(events, ends=1)
    assert [job["id"] for job in snapshot["jobs"]] == [second]
    assert {event["job"] for event in streamed} == {second}
    assert client.get(f"/stream?jobs={first},job_0").json["code"] == "job_not_found"


def test_many_selected_jobs_are_looked_up_with_one_query(either_app: Flask, submit: Submit) -> None:
    client, core = either_app.test_client(), either_app.extensions[EXTENSION]
    job_ids = [submit(client) for _ in range(5)]
    statements: list[str] = []
    database_event.listen(core.database.engine, "before_cursor_execute", lambda c, cur, sql, *_: statements.append(sql))
    answer = client.get(f"/stream?jobs={','.join([*job_ids, 'job_0'])}")
    assert (answer.json["code"], "'job_0'" in answer.json["detail"]) == ("job_not_found", True)
    assert len([sql for sql in statements if "FROM jobs" in sql]) == 1


def test_progress_of_a_running_job_is_sent_but_not_logged(
    either_app: Flask, make_worker: Any, submit: Submit, serve: Serve
) -> None:
    worker, base = make_worker(either_app), serve(either_app)
    client = either_app.test_client()
    job_id = submit(client)
    worker.claim()
    logged = client.get(f"/jobs/{job_id}/events").json
    with opened(base) as events:
        next(events)
        threading.Timer(0.6, lambda: worker.report(40)).start()
        progress = next(event for event in events if event.event == "progress")
    assert (json.loads(progress.data)["job"], json.loads(progress.data)["step"]) == (job_id, 40)
    assert client.get(f"/jobs/{job_id}/events").json == logged
    assert {event["type"] for event in logged["data"]} == {"status"}


def test_a_client_that_is_too_slow_gets_a_new_snapshot(
    app: Flask, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_stream, "_BUFFER_SIZE", 5)
    core = app.extensions[EXTENSION]
    client = app.test_client()

    text = job_stream.follow_all(
        provided(Poller, app), job_stream.JobSelection(core.database), StreamClient(None, Permission(lambda: True))
    )
    assert next(text).startswith("retry:")
    assert next(text) == 'event: snapshot\ndata: {"jobs":[],"has_more":false}\n\n'
    with provided(Poller, app).listen(job_stream.ALL_JOBS) as listener:
        job_ids = []
        for _ in range(8):
            job_ids.append(submit(client))
            listener.wait(5)  # one poll per event, or for several: all are read before the client reads again
        while listener.view.end < 8:
            listener.wait(5)
    received = next(text)
    assert received.startswith("event: snapshot"), received
    assert [job["id"] for job in json.loads(received.split("data: ")[1])["jobs"]] == job_ids[::-1]
    text.close()


def test_events_of_other_owners_are_not_sent(make_app: Any, sqlite_url: str) -> None:
    app = make_app(sqlite_url, auth="keys", api_keys=("a" * 20, "b" * 20))
    client = app.test_client()
    mine, theirs = ({"Authorization": f"Bearer {letter * 20}"} for letter in "ab")
    with client.get("/stream", headers=mine) as answer:
        text = iter(answer.response)
        next(text), next(text)
        client.post("/jobs", json={"kind": "classifier"}, headers=theirs)
        job_id = client.post("/jobs", json={"kind": "classifier"}, headers=mine).json["id"]
        received = next(text)
    assert json.loads(received.decode().split("data: ")[1])["job"] == job_id
    assert client.get(f"/stream?jobs={job_id}", headers=theirs).json["code"] == "job_not_found"
    assert provided(Poller, app).clients == 0


def test_no_event_is_lost_among_jobs_that_run_concurrently(either_app: Flask, submit: Submit, serve: Serve) -> None:
    """Concurrent writers do not commit in the order of their events' timestamps."""
    database, base = either_app.extensions[EXTENSION].database, serve(either_app)
    client = either_app.test_client()
    job_ids = [submit(client) for _ in range(8)]
    with opened(base) as events:
        next(events)

        def work() -> None:
            while (claim := leases.claim(database, "w", 600)) is not None:
                for number in range(random.randint(1, 9)):
                    commits.log(database, claim, "info", "c", str(number))
                epoch_commits.succeed(database, claim, "sha256:x")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        streamed = read_until(events, ends=len(job_ids))
        for thread in threads:
            thread.join()
    for job_id in job_ids:
        logged = client.get(f"/jobs/{job_id}/events").json["data"]
        assert [event["seq"] for event in streamed if event["job"] == job_id] == [event["seq"] for event in logged[1:]]


def test_a_read_returns_all_of_more_than_a_thousand_new_events(app: Flask, submit: Submit) -> None:
    core = app.extensions[EXTENSION]
    job_id = submit(app.test_client())
    reader = job_stream.LogReader()
    read(core.database, reader)
    with core.database.write() as session:
        last = log.append(session, job_id, [(log.EventType.LOG, {"line": line}) for line in range(1200)])
    assert [received.seq for received in read(core.database, reader)] == list(range(2, last + 1))


def test_events_are_returned_after_a_failed_read(
    either_app: Flask, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, core = either_app.test_client(), either_app.extensions[EXTENSION]
    job_ids = [submit(client) for _ in range(2)]
    reader = job_stream.LogReader()
    read(core.database, reader)
    for job_id in job_ids:
        assert client.post(f"/jobs/{job_id}/cancel").status_code == 202
    read_log, reads = log.read, iter(range(100))

    def fail_second_read(*arguments: Any, **options: Any) -> Any:
        if next(reads) == 1:
            raise OperationalError("SELECT", {}, Exception("gone"))
        return read_log(*arguments, **options)

    monkeypatch.setattr(job_stream.events, "read", fail_second_read)
    with pytest.raises(OperationalError):
        read(core.database, reader)
    assert {received.job_id for received in read(core.database, reader)} == set(job_ids)


@pytest.mark.stack
def test_events_of_slow_commits_are_sent(
    app: Flask, submit: Submit, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event is timestamped first; then the disk delays its commit for longer than most reads look back."""
    monkeypatch.setattr(job_stream, "_LOOKBACK_MS", 100)
    stream = provided(Poller, app)
    stream.ping_s = 3600.0  # without the event, the client times out
    monkeypatch.setattr(stream, "_interval_s", 0.02)
    readers, read_events = list[job_stream.LogReader](), job_stream.LogReader.read

    def observed_read(reader: job_stream.LogReader, session: Session) -> list[job_stream.FeedEvent]:
        readers.append(reader)
        return read_events(reader, session)

    monkeypatch.setattr(job_stream.LogReader, "read", observed_read)
    client, base = app.test_client(), serve(app)
    job_id = submit(client)
    with opened(base) as events:
        next(events)
        with app.extensions[EXTENSION].database.write() as session:
            transitions.finish(session, lookup.get(session, job_id), Status.CANCELLED, reason="cancelled")
            session.flush()
            written_ms = session.scalar(select(now_ms())) or 0
            wait_until(lambda: (readers[-1]._since or 0) > written_ms + 100, "reads that look back less far")
        assert [event["seq"] for event in read_until(events, ends=1) if event["event"] == "end"] == [3]
