"""The stream of all jobs."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from flask import Flask
from httpx_sse import ServerSentEvent, connect_sse
from sqlalchemy import event as database_event
from sqlalchemy.exc import OperationalError

from service.jobs import commits, leases, transitions
from service.jobs import events as log
from service.jobs.queries import lookup
from service.states import Status
from service.web.services import EXTENSION
from service.web.streaming import all_jobs
from service.web.streaming.client import Permission, StreamClient

Submit = Callable[..., str]
Serve = Callable[[Flask], str]


@contextmanager
def opened(base: str, *only: str) -> Iterator[Iterator[ServerSentEvent]]:
    query = f"?jobs={','.join(only)}" if only else ""
    with (
        httpx.Client(base_url=base, timeout=20, trust_env=False) as http,
        connect_sse(http, "GET", f"/stream{query}") as source,
    ):
        assert source.response.status_code == 200
        yield (event for event in source.iter_sse() if event.data)


def until(events: Iterator[ServerSentEvent], ends: int) -> list[dict[str, Any]]:
    """The events up to so many ends."""
    found = []
    for event in events:
        found.append(json.loads(event.data) | {"event": event.event})
        assert not event.id
        ends -= event.event == "end"
        if not ends:
            return found
    raise AssertionError("the stream ended by itself")


def play_through(worker: Any) -> None:
    worker.claim()
    worker.epoch(1)
    worker.succeed()


def test_every_event_of_every_job_comes_once(either_app: Flask, play: Any, submit: Submit, serve: Serve) -> None:
    client, worker, base = either_app.test_client(), play(either_app), serve(either_app)
    waiting = submit(client)
    with opened(base) as events:
        first = next(events)
        later = submit(client)
        play_through(worker)
        play_through(worker)
        found = until(events, ends=2)
    snapshot = json.loads(first.data)
    assert first.event == "snapshot"
    assert ([job["id"] for job in snapshot["jobs"]], snapshot["has_more"]) == ([waiting], False)
    for job_id, seen in ((waiting, 1), (later, 0)):
        logged = client.get(f"/jobs/{job_id}/events").json["data"]
        received = [event for event in found if event["job"] == job_id and event["event"] != "progress"]
        assert [event["seq"] for event in received] == [event["seq"] for event in logged[seen:]]


def test_only_events_of_the_selected_jobs_are_sent(either_app: Flask, play: Any, submit: Submit, serve: Serve) -> None:
    client, worker, base = either_app.test_client(), play(either_app), serve(either_app)
    first, second = submit(client), submit(client)
    with opened(base, second) as events:
        snapshot = json.loads(next(events).data)
        play_through(worker)
        play_through(worker)
        found = until(events, ends=1)
    assert [job["id"] for job in snapshot["jobs"]] == [second]
    assert {event["job"] for event in found} == {second}
    assert client.get(f"/stream?jobs={first},job_0").json["code"] == "job_not_found"


def test_many_named_jobs_are_looked_for_at_once(either_app: Flask, submit: Submit) -> None:
    client, here = either_app.test_client(), either_app.extensions[EXTENSION]
    made = [submit(client) for _ in range(5)]
    asked: list[str] = []
    database_event.listen(here.database.engine, "before_cursor_execute", lambda c, cur, sql, *_: asked.append(sql))
    answer = client.get(f"/stream?jobs={','.join([*made, 'job_0'])}")
    assert (answer.json["code"], "'job_0'" in answer.json["detail"]) == ("job_not_found", True)
    assert len([sql for sql in asked if "FROM jobs" in sql]) == 1


def test_progress_is_sent_but_not_stored(either_app: Flask, play: Any, submit: Submit, serve: Serve) -> None:
    worker, base = play(either_app), serve(either_app)
    job_id = submit(either_app.test_client())
    worker.claim()
    with opened(base) as events:
        next(events)
        threading.Timer(0.6, lambda: worker.report(40)).start()
        told = next(event for event in events if event.event == "progress")
    assert (json.loads(told.data)["job"], json.loads(told.data)["step"]) == (job_id, 40)


def test_a_client_that_is_too_slow_gets_a_new_snapshot(
    app: Flask, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_jobs, "_BUFFER_SIZE", 5)
    here = app.extensions[EXTENSION]
    client = app.test_client()

    text = all_jobs.follow_all(
        here.all_jobs_stream, all_jobs.JobSelection(here.database), StreamClient(None, Permission(lambda: True))
    )
    assert next(text).startswith("retry:")
    assert next(text) == 'event: snapshot\ndata: {"jobs":[],"has_more":false}\n\n'
    with here.all_jobs_stream.listen() as wake_up:
        made = []
        for _ in range(8):
            made.append(submit(client))
            wake_up.wait(5)  # one poll an event, or several at once: all is read by the time the client comes back
            wake_up.clear()
        while here.all_jobs_stream.end < 8:
            wake_up.wait(5)
    received = next(text)
    assert received.startswith("event: snapshot"), received
    assert [job["id"] for job in json.loads(received.split("data: ")[1])["jobs"]] == made[::-1]
    text.close()


def test_events_of_other_owners_are_not_sent(make_app: Any, sqlite_url: str) -> None:
    app = make_app(sqlite_url, auth="keys", api_keys=("a" * 20, "b" * 20))
    client, here = app.test_client(), app.extensions[EXTENSION]
    mine, theirs = ({"Authorization": f"Bearer {letter * 20}"} for letter in "ab")
    with client.get("/stream", headers=mine) as answer:
        text = iter(answer.response)
        next(text), next(text)
        client.post("/jobs", json={"kind": "classifier"}, headers=theirs)
        job_id = client.post("/jobs", json={"kind": "classifier"}, headers=mine).json["id"]
        received = next(text)
    assert json.loads(received.decode().split("data: ")[1])["job"] == job_id
    assert client.get(f"/stream?jobs={job_id}", headers=theirs).json["code"] == "job_not_found"
    assert here.all_jobs_stream.clients == 0


def test_many_jobs_at_once_lose_no_event(either_app: Flask, submit: Submit, serve: Serve) -> None:
    """Many writers at once commit in another order than that of their events' times."""
    database, base = either_app.extensions[EXTENSION].database, serve(either_app)
    client = either_app.test_client()
    ids = [submit(client) for _ in range(8)]
    with opened(base) as events:
        next(events)

        def work() -> None:
            while (held := leases.claim(database, "w", 600)) is not None:
                for number in range(random.randint(1, 9)):
                    commits.log(database, held, "info", "c", str(number))
                commits.succeed(database, held, "sha256:x")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        found = until(events, ends=len(ids))
        for thread in threads:
            thread.join()
    for job_id in ids:
        logged = client.get(f"/jobs/{job_id}/events").json["data"]
        assert [event["seq"] for event in found if event["job"] == job_id] == [event["seq"] for event in logged[1:]]


def test_more_events_than_one_look_reads_are_all_heard(app: Flask, submit: Submit) -> None:
    services = app.extensions[EXTENSION]
    job_id = submit(app.test_client())
    reader = all_jobs.LogReader(services.database)
    reader.read()
    with services.database.write() as session:
        last = log.append(session, job_id, [(log.EventType.LOG, {"line": line}) for line in range(1200)])
    assert [received.seq for received in reader.read()] == list(range(2, last + 1))


def test_events_arrive_after_a_read_that_failed(
    either_app: Flask, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, services = either_app.test_client(), either_app.extensions[EXTENSION]
    ids = [submit(client) for _ in range(2)]
    reader = all_jobs.LogReader(services.database)
    reader.read()
    for job_id in ids:
        assert client.post(f"/jobs/{job_id}/cancel").status_code == 202
    real, reads = log.read, iter(range(100))

    def read_once(*asked: Any, **options: Any) -> Any:
        if next(reads) == 1:
            raise OperationalError("SELECT", {}, Exception("gone"))
        return real(*asked, **options)

    monkeypatch.setattr(all_jobs.events, "read", read_once)
    with pytest.raises(OperationalError):
        reader.read()
    assert {received.job_id for received in reader.read()} == set(ids)


def test_events_of_slow_commits_are_sent(
    app: Flask, submit: Submit, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event's time is read first; then the disk holds the commit up for longer than most reads look back."""
    monkeypatch.setattr(all_jobs, "_LOOKBACK_MS", 100)
    client, base = app.test_client(), serve(app)
    job_id = submit(client)
    with opened(base) as events:
        next(events)
        with app.extensions[EXTENSION].database.write() as session:
            transitions.finish(session, lookup.get(session, job_id), Status.CANCELLED, reason="cancelled")
            session.flush()
            time.sleep(1.5)
        assert [event["seq"] for event in until(events, ends=1) if event["event"] == "end"] == [3]
