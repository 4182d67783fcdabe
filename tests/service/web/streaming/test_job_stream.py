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
from flask.testing import FlaskClient
from httpx_sse import ServerSentEvent, connect_sse
from sqlalchemy import event as database_event
from sqlalchemy.exc import OperationalError

from service.web.core.core import EXTENSION, provided
from service.web.jobs import stream
from service.web.streaming import poller as poller_module
from service.web.streaming.poller import Poller
from tests.waiting import wait_until

Submit = Callable[..., str]
Serve = Callable[[Flask], str]


@contextmanager
def opened(base: str, job_id: str, last: int | None = None) -> Iterator[Iterator[ServerSentEvent]]:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    with (
        httpx.Client(base_url=base, timeout=20, trust_env=False) as http,
        connect_sse(http, "GET", f"/jobs/{job_id}/stream", headers=headers) as source,
    ):
        assert source.response.status_code == 200
        yield source.iter_sse()


def numbered(events: list[ServerSentEvent]) -> list[int]:
    return [json.loads(event.data)["seq"] for event in events if event.event not in ("snapshot", "progress")]


def test_stream_sends_all_events_until_the_end(
    either_app: Flask, make_worker: Any, submit: Submit, serve: Serve
) -> None:
    worker, base = make_worker(either_app), serve(either_app)
    job_id = submit(either_app.test_client(), epochs=2)

    progress_received = threading.Semaphore(0)

    def train() -> None:
        worker.claim()
        for epoch in (1, 2):
            worker.report(epoch * 85 - 40, steps=170)
            assert progress_received.acquire(timeout=20)  # progress that an epoch overtakes is not sent
            worker.commit_epoch(epoch)
        worker.succeed()

    rest = []
    with opened(base, job_id) as events:
        first = next(events)
        thread = threading.Thread(target=train)
        thread.start()
        for event in events:
            rest.append(event)
            if event.event == "progress":
                progress_received.release()
        thread.join()
    assert first.event == "snapshot"
    assert not first.id
    assert json.loads(first.data)["id"] == job_id
    assert first.retry == 2000
    seqs = numbered(rest)
    assert seqs == list(range(1, len(seqs) + 1))
    assert rest[-1].event == "end"
    assert json.loads(rest[-1].data)["status"] == "succeeded"
    kinds = {event.event for event in rest}
    assert kinds == {"status", "metrics", "sample", "checkpoint", "progress", "end"}
    logged = either_app.test_client().get(f"/jobs/{job_id}/events").json["data"]
    assert [json.loads(event.data) for event in rest if event.event != "progress"] == logged
    progress = [json.loads(event.data) for event in rest if event.event == "progress"]
    assert progress[0]["step"] == 45
    assert progress[0]["eta_seconds"] == 2.5
    assert progress[0]["job"] == job_id
    steps = [item["step"] for item in progress]
    assert steps == sorted(set(steps))
    for event in rest:
        data = json.loads(event.data)
        if event.event == "sample":
            assert either_app.test_client().get(data["url"], buffered=True).status_code == 200


def test_headers_keep_proxies_from_buffering_the_stream(app: Flask, submit: Submit, serve: Serve) -> None:
    job_id = submit(app.test_client())
    with (
        httpx.Client(base_url=serve(app), trust_env=False) as http,
        http.stream("GET", f"/jobs/{job_id}/stream") as answer,
    ):
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-cache, no-transform"
        assert answer.headers["X-Accel-Buffering"] == "no"


def test_stream_cut_twenty_times_sends_each_event_once(
    either_app: Flask, make_worker: Any, submit: Submit, serve: Serve
) -> None:
    worker, base = make_worker(either_app), serve(either_app)
    job_id = submit(either_app.test_client(), epochs=30)
    rng, received = random.Random(4), threading.Semaphore(0)

    def train() -> None:
        worker.claim()
        for epoch in range(1, 31):
            assert received.acquire(timeout=20)  # one epoch for each event, so that most cuts are before the end
            worker.commit_epoch(epoch)
        worker.succeed()

    thread = threading.Thread(target=train)
    thread.start()
    sequence_numbers: list[int] = []
    last: int | None = None
    for cut in range(21):
        with opened(base, job_id, last) as events:
            for count, event in enumerate(events):
                if event.event in ("snapshot", "progress"):
                    assert event.event != "snapshot" or count == 0
                    continue
                last = int(event.id)
                sequence_numbers.append(last)
                received.release()
                if cut < 20 and rng.random() < 0.25:
                    break
    thread.join()
    assert sequence_numbers == list(range(1, 95))


def test_client_that_has_received_the_end_is_told_to_stop(client: FlaskClient, worker: Any, submit: Submit) -> None:
    job_id = submit(client)
    worker.claim()
    worker.succeed()
    last = client.get(f"/jobs/{job_id}/events").json["next_after"]
    path = f"/jobs/{job_id}/stream"
    assert client.get(path, headers={"Last-Event-ID": str(last)}).status_code == 204
    assert client.get(f"{path}?after={last + 5}").status_code == 204
    rest = client.get(f"{path}?after={last - 1}").text
    assert rest.count("\nid: ") == 1
    assert "event: end" in rest
    whole = client.get(path).text
    assert whole.count("\nid: ") == last


def test_end_before_a_retry_does_not_end_the_stream(client: FlaskClient, worker: Any, submit: Submit) -> None:
    job_id = submit(client)
    worker.claim()
    worker.fail()
    client.post(f"/jobs/{job_id}/retry")
    worker.claim()
    worker.succeed()
    text = client.get(f"/jobs/{job_id}/stream").text
    assert text.count("event: end") == 1
    assert text.rstrip().splitlines()[-2] == "event: end"
    superseded = [json.loads(line[6:]) for line in text.splitlines() if '"superseded"' in line]
    assert [(event["type"], event["status"]) for event in superseded] == [("status", "failed")]
    assert text.count("\nid: ") == client.get(f"/jobs/{job_id}/events").json["next_after"]


def test_an_end_stays_the_end_when_the_job_is_renamed_later(client: FlaskClient, worker: Any, submit: Submit) -> None:
    job_id = submit(client)
    worker.claim()
    worker.fail()
    client.post(f"/jobs/{job_id}/retry")
    worker.claim()
    worker.succeed()
    client.patch(f"/jobs/{job_id}", json={"name": "kept"})
    text = client.get(f"/jobs/{job_id}/stream").text
    assert text.count("event: end") == 1
    assert text.count('"superseded"') == 1
    assert text.count("\nid: ") == client.get(f"/jobs/{job_id}/events").json["next_after"]


def test_idle_stream_sends_pings(app: Flask, submit: Submit, serve: Serve) -> None:
    provided(Poller, app).ping_s = 0.2
    job_id = submit(app.test_client())
    with (
        httpx.Client(base_url=serve(app), timeout=10, trust_env=False) as http,
        http.stream("GET", f"/jobs/{job_id}/stream") as answer,
    ):
        lines = answer.iter_lines()
        wait_until(lambda: next(lines) == ": ping", "a ping")


def test_client_that_disconnects_frees_its_slot(app: Flask, submit: Submit, serve: Serve) -> None:
    poller: Poller = provided(Poller, app)
    base, job_id = serve(app), submit(app.test_client())
    for _ in range(3):
        with opened(base, job_id) as events:
            next(events)
            assert poller.clients == 1
        wait_until(lambda: poller.clients == 0, "the place to be free")
    wait_until(lambda: not poller.is_reading, "the reader to end, since nobody watches")


def test_too_many_streams_are_refused_while_other_requests_are_served(app: Flask, submit: Submit, serve: Serve) -> None:
    provided(Poller, app).max_clients = 2
    base, job_id = serve(app), submit(app.test_client())
    with opened(base, job_id) as first, opened(base, job_id) as second:
        next(first)
        next(second)
        refused = httpx.get(f"{base}/jobs/{job_id}/stream", trust_env=False)
        assert (refused.status_code, refused.json()["code"]) == (503, "too_many_streams")
        assert refused.headers["Retry-After"]
        assert httpx.get(f"{base}/jobs", trust_env=False).status_code == 200


def test_streams_of_all_jobs_and_of_one_job_share_a_limit(app: Flask, submit: Submit, serve: Serve) -> None:
    provided(Poller, app).max_clients = 2
    base, job_id = serve(app), submit(app.test_client())
    with (
        httpx.Client(base_url=base, timeout=20, trust_env=False) as http,
        connect_sse(http, "GET", "/stream") as stream,
        opened(base, job_id) as job_events,
    ):
        events = stream.iter_sse()  # kept: deleting it closes the connection
        next(events)
        next(job_events)
        for path in (f"/jobs/{job_id}/stream", "/stream"):
            assert http.get(path).json()["code"] == "too_many_streams"
        # Long polling has no slot either: the client gets a response at once, and can ask again later.
        etag = http.get(f"/jobs/{job_id}").headers["ETag"]
        long_poll = http.get(f"/jobs/{job_id}", headers={"If-None-Match": etag, "Prefer": "wait=19"})
        assert long_poll.status_code == 304
        assert "Preference-Applied" not in long_poll.headers


def test_client_that_does_not_read_delays_no_other_client_and_misses_no_event(
    app: Flask, make_worker: Any, submit: Submit, serve: Serve
) -> None:
    worker, base = make_worker(app), serve(app)
    job_id = submit(app.test_client(), epochs=200)
    worker.claim()
    with opened(base, job_id) as slow, opened(base, job_id) as fast:
        next(slow)
        next(fast)
        metrics = {f"metric_{number}": 0.123456789 for number in range(300)}  # more than socket buffers hold
        for epoch in range(1, 120):
            worker.commit_epoch(epoch, metrics=metrics)
        worker.succeed()
        received = numbered(list(fast))
        assert numbered(list(slow)) == received == list(range(1, len(received) + 1))
    assert len(received) == 2 + 119 * 3 + 2


def test_many_clients_of_one_job_receive_every_event_and_share_its_queries(
    app: Flask, make_worker: Any, submit: Submit, serve: Serve
) -> None:
    worker, base, core = make_worker(app), serve(app), app.extensions[EXTENSION]
    job_id = submit(app.test_client(), epochs=3)
    received: list[list[int]] = [[] for _ in range(20)]
    queries: list[tuple[str, str]] = []

    def watch(seqs: list[int]) -> None:
        with opened(base, job_id) as events:
            for event in events:
                seqs += numbered([event])

    def record_query(connection: Any, cursor: Any, sql: str, *_: Any) -> None:
        if threading.current_thread() is not threading.main_thread():  # where the worker is
            queries.append((threading.current_thread().name, sql))

    threads = [threading.Thread(target=watch, args=(seqs,)) for seqs in received]
    for thread in threads:
        thread.start()
    wait_until(lambda: received == [[1]] * 20, "each client to have the event so far")
    wait_until(lambda: provided(Poller, app)._topics[stream.JOBS, job_id].view.state, "the first poll")
    database_event.listen(core.database.engine, "before_cursor_execute", record_query)
    worker.claim()
    for epoch in (1, 2, 3):
        worker.commit_epoch(epoch)
    worker.succeed()
    for thread in threads:
        thread.join()
    assert received == [list(range(1, 14))] * 20
    assert {thread for thread, _ in queries} == {"streams"}, "no client queries the database by itself"
    assert sum("FROM events" in sql for _, sql in queries) <= 5, "at most one query for each commit"


@pytest.mark.stack
def test_events_in_quick_succession_do_not_wait_for_an_idle_poll(
    app: Flask, make_worker: Any, submit: Submit, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "_ACTIVE_S", 60.0)
    provided(Poller, app)._interval_s = 3600.0
    worker, base = make_worker(app), serve(app)
    job_id = submit(app.test_client(), epochs=1)
    with opened(base, job_id) as events:
        next(events)
        worker.claim()
        assert next(events).event == "status"
        worker.commit_epoch(1)
        wait_until(lambda: next(events).event == "metrics", "the epoch")


@contextmanager
def polls_stopped(poller: Poller, *job_ids: str) -> Iterator[None]:
    """Poll these jobs, and not again until the end of the block."""
    interval_s, is_stopped = poller._interval_until_next, threading.Event()

    def wait_long(source: Any) -> float:
        is_stopped.set()
        return 3600.0

    poller._interval_until_next = wait_long
    wait_until(lambda: all(poller._topics[stream.JOBS, job_id].view.state for job_id in job_ids), "the first poll")
    wait_until(is_stopped.is_set, "the end of the polls")
    yield
    poller._interval_until_next = interval_s
    poller._next_poll = dict.fromkeys(poller._next_poll, 0.0)
    poller._wake_up.set()


def test_burst_of_events_is_delivered_in_full(app: Flask, submit: Submit, serve: Serve, worker: Any) -> None:
    job_id = submit(app.test_client(), epochs=200)
    worker.claim()
    poller: Poller = provided(Poller, app)
    with opened(serve(app), job_id) as events:
        next(events)
        with polls_stopped(poller, job_id):  # more events arrive between two polls than the buffer holds
            for epoch in range(1, 101):
                worker.commit_epoch(epoch)
            worker.succeed()
        assert numbered(list(events)) == list(range(1, 305))


def test_stream_continues_after_a_database_outage(
    app: Flask, submit: Submit, serve: Serve, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(app.test_client())
    database = app.extensions[EXTENSION].database
    read_database, outage, failures = database.read, threading.Event(), []

    def read() -> Any:
        if outage.is_set():
            failures.append(threading.current_thread().name)
            raise OperationalError("SELECT", {}, Exception("gone"))
        return read_database()

    monkeypatch.setattr(database, "read", read)
    with opened(serve(app), job_id) as events:
        next(events)
        outage.set()
        worker.claim()
        worker.succeed()
        wait_until(lambda: failures.count("streams") >= 2, "failed polls")
        outage.clear()
        assert numbered(list(events)) == [1, 2, 3, 4]


def test_failed_poll_repeats_no_event(
    app: Flask, make_worker: Any, submit: Submit, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, base = app.test_client(), serve(app)
    job_ids = [submit(client, epochs=1) for _ in range(2)]
    read_events = stream.events.read
    failed = threading.Event()

    def read(session: Any, job_id: str, **options: Any) -> Any:
        by_reader = threading.current_thread().name == "streams"
        if by_reader and job_id == job_ids[1] and not failed.is_set():
            failed.set()
            raise OperationalError("SELECT", {}, Exception("gone"))
        return read_events(session, job_id, **options)

    monkeypatch.setattr(stream.events, "read", read)
    with opened(base, job_ids[0]) as one, opened(base, job_ids[1]) as two:
        assert [next(one).event, next(one).event, next(two).event, next(two).event] == ["snapshot", "status"] * 2
        workers = [make_worker(app), make_worker(app)]
        with polls_stopped(provided(Poller, app), *job_ids):  # one poll reads new events of both jobs
            for worker in workers:
                worker.claim()
        wait_until(failed.is_set, "the failed poll")
        for worker in workers:
            worker.succeed()
        assert numbered(list(one)) == numbered(list(two)) == [2, 3, 4]


def test_stopping_the_process_ends_the_streams(app: Flask, submit: Submit, serve: Serve) -> None:
    provided(Poller, app).ping_s = 3600.0  # a stream that did not end would be silent, and its client time out
    job_id = submit(app.test_client())
    with opened(serve(app), job_id) as events:
        assert [next(events).event, next(events).event] == ["snapshot", "status"]
        provided(Poller, app).closing = True
        assert list(events) == []


def test_head_request_for_a_stream_takes_no_slot(app: Flask, submit: Submit) -> None:
    client = app.test_client()
    assert client.head(f"/jobs/{submit(client)}/stream").status_code == 200
    assert provided(Poller, app).clients == 0
