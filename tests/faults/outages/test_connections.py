"""Connection outages of workers: databases cut off, silent or locked; brokers killed, failing or silent."""

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
from service.runtime.broker import TRAIN_QUEUE, TRAIN_TASK, send_hints
from service.states import Status
from service.storage.tables import Job, Worker
from tests import brokers
from tests.faults.harness import LONG_LEASE_S, FaultHarness, open_harness
from tests.faults.invariants import Reference
from tests.faults.proxy import Proxy
from tests.waiting import wait_until
from workers.app import create_app

pytestmark = pytest.mark.timeout(400)


def postgres_proxy(url: str) -> tuple[Proxy, str]:
    """Return a proxy in front of a server's Unix socket, and the URL of the database through it."""
    parts = make_url(url)
    folder = str(parts.query["host"])

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"{folder}/.s.PGSQL.5432")
        return connection

    proxy = Proxy(connect)
    return (
        proxy,
        f"postgresql+psycopg://postgres@127.0.0.1:{proxy.port}/{parts.database}?sslmode=disable&gssencmode=disable",
    )


@pytest.fixture
def proxied(tmp_path: Path, postgres_url: str) -> Iterator[tuple[FaultHarness, Proxy]]:
    """Workers that reach PostgreSQL through a proxy; the test itself connects directly."""
    proxy, url = postgres_proxy(postgres_url)
    with closing(proxy), closing(open_harness(tmp_path / "home", postgres_url)) as harness:
        harness.extra_environ["TAPELINE_DATABASE_URL"] = url
        yield harness, proxy
        proxy.refusing = proxy.silent = False


@pytest.mark.nightly
def test_a_job_survives_a_connection_killed_inside_an_epochs_commit(
    proxied: tuple[FaultHarness, Proxy], reference: Reference
) -> None:
    """F13."""
    harness, _ = proxied
    harness.submit()
    harness.arm("epoch_committing.2", "stop")
    harness.start()
    child = harness.until_reached("epoch_committing.2")
    with harness.database.write() as session:
        terminate = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'tapeline-worker' AND datname = current_database()"
        )
        assert session.execute(text(terminate)).all()
    os.kill(child, signal.SIGCONT)
    harness.until_all_end()
    assert harness.worker_losses() == 0, "the child asked again"
    harness.check(reference)


@pytest.mark.stack
def test_a_commit_without_confirmation_counts_once(proxied: tuple[FaultHarness, Proxy], reference: Reference) -> None:
    """F15: the proxy forwards COMMIT and cuts the connection."""
    harness, proxy = proxied
    harness.submit()
    harness.arm("epoch_committing.2", "stop")
    harness.start()
    child = harness.until_reached("epoch_committing.2")
    proxy.cut_after = b"COMMIT"
    os.kill(child, signal.SIGCONT)
    harness.until_all_end()
    assert proxy.cuts == 1
    assert harness.worker_losses() == 0
    harness.check(reference)


@pytest.mark.nightly
def test_an_outage_longer_than_the_lease_does_not_count_as_a_loss(
    proxied: tuple[FaultHarness, Proxy], reference: Reference
) -> None:
    """F14: no mass rescue afterwards, and each job is claimed at most twice more."""
    harness, proxy = proxied
    for _ in range(2):
        harness.submit()
    harness.arm("epoch_trained.2", "stop")
    harness.start("workers.scheduler")
    workers = [harness.start() for _ in range(2)]
    child = harness.until_reached("epoch_trained.2")
    proxy.silent = True
    os.kill(child, signal.SIGCONT)
    harness.until_leases_are_overdue(harness.lease_s)
    proxy.silent = False
    proxy.drop()
    harness.until_all_end()
    assert all(worker.poll() is None for worker in workers)
    assert harness.worker_losses() == 0
    assert max(harness.job(job_id).lease for job_id in harness.accepted) <= 3
    harness.check(reference)


@pytest.mark.nightly
def test_jobs_survive_a_sqlite_file_locked_longer_than_the_lease(
    sqlite_harness: FaultHarness, reference: Reference
) -> None:
    """F16."""
    job_id = sqlite_harness.submit()
    sqlite_harness.arm("epoch_trained.2", "stop")
    sqlite_harness.start("workers.scheduler")
    sqlite_harness.start()
    child = sqlite_harness.until_reached("epoch_trained.2")
    path = make_url(sqlite_harness.database.url).database
    assert path is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
        blocker.execute("BEGIN EXCLUSIVE")
        os.kill(child, signal.SIGCONT)
        sqlite_harness.until_leases_are_overdue(sqlite_harness.lease_s)
        blocker.execute("ROLLBACK")
    sqlite_harness.until_all_end()
    assert sqlite_harness.worker_losses() == 0
    assert sqlite_harness.job(job_id).lease <= 2
    sqlite_harness.check(reference)


@pytest.fixture
def broker(sqlite_harness: FaultHarness) -> Iterator[Broker]:
    with brokers.serve(sqlite_harness.home) as broker:
        sqlite_harness.extra_environ["TAPELINE_BROKER_URL"] = broker.url
        yield broker


def kill_broker(broker: Broker) -> None:
    os.kill(broker.child.pid, signal.SIGKILL)
    broker.child.wait(5)


def send_command(broker: Broker, command: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(broker.socket))
        raw.sendall(command + b"\r\n")
        return raw.recv(100)


def has_consumer(broker: Broker) -> bool:
    """Whether Celery has bound its queue."""
    return b":1" in send_command(broker, b"SCARD _kombu.binding." + TRAIN_QUEUE.encode())


@pytest.mark.stack
def test_a_broker_killed_four_times_only_delays_jobs(
    sqlite_harness: FaultHarness, broker: Broker, reference: Reference
) -> None:
    """F07: two children are busy, one more job waits, and the broker dies and restarts at random moments."""
    sqlite_harness.lease_s = LONG_LEASE_S
    rng = random.Random(7)
    worker = sqlite_harness.start(TAPELINE_WORKERS="2")
    sqlite_harness.submit()
    sqlite_harness.until_all_end()
    for _ in range(4):
        while sum(sqlite_harness.job(job_id).finished_ms is None for job_id in sqlite_harness.accepted) < 3:
            sqlite_harness.submit()
        time.sleep(rng.uniform(0, 0.5))  # kills at times that nobody chose
        kill_broker(broker)
        time.sleep(rng.uniform(0, 0.5))  # the duration of the outage
        brokers.start(broker)
    sqlite_harness.until_all_end()
    sqlite_harness.until_end(sqlite_harness.submit())
    assert worker.poll() is None
    assert all(sqlite_harness.job(job_id).lease == 1 for job_id in sqlite_harness.accepted)
    sqlite_harness.check(reference)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("break_command", "repair_command"),
    [
        (b"REPLICAOF 127.0.0.1 1", b"REPLICAOF NO ONE"),
        (b"ACL SETUSER default -brpop", b"ACL SETUSER default +brpop"),
    ],
    ids=["read-only", "no permission to take"],
)
def test_a_broker_that_answers_with_errors_only_delays_jobs(
    sqlite_harness: FaultHarness,
    broker: Broker,
    reference: Reference,
    break_command: bytes,
    repair_command: bytes,
) -> None:
    """F07b: Celery exits on such errors of the broker; a worker must not."""
    sqlite_harness.lease_s = LONG_LEASE_S
    worker = sqlite_harness.start(TAPELINE_WORKERS="2")
    sqlite_harness.submit()
    sqlite_harness.until_all_end()
    wait_until(lambda: has_consumer(broker), "Celery, without which the job has ended")
    running = sqlite_harness.submit()
    assert send_command(broker, break_command).startswith(b"+OK")
    sqlite_harness.submit()
    sqlite_harness.until_all_end()
    log = sqlite_harness.home / "workers.log"
    wait_until(
        lambda: worker.poll() is not None or log.read_text().count("Connection to broker lost") >= 3,
        "Celery to fail repeatedly",
    )
    assert worker.poll() is None
    sqlite_harness.until_end(sqlite_harness.submit())
    assert send_command(broker, repair_command).startswith(b"+OK")
    sqlite_harness.until_end(sqlite_harness.submit())
    assert worker.poll() is None
    assert sqlite_harness.job(running).lease == 1, "a running job was interrupted"
    sqlite_harness.check(reference)


@pytest.mark.nightly
def test_a_worker_survives_the_end_of_celery(
    sqlite_harness: FaultHarness, broker: Broker, reference: Reference
) -> None:
    sqlite_harness.patch(
        "from celery.worker.consumer import Consumer\n"
        "start, failures = Consumer.start, iter(range(2))\n"
        "def fail(self):\n"
        "    if next(failures, None) is not None:\n"
        "        raise RuntimeError('celery fails')\n"
        "    return start(self)\n"
        "Consumer.start = fail\n"
    )
    worker = sqlite_harness.start(TAPELINE_WORKERS="2")
    sqlite_harness.until_end(sqlite_harness.submit())
    wait_until(lambda: has_consumer(broker), "Celery again")
    sqlite_harness.until_end(sqlite_harness.submit())
    assert worker.poll() is None
    sqlite_harness.check(reference)


@pytest.mark.nightly
def test_without_database_polling_a_job_with_a_lost_message_waits(sqlite_harness: FaultHarness, broker: Broker) -> None:
    """F07 and F08 with polling disabled: a job whose message was lost waits until another one is sent."""
    sqlite_harness.patch("from workers.supervisor import supervisor\nsupervisor.DATABASE_POLL_INTERVAL_S = 3600.0\n")
    sqlite_harness.add_failpoint("polled", "workers.supervisor.supervisor:Supervisor.run_waiting_jobs", after=True)
    sqlite_harness.arm("polled", "note")
    sqlite_harness.start()
    sqlite_harness.until_reached("polled")  # the only poll, at its start
    job_id = sqlite_harness.submit()
    wait_until(lambda: has_consumer(broker), "Celery, whose start polls nothing, either")
    assert (sqlite_harness.job(job_id).status, sqlite_harness.job(job_id).lease) == (Status.QUEUED, 0)
    send_hints(create_app(broker.url), [job_id])
    sqlite_harness.until_end(job_id)


class MaliciousPayload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def send_invalid_messages(sqlite_harness: FaultHarness, broker: Broker, trace: Path) -> None:
    """Send hundreds of stale messages, several malformed ones, and a pickle that runs code."""
    sender = create_app(broker.url)
    with sender.connection_for_write() as connection:
        producer = connection.Producer(serializer="json")
        for number in range(300):
            producer.publish(
                [[sqlite_harness.accepted[0]], {}, {}],
                routing_key=TRAIN_QUEUE,
                headers={"task": TRAIN_TASK, "id": str(number)},
            )
        for body in ([["job_x"], {"a": 1}, {}], {"not": "a task"}, [[1, 2, 3], {}, {}], 5, "x", None, [], [1, 2, 3]):
            producer.publish(body, routing_key=TRAIN_QUEUE, headers={"task": TRAIN_TASK, "id": "1"})
        producer.publish(
            pickle.dumps([[MaliciousPayload(trace)], {}, {}]),
            routing_key=TRAIN_QUEUE,
            content_type="application/x-python-serialize",
            content_encoding="binary",
            headers={"task": TRAIN_TASK, "id": "2"},
        )
    wait_until(
        lambda: send_command(broker, b"LLEN " + TRAIN_QUEUE.encode()).startswith(b":0\r"),
        "an empty queue",
        60,
    )


@pytest.mark.stack
def test_repeated_foreign_and_malicious_messages_have_no_effect(
    sqlite_harness: FaultHarness, broker: Broker, reference: Reference
) -> None:
    """F11 and F12."""
    sqlite_harness.lease_s = LONG_LEASE_S
    sqlite_harness.submit()
    worker = sqlite_harness.start(TAPELINE_WORKERS="4")  # with one slot, Celery consumes two messages per second
    sqlite_harness.until_all_end()
    trace = sqlite_harness.home / "evil"
    send_invalid_messages(sqlite_harness, broker, trace)
    sqlite_harness.until_end(sqlite_harness.submit())
    assert worker.poll() is None
    assert not trace.exists(), "F11: a message was unpickled"
    assert all(sqlite_harness.job(job_id).lease == 1 for job_id in sqlite_harness.accepted)
    sqlite_harness.check(reference)


@pytest.mark.nightly
def test_if_pickles_are_accepted_the_malicious_message_is_executed(
    sqlite_harness: FaultHarness, broker: Broker
) -> None:
    """F11 with a deliberate defect: pickles are accepted."""
    sqlite_harness.patch(
        "from service.runtime import broker\nbroker.CELERY_OPTIONS['accept_content'] = ['json', 'pickle']\n"
    )
    sqlite_harness.submit()
    sqlite_harness.start(C_FORCE_ROOT="1", TAPELINE_WORKERS="4")  # otherwise, Celery refuses to unpickle as root
    sqlite_harness.until_all_end()
    trace = sqlite_harness.home / "evil"
    send_invalid_messages(sqlite_harness, broker, trace)
    wait_until(trace.exists, "the evil message's trace", 20)


@pytest.mark.nightly
def test_a_silent_broker_blocks_neither_jobs_nor_the_shutdown(
    sqlite_harness: FaultHarness, broker: Broker, reference: Reference
) -> None:
    """F10: a half-open connection, which stays open but delivers nothing, and later works again."""

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(broker.socket))
        return connection

    proxy = Proxy(connect)
    sqlite_harness.extra_environ["TAPELINE_BROKER_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
    sqlite_harness.submit()
    worker = sqlite_harness.start()
    sqlite_harness.until_all_end()
    proxy.silent = True
    sqlite_harness.until_end(sqlite_harness.submit())
    proxy.silent = False
    proxy.drop()
    sqlite_harness.until_end(sqlite_harness.submit())
    proxy.silent = True
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    proxy.close()
    sqlite_harness.check(reference)


@pytest.mark.nightly
def test_a_silent_broker_does_not_block_the_rescue_of_a_dead_workers_job(
    sqlite_harness: FaultHarness, reference: Reference
) -> None:
    """F10: the scheduler has messages to send, and each of them waits for the broker."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        sqlite_harness.lease_s = 12
        claimed_id = sqlite_harness.submit()
        sqlite_harness.submit()
        assert leases.claim(sqlite_harness.database, "dead", sqlite_harness.lease_s) is not None
        idle_worker = Worker(id="free", host="h", pid=1, slots=4, running=0, draining=False)
        worker_registry.record_heartbeat(sqlite_harness.database, idle_worker)
        with sqlite_harness.database.write() as session:
            session.execute(update(Job).where(Job.id != claimed_id).values(queued_ms=Job.queued_ms - 60_000))
        sqlite_harness.start("workers.scheduler", TAPELINE_BROKER_URL=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        sqlite_harness.until(claimed_id, lambda job: job.status == Status.QUEUED, 2 * sqlite_harness.lease_s + 10)
        worker_registry.deregister(sqlite_harness.database, idle_worker.id)
        sqlite_harness.start()
        sqlite_harness.until_all_end()
    sqlite_harness.check(reference)
