"""Real processes are killed, stopped, and cut off from what they need."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url, text

from service.contract import jobs, wire
from service.contract.failpoints import VARIABLE
from service.contract.states import Status
from service.local.broker import Broker
from tests.faults.oracle import Reference
from tests.faults.proxy import Proxy
from tests.faults.yard import QUICK, Yard, all_gone, kill_group, open_yard, wait_until
from tests.workers.conftest import children_of
from workers.app import create_app, wake

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """From a child, whose BLAS has one thread: in the tests' own process it may have more, and other bits."""
    home = tmp_path_factory.mktemp("reference") / "home"
    made = open_yard(home, f"sqlite:///{home.parent / 'tapeline.db'}")
    made.submit()
    made.start()
    made.until_all_end()
    found = Reference.of(made.database, made.accepted[0])
    made.check(found)
    made.database.close()
    return found


@pytest.fixture
def yard(tmp_path: Path, database_url: str) -> Iterator[Yard]:
    made = open_yard(tmp_path / "home", database_url)
    yield made
    made.stop()
    made.database.close()


@pytest.fixture
def light(tmp_path: Path) -> Iterator[Yard]:
    """On SQLite alone, for what does not hang on the database."""
    made = open_yard(tmp_path / "home", f"sqlite:///{tmp_path / 'tapeline.db'}")
    yield made
    made.stop()
    made.database.close()


BEFORE_THE_COMMIT = [
    ["began", "restored", "batch_done"],
    ["epoch_trained", "file_written.checkpoint", "file_renamed.sample"],
    ["files_stored", "epoch_committing", "file_renamed.checkpoint"],
]


def test_children_killed_at_every_point_of_every_epoch_cost_no_bit(yard: Yard, reference: Reference) -> None:
    """F01. Each kill before an epoch's commit is followed by one right after it: three in a row would be poison."""
    for _ in BEFORE_THE_COMMIT:
        yard.submit()
    yard.start()
    kills = 0
    for places in BEFORE_THE_COMMIT:
        for epoch, place in enumerate(places, 1):
            in_epoch = place in ("batch_done", "epoch_trained", "files_stored", "epoch_committing")
            for point in (f"{place}.{epoch}" if in_epoch else place, f"epoch_committed.{epoch}"):
                yard.arm(point)
                pid = yard.until_struck(point)
                wait_until(lambda: all_gone([pid]), "the kill")  # noqa: B023 - it is asked at once
                kills += 1
        yard.arm("succeeding")
        yard.until_struck("succeeding")
        kills += 1
    yard.until_all_end()
    assert yard.deaths() == kills == 21
    yard.check(reference)


@pytest.mark.parametrize("place", ["claimed", "succeeded"])
def test_a_worker_killed_there_is_replaced_by_another(yard: Yard, reference: Reference, place: str) -> None:
    """F02."""
    yard.submit()
    yard.arm(place)
    worker = yard.start()
    pid = yard.until_struck(place)
    children = [pid, *children_of(worker.pid)]
    kill_group(worker)
    wait_until(lambda: all_gone(children), "the end of all children", 5)
    yard.start("workers.reconcile")
    yard.start()
    yard.until_all_end()
    assert yard.job(yard.accepted[0]).lease == (2 if place == "claimed" else 1)
    yard.check(reference)


def test_a_power_cut_of_all_workers_with_jobs_under_way(yard: Yard, reference: Reference) -> None:
    """F03."""
    for _ in range(4):
        yard.submit()
    workers = [yard.start() for _ in range(2)]
    yard.until(yard.accepted[0], lambda job: job.epoch >= 1)
    for worker in workers:
        kill_group(worker)
    yard.start("workers.reconcile")
    for _ in range(2):
        yard.start()
    yard.until_all_end()
    yard.check(reference)


def freeze(yard: Yard, reference: Reference) -> None:
    """A worker stands still in the middle of an epoch's commit, and comes back once somebody else has done its job."""
    job_id = yard.submit()
    yard.arm("files_stored.2", "stop")
    worker = yard.start()
    child = yard.until_struck("files_stored.2")
    os.kill(worker.pid, signal.SIGSTOP)
    yard.start("workers.reconcile")
    yard.start()
    yard.until_end(job_id)
    before = [(event.seq, event.type) for event in yard.log(job_id)]
    os.kill(child, signal.SIGCONT)
    os.kill(worker.pid, signal.SIGCONT)
    wait_until(lambda: all_gone([child]), "the frozen child's end", 20)
    assert [(event.seq, event.type) for event in yard.log(job_id)] == before, "F04: the frozen worker wrote"
    assert yard.job(job_id).lease == 2
    yard.check(reference)


def test_a_worker_that_was_frozen_longer_than_its_lease_changes_nothing(yard: Yard, reference: Reference) -> None:
    """F04."""
    freeze(yard, reference)


UNFENCED = '''
"""Loaded by every Python that starts: takes the fence out, so that the suite can be seen to turn red."""
import sys
if "workers" in " ".join(sys.orig_argv):
    from service.contract import leases
    from service.contract.tables import Job
    def unfenced(session, held, **values):
        job = session.get_one(Job, held.job_id)
        for name, value in values.items():
            setattr(job, name, value)
        job.lease_expires_ms = leases._expiry(held.lease_s)
        return job
    leases._guard = unfenced
'''


def test_without_the_fence_the_frozen_worker_is_found_out(light: Yard, reference: Reference, tmp_path: Path) -> None:
    """F04 once more, the fence switched off: it must turn red."""
    folder = tmp_path / "unfenced"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(UNFENCED)
    light.extra["PYTHONPATH"] = os.pathsep.join([str(folder), str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    with pytest.raises(AssertionError, match=r"F04|end"):
        freeze(light, reference)


@pytest.mark.parametrize("place", ["handing_back", "handed_back"])
def test_a_drain_that_is_cut_short_loses_nothing(yard: Yard, reference: Reference, place: str) -> None:
    """F06: SIGTERM, and the child dies while it hands back."""
    job_id = yard.submit(epochs=3)
    yard.arm("batch_done.2", "stop")
    yard.arm(place)
    worker = yard.start()
    child = yard.until_struck("batch_done.2")
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.6)  # the order to stop is in the pipe by then
    os.kill(child, signal.SIGCONT)
    yard.until_struck(place)
    assert worker.wait(20) == 0
    assert yard.job(job_id).status == Status.QUEUED
    yard.start()
    yard.until_all_end()
    yard.check(reference)


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
def proxied(tmp_path: Path, postgres_url: str) -> Iterator[tuple[Yard, Proxy]]:
    """Workers that reach PostgreSQL by way of a proxy; the test itself goes straight there."""
    made = open_yard(tmp_path / "home", postgres_url)
    proxy, url = postgres_proxy(postgres_url)
    made.extra["TAPELINE_DATABASE_URL"] = url
    yield made, proxy
    proxy.refusing = proxy.silent = False
    made.stop()
    proxy.close()
    made.database.close()


def test_a_connection_killed_inside_an_epochs_commit(proxied: tuple[Yard, Proxy], reference: Reference) -> None:
    """F13."""
    yard, _ = proxied
    yard.submit()
    yard.arm("epoch_committing.2", "stop")
    yard.start()
    child = yard.until_struck("epoch_committing.2")
    with yard.database.write() as session:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tapeline-child'"
        assert session.execute(text(cut)).all()
    os.kill(child, signal.SIGCONT)
    yard.until_all_end()
    assert yard.deaths() == 0, "the child asked again"
    yard.check(reference)


@pytest.mark.parametrize("place", ["epoch_committing.2", "succeeding"])
def test_a_commit_of_which_nobody_hears_counts_once(
    proxied: tuple[Yard, Proxy], reference: Reference, place: str
) -> None:
    """F15: the proxy passes COMMIT on and cuts the connection."""
    yard, proxy = proxied
    yard.submit()
    yard.arm(place, "stop")
    yard.start()
    child = yard.until_struck(place)
    proxy.cut_after = b"COMMIT"
    os.kill(child, signal.SIGCONT)
    yard.until_all_end()
    assert proxy.cuts == 1
    assert yard.deaths() == 0
    yard.check(reference)


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_an_outage_longer_than_the_lease_is_nobodys_death(
    proxied: tuple[Yard, Proxy], reference: Reference, how: str
) -> None:
    """F14: no mass rescue afterwards, and each job is claimed at most once more."""
    yard, proxy = proxied
    for _ in range(2):
        yard.submit()
    yard.arm("batch_done.2", "stop")
    yard.start("workers.reconcile")
    workers = [yard.start() for _ in range(2)]
    child = yard.until_struck("batch_done.2")
    setattr(proxy, "refusing" if how == "refused" else "silent", True)
    if how == "refused":
        proxy.drop()
    os.kill(child, signal.SIGCONT)
    time.sleep(3 * yard.lease_s)
    proxy.refusing = proxy.silent = False
    proxy.drop()
    yard.until_all_end()
    assert all(worker.poll() is None for worker in workers)
    assert yard.deaths() == 0
    assert max(yard.job(job_id).lease for job_id in yard.accepted) <= 3
    yard.check(reference)


def test_a_sqlite_file_locked_longer_than_the_lease(light: Yard, reference: Reference) -> None:
    """F16."""
    job_id = light.submit()
    light.arm("batch_done.2", "stop")
    light.start("workers.reconcile")
    light.start()
    child = light.until_struck("batch_done.2")
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
def small_disk(light: Yard) -> Iterator[Path]:
    """The artifact folder on a disk of its own with room for two checkpoints; as root only."""
    folder = light.settings.artifacts
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], check=False)
    if not done or done.returncode:
        pytest.skip("a small disk cannot be mounted here (it takes root)")
    yield folder
    light.stop()
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_what_is_there_and_more_room_lets_the_job_go_on(
    light: Yard, small_disk: Path, reference: Reference
) -> None:
    """F17."""
    job_id = light.submit()
    worker = light.start()
    job = light.until_end(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == (Status.FAILED, "storage")
    assert worker.poll() is None
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    jobs.retry(light.database, job_id)
    light.until(job_id, lambda job: job.status == Status.SUCCEEDED, 60)
    light.check(reference)


def test_copies_of_a_running_service_taken_at_any_moment_go_on_to_the_same_end(
    light: Yard, reference: Reference, tmp_path: Path
) -> None:
    """F20, a power cut approximated: all processes stand still, the disk is copied, and the copy is started."""
    light.submit()
    places = ("file_written.checkpoint", "epoch_committing.2", "epoch_committed.3")
    copies = []
    for place in places:
        light.arm(place, "stop")
    worker = light.start()
    for number, place in enumerate(places):
        child = light.until_struck(place)
        os.kill(worker.pid, signal.SIGSTOP)
        copy = tmp_path / f"copy-{number}"
        copy.mkdir()
        shutil.copytree(light.home, copy / "home")
        for path in tmp_path.glob("tapeline.db*"):
            shutil.copy(path, copy / path.name)
        copies.append(copy)
        os.kill(worker.pid, signal.SIGCONT)
        os.kill(child, signal.SIGCONT)
    light.until_all_end()
    light.check(reference)
    for copy in copies:
        second = open_yard(copy / "home", f"sqlite:///{copy / 'tapeline.db'}")
        second.accepted = list(light.accepted)
        second.start("workers.reconcile")
        second.start()
        second.until_all_end()
        second.check(reference)
        second.database.close()


@pytest.fixture
def broker(light: Yard) -> Iterator[Broker]:
    made = Broker(light.home, log=light.home / "broker.log", environ=os.environ)
    made.prepare()
    made.child.start()
    made.wait_until_ready()
    light.extra["TAPELINE_BROKER_URL"] = made.url
    yield made
    made.child.end(5)


def restart(broker: Broker, light: Yard) -> Broker:
    made = Broker(light.home, log=light.home / "broker.log", environ=os.environ)
    made.prepare()
    made.child.start()
    made.wait_until_ready()
    return made


def test_a_broker_that_is_killed_emptied_and_fed_rubbish_delays_jobs_and_no_more(
    light: Yard, broker: Broker, reference: Reference
) -> None:
    """F07, F08, F11 and F12."""
    light.submit()
    worker = light.start()
    light.until_all_end()
    sender = create_app(broker.url)
    old = light.accepted[0]
    for _ in range(50):  # repeated, and long out of date
        wake(sender, old)
    with sender.connection_for_write() as connection:
        producer = connection.Producer(serializer="json")
        for body in ([["job_x"], {"a": 1}, {}], {"not": "a task"}, [[1, 2, 3], {}, {}]):
            producer.publish(body, routing_key=wire.TRAIN_QUEUE, headers={"task": wire.TRAIN_TASK, "id": "1"})
        evil = pickle.dumps(os.getpid)
        producer.publish(evil, routing_key=wire.TRAIN_QUEUE, content_type="application/x-python-serialize",
                         content_encoding="binary", headers={"task": wire.TRAIN_TASK, "id": "2"})  # fmt: skip
    for pause in (0.0, 1.0):
        os.kill(broker.child.pid, signal.SIGKILL)
        broker.child.wait(5)
        time.sleep(pause)
        job_id = light.submit()  # while it is away
        light.until_end(job_id)
        broker = restart(broker, light)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(broker.socket))
        raw.sendall(b"FLUSHALL\r\n")
        assert raw.recv(100).startswith(b"+OK")
    began = time.monotonic()
    light.until_end(light.submit())
    assert time.monotonic() - began < 30
    assert worker.poll() is None
    assert all(light.job(job_id).lease == 1 for job_id in light.accepted)
    broker.child.end(5)
    light.check(reference)


def test_a_broker_that_says_nothing_holds_nobody_up(light: Yard, broker: Broker, reference: Reference) -> None:
    """F10: half-open. The connection stands, and nothing comes."""

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
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    proxy.close()
    light.check(reference)


def test_two_schedulers_and_many_workers_claim_each_job_once(yard: Yard) -> None:
    """F26."""
    tiny = {"epochs": 1, "batch_size": 4000, "layers": [{"units": 10, "activation": "softmax"}]}
    for _ in range(24):
        yard.submit(**tiny)
    for _ in range(2):
        yard.start("workers.reconcile")
    for _ in range(3):
        yard.start(TAPELINE_WORKERS="2")
    yard.until_all_end(200)
    assert [yard.job(job_id).lease for job_id in yard.accepted] == [1] * 24
    yard.check(Reference.of(yard.database, yard.accepted[0]))


def test_another_kind_of_processor_is_put_on_record(light: Yard) -> None:
    """F27."""
    job_id = light.submit()
    light.arm("batch_done.2")
    worker = light.start()
    light.until_struck("batch_done.2")
    kill_group(worker)
    jobs_before = light.job(job_id)
    assert jobs_before.provenance is not None
    other = "Nehalem" if "Nehalem" not in str(jobs_before.provenance["blas"]) else "Sandybridge"
    light.start("workers.reconcile")
    light.start(OPENBLAS_CORETYPE=other)
    light.until_end(job_id)
    if light.job(job_id).provenance == jobs_before.provenance:
        pytest.skip("this BLAS cannot be made to take another processor's kernels")
    codes = [event.data["code"] for event in light.log(job_id) if event.type == "log"]
    assert codes[0] == "mixed_provenance"


def test_an_api_killed_after_the_commit_gives_the_same_job_to_the_second_try(light: Yard, reference: Reference) -> None:
    """F24."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "-c", "python:service.web.gunicorn_conf", "service.web.wsgi:app"]
    environ = os.environ | light.settings.to_env() | {"TAPELINE_PORT": str(port), VARIABLE: str(light.points)}
    with (light.home / "web.log").open("w") as log:
        web = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    light.processes.append(web)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as http:

        def answers() -> bool:
            try:
                return http.get("/healthz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, "the server")
        light.arm("submitted")
        key = {"Idempotency-Key": "once"}
        with pytest.raises(httpx.TransportError):
            http.post("/jobs", json=QUICK, headers=key)
        light.until_struck("submitted")
        wait_until(answers, "the server's new process")  # gunicorn starts another one
        answer = http.post("/jobs", json=QUICK, headers=key)
        assert (answer.status_code, answer.headers["Idempotency-Replayed"]) == (201, "true")
        light.accepted.append(answer.json()["id"])
    light.start()
    light.until_all_end()
    light.check(reference)
