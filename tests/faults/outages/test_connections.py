"""Outages of the connections of workers: databases cut, silent or locked; brokers killed, emptied or silent."""

from __future__ import annotations

import os
import pickle
import random
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url, text, update

from service.jobs import leases, worker_registry
from service.local.broker import Broker
from service.runtime import task_names
from service.states import Status
from service.storage.tables import Job, Worker
from tests.faults.harness import FaultHarness, open_harness, wait_until
from tests.faults.invariants import Reference
from tests.faults.proxy import Proxy
from workers.app import create_app, wake

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


def postgres_proxy(url: str) -> tuple[Proxy, str]:
    """A proxy before a server's unix socket, and the database's URL by way of it."""
    parts = make_url(url)
    folder = str(parts.query["host"])

    def connect() -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.connect(f"{folder}/.s.PGSQL.5432")
        return made

    proxy = Proxy(connect)
    return (
        proxy,
        f"postgresql+psycopg://postgres@127.0.0.1:{proxy.port}/{parts.database}?sslmode=disable&gssencmode=disable",
    )


@pytest.fixture
def proxied(tmp_path: Path, postgres_url: str) -> Iterator[tuple[FaultHarness, Proxy]]:
    """Workers that reach PostgreSQL by way of a proxy; the test itself goes straight there."""
    made = open_harness(tmp_path / "home", postgres_url)
    proxy, url = postgres_proxy(postgres_url)
    made.extra["TAPELINE_DATABASE_URL"] = url
    yield made, proxy
    proxy.refusing = proxy.silent = False
    made.stop()
    proxy.close()
    made.database.close()


def test_a_connection_killed_inside_an_epochs_commit(proxied: tuple[FaultHarness, Proxy], reference: Reference) -> None:
    """F13."""
    harness, _ = proxied
    harness.submit()
    harness.arm("epoch_committing.2", "stop")
    harness.start()
    child = harness.until_struck("epoch_committing.2")
    with harness.database.write() as session:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tapeline-child'"
        assert session.execute(text(cut)).all()
    os.kill(child, signal.SIGCONT)
    harness.until_all_end()
    assert harness.deaths() == 0, "the child asked again"
    harness.check(reference)


@pytest.mark.parametrize("place", ["epoch_committing.2", "succeeding"])
def test_a_commit_without_confirmation_counts_once(
    proxied: tuple[FaultHarness, Proxy], reference: Reference, place: str
) -> None:
    """F15: the proxy passes COMMIT on and cuts the connection."""
    harness, proxy = proxied
    harness.submit()
    harness.arm(place, "stop")
    harness.start()
    child = harness.until_struck(place)
    proxy.cut_after = b"COMMIT"
    os.kill(child, signal.SIGCONT)
    harness.until_all_end()
    assert proxy.cuts == 1
    assert harness.deaths() == 0
    harness.check(reference)


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_an_outage_longer_than_the_lease_does_not_count_as_a_loss(
    proxied: tuple[FaultHarness, Proxy], reference: Reference, how: str
) -> None:
    """F14: no mass rescue afterwards, and each job is claimed at most once more."""
    harness, proxy = proxied
    for _ in range(2):
        harness.submit()
    harness.arm("epoch_trained.2", "stop")
    harness.start("workers.reconcile")
    workers = [harness.start() for _ in range(2)]
    child = harness.until_struck("epoch_trained.2")
    setattr(proxy, "refusing" if how == "refused" else "silent", True)
    if how == "refused":
        proxy.drop()
    os.kill(child, signal.SIGCONT)
    time.sleep(3 * harness.lease_s)
    proxy.refusing = proxy.silent = False
    proxy.drop()
    harness.until_all_end()
    assert all(worker.poll() is None for worker in workers)
    assert harness.deaths() == 0
    assert max(harness.job(job_id).lease for job_id in harness.accepted) <= 3
    harness.check(reference)


def test_a_sqlite_file_locked_longer_than_the_lease(light: FaultHarness, reference: Reference) -> None:
    """F16."""
    job_id = light.submit()
    light.arm("epoch_trained.2", "stop")
    light.start("workers.reconcile")
    light.start()
    child = light.until_struck("epoch_trained.2")
    path = make_url(light.database.url).database
    assert path is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as third:
        third.execute("BEGIN EXCLUSIVE")
        os.kill(child, signal.SIGCONT)
        time.sleep(3 * light.lease_s)
        third.execute("ROLLBACK")
    light.until_all_end()
    assert light.deaths() == 0
    assert light.job(job_id).lease <= 2
    light.check(reference)


@pytest.fixture
def broker(light: FaultHarness) -> Iterator[Broker]:
    made = Broker(light.home, log=light.home / "broker.log", environ=os.environ)
    start(made)
    light.extra["TAPELINE_BROKER_URL"] = made.url
    yield made
    made.child.terminate()
    made.child.end(5)


def start(broker: Broker) -> None:
    broker.prepare()
    broker.child.start()
    broker.wait_until_ready()


def kill(broker: Broker) -> None:
    os.kill(broker.child.pid, signal.SIGKILL)
    broker.child.wait(5)


def ask(broker: Broker, command: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(broker.socket))
        raw.sendall(command + b"\r\n")
        return raw.recv(100)


def test_a_broker_killed_ten_times_delays_jobs_and_no_more(
    light: FaultHarness, broker: Broker, reference: Reference
) -> None:
    """F07: two children busy, one job more waits, and the broker dies and comes back at random moments."""
    rng = random.Random(7)
    worker = light.start(TAPELINE_WORKERS="2")
    light.submit()
    light.until_all_end()
    for _ in range(10):
        while sum(light.job(job_id).finished_ms is None for job_id in light.accepted) < 3:
            light.submit()
        time.sleep(rng.uniform(0, 0.5))
        kill(broker)
        time.sleep(rng.uniform(0, 0.5))
        start(broker)
    began = time.monotonic()
    light.until_all_end()
    light.until_end(light.submit())
    assert time.monotonic() - began < 30
    assert worker.poll() is None
    assert all(light.job(job_id).lease == 1 for job_id in light.accepted)
    light.check(reference)


@pytest.mark.parametrize(
    ("breaks", "mends"),
    [
        (b"REPLICAOF 127.0.0.1 1", b"REPLICAOF NO ONE"),
        (b"CONFIG SET maxmemory 1", b"CONFIG SET maxmemory 0"),
        (b"ACL SETUSER default -brpop", b"ACL SETUSER default +brpop"),
        (b"ACL SETUSER default -@write", b"ACL SETUSER default +@all"),
    ],
    ids=["read-only", "full", "no permission to take", "no permission to write"],
)
def test_a_broker_that_answers_with_errors_delays_jobs_and_no_more(
    light: FaultHarness, broker: Broker, reference: Reference, breaks: bytes, mends: bytes
) -> None:
    """Celery takes the broker's errors for its own end; a worker must not."""
    worker = light.start(TAPELINE_WORKERS="2")
    light.submit()
    light.until_all_end()
    running = light.submit()
    assert ask(broker, breaks).startswith(b"+OK")
    began = time.monotonic()
    light.submit()
    light.until_all_end()
    while time.monotonic() - began < 12:  # Celery has tried again by now, and failed
        assert worker.poll() is None
        time.sleep(0.2)
    light.until_end(light.submit())
    assert ask(broker, mends).startswith(b"+OK")
    light.until_end(light.submit())
    assert worker.poll() is None
    assert light.job(running).lease == 1, "a running job was interrupted"
    light.check(reference)


def test_a_worker_outlives_a_celery_that_ends(light: FaultHarness, broker: Broker, reference: Reference) -> None:
    light.patch(
        "from celery.worker.consumer import Consumer\n"
        "start, failures = Consumer.start, iter(range(2))\n"
        "def fail(self):\n"
        "    if next(failures, None) is not None:\n"
        "        raise RuntimeError('celery fails')\n"
        "    return start(self)\n"
        "Consumer.start = fail\n"
    )
    worker = light.start(TAPELINE_WORKERS="2")
    light.until_end(light.submit())
    wait_until(
        lambda: b":1" in ask(broker, b"SCARD _kombu.binding." + task_names.TRAIN_QUEUE.encode()), "Celery again", 30
    )
    light.until_end(light.submit())
    assert worker.poll() is None
    light.check(reference)


def test_without_the_look_at_the_database_a_lost_message_is_found_out(light: FaultHarness, broker: Broker) -> None:
    """F07 and F08 once more, the timer switched off: a job whose message was lost waits for ever."""
    light.patch("from workers.supervisor import supervisor\nsupervisor.DATABASE_POLL_INTERVAL_S = 3600.0\n")
    light.start()
    for pause in (2, 6, 12):  # until the looks at its start, and after a job, are over
        time.sleep(pause)
        job_id = light.submit()
        time.sleep(5)
        if not light.job(job_id).lease:
            break
        light.until_end(job_id)
    assert light.job(job_id).status == Status.QUEUED
    wake(create_app(broker.url), job_id)
    light.until_end(job_id)


class Evil:
    """Once unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def feed_rubbish(light: FaultHarness, broker: Broker, trace: Path) -> None:
    """Hundreds of hints that are out of date, hints that are none, and one that is a program."""
    sender = create_app(broker.url)
    with sender.connection_for_write() as connection:
        producer = connection.Producer(serializer="json")
        for number in range(300):
            producer.publish(
                [[light.accepted[0]], {}, {}],
                routing_key=task_names.TRAIN_QUEUE,
                headers={"task": task_names.TRAIN_TASK, "id": str(number)},
            )
        for body in ([["job_x"], {"a": 1}, {}], {"not": "a task"}, [[1, 2, 3], {}, {}], 5, "x", None, [], [1, 2, 3]):
            producer.publish(
                body, routing_key=task_names.TRAIN_QUEUE, headers={"task": task_names.TRAIN_TASK, "id": "1"}
            )
        producer.publish(
            pickle.dumps([[Evil(trace)], {}, {}]),
            routing_key=task_names.TRAIN_QUEUE,
            content_type="application/x-python-serialize",
            content_encoding="binary",
            headers={"task": task_names.TRAIN_TASK, "id": "2"},
        )
    wait_until(
        lambda: ask(broker, b"LLEN " + task_names.TRAIN_QUEUE.encode()).startswith(b":0\r"), "an empty queue", 60
    )


def test_repeated_foreign_and_evil_messages_do_nothing(
    light: FaultHarness, broker: Broker, reference: Reference
) -> None:
    """F11 and F12."""
    light.submit()
    worker = light.start(TAPELINE_WORKERS="4")  # with one slot, Celery takes two messages a second
    light.until_all_end()
    trace = light.home / "evil"
    feed_rubbish(light, broker, trace)
    light.until_end(light.submit())
    assert worker.poll() is None
    assert not trace.exists(), "F11: a message was unpickled"
    assert all(light.job(job_id).lease == 1 for job_id in light.accepted)
    light.check(reference)


def test_where_pickles_are_taken_the_evil_message_is_found_out(light: FaultHarness, broker: Broker) -> None:
    """F11 once more, the check switched off: it must turn red."""
    light.patch(
        "from service.runtime import task_names\ntask_names.CELERY_OPTIONS['accept_content'] = ['json', 'pickle']\n"
    )
    light.submit()
    light.start(C_FORCE_ROOT="1", TAPELINE_WORKERS="4")  # Celery itself refuses to be root and unpickle
    light.until_all_end()
    trace = light.home / "evil"
    feed_rubbish(light, broker, trace)
    wait_until(trace.exists, "the evil message's trace", 20)


def test_messages_that_were_all_lost_delay_jobs_and_no_more(
    light: FaultHarness, broker: Broker, reference: Reference
) -> None:
    """F08."""
    sender = create_app(broker.url)
    for _ in range(8):
        wake(sender, light.submit())
    assert ask(broker, b"FLUSHALL").startswith(b"+OK")
    light.start(TAPELINE_WORKERS="2")
    light.until_all_end()
    light.check(reference)


def test_a_silent_broker_delays_no_request(light: FaultHarness, broker: Broker, reference: Reference) -> None:
    """F10: half-open. The connection stands, and nothing comes; then it does again."""

    def connect() -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.connect(str(broker.socket))
        return made

    proxy = Proxy(connect)
    light.extra["TAPELINE_BROKER_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
    light.submit()
    worker = light.start()
    light.until_all_end()
    proxy.silent = True
    light.until_end(light.submit())
    proxy.silent = False
    proxy.drop()
    light.until_end(light.submit())
    proxy.silent = True
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    proxy.close()
    light.check(reference)


def test_a_silent_broker_keeps_no_dead_workers_job(light: FaultHarness, reference: Reference) -> None:
    """F10: the scheduler has hints to send, and each waits for the broker."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        light.lease_s = 12
        held = light.submit()
        light.submit()
        assert leases.claim(light.database, "dead", light.lease_s) is not None
        free = Worker(id="free", host="h", pid=1, slots=4, running=0, draining=False)
        worker_registry.record_heartbeat(light.database, free)
        with light.database.write() as session:
            session.execute(update(Job).where(Job.id != held).values(queued_ms=Job.queued_ms - 60_000))
        light.start("workers.reconcile", TAPELINE_BROKER_URL=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        light.until(held, lambda job: job.status == Status.QUEUED, 2 * light.lease_s + 10)
        worker_registry.deregister(light.database, free.id)
        light.start()
        light.until_all_end()
    light.check(reference)
