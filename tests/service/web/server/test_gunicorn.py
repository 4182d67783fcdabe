from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.access import keys
from service.access.keys import Scope
from service.storage.database import Database
from tests.waiting import wait_until

pytestmark = pytest.mark.stack

Start = Callable[..., "subprocess.Popen[str]"]


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def start(sqlite_url: str, tmp_path: Path, port: int) -> Iterator[Start]:
    with server_starter(sqlite_url, tmp_path, port) as run:
        yield run


@pytest.fixture(scope="module")
def shared_port(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server with default settings, shared by tests that do not change its state."""
    home, port = tmp_path_factory.mktemp("served"), free_port()
    shutil.copy(migrated, home / "tapeline.db")
    with server_starter(f"sqlite:///{home / 'tapeline.db'}", home, port) as run:
        run()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:
            wait_until_healthy(http)
        yield port


@contextmanager
def server_starter(sqlite_url: str, folder: Path, port: int) -> Iterator[Start]:
    """Provide a function that starts servers; kill them on exit."""
    running: list[subprocess.Popen[str]] = []

    def run(
        *, descriptors: int | None = None, log: Path | None = None, patch: str = "", **changes: str
    ) -> subprocess.Popen[str]:
        if patch:  # code that runs first in the server
            (folder / "patch").mkdir()
            (folder / "patch" / "sitecustomize.py").write_text(patch)
            changes["PYTHONPATH"] = os.pathsep.join([str(folder / "patch"), os.environ["PYTHONPATH"]])
        environ = os.environ | {
            "TAPELINE_HOME": str(folder),
            "TAPELINE_DATABASE_URL": sqlite_url,
            "TAPELINE_PORT": str(port),
            **changes,
        }
        limit = f"ulimit -n {descriptors}; " if descriptors else ""
        serve = f"{limit}exec {sys.executable} -m gunicorn -c python:service.web.gunicorn_conf service.web.wsgi:app"
        command = ["/bin/sh", "-c", serve]
        with (log or folder / "web.log").open("w") as file:
            running.append(subprocess.Popen(command, env=environ, stderr=file, stdout=file, text=True))
        return running[-1]

    try:
        yield run
    finally:
        for process in running:
            process.kill()
            process.wait()


def wait_until_healthy(http: httpx.Client) -> None:
    def is_healthy() -> bool:
        try:
            return http.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(is_healthy, "the server", 60)


def test_streams_do_not_delay_short_requests_and_end_cleanly_on_sigterm(
    start: Start, port: int, tmp_path: Path
) -> None:
    process = start()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:
        wait_until_healthy(http)
        job_id = http.post("/jobs", json={"kind": "classifier"}).json()["id"]
        requests = [http.build_request("GET", f"/jobs/{job_id}/stream") for _ in range(40)]
        streams = [http.send(request, stream=True) for request in requests]
        assert {stream.status_code for stream in streams} == {200}
        lines = [stream.iter_lines() for stream in streams]
        for stream_lines in lines:
            assert next(stream_lines).startswith("retry")
        assert http.get("/jobs").status_code == 200
        big = http.post("/jobs", content=b"x" * 3_000_000, headers={"Content-Type": "application/json"})
        assert (big.status_code, big.json()["code"]) == (413, "body_too_large")
        spec = b'{"kind": "gan"}'
        for length, status in ((1024 * 1024, 201), (1024 * 1024 + 1, 413)):  # no Content-Length, so in chunks
            chunks = iter([spec, b" " * (length - len(spec))])
            answer = http.post("/jobs", content=chunks, headers={"Content-Type": "application/json"})
            assert answer.status_code == status
        for stream in streams[20:]:
            stream.close()
        process.send_signal(signal.SIGTERM)
        for stream_lines in lines[:20]:
            list(stream_lines)  # raises if the response was cut off instead of ended
        assert process.wait(60) == 0
        for stream in streams:
            stream.close()
    log_entries = [json.loads(line) for line in (tmp_path / "web.log").read_text().splitlines()]
    post_entry = next(entry for entry in log_entries if entry["event"] == "request" and entry["status"] == 201)
    assert post_entry["request_id"].startswith("req_")
    assert post_entry["job"] == job_id
    assert (post_entry["method"], post_entry["path"], post_entry["level"]) == ("POST", "/jobs", "info")


def test_clients_that_do_not_close_their_connections_delay_no_other_client(shared_port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{shared_port}", timeout=10, trust_env=False) as http:
        # Each of them would cost two seconds: all together, far more than the other client's timeout.
        lingering = [socket.create_connection(("127.0.0.1", shared_port)) for _ in range(40)]
        for connection in lingering:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert connection.recv(64).startswith(b"HTTP/1.1 200")
        assert http.get("/healthz", headers={"Connection": "close"}).status_code == 200
        for connection in lingering:
            connection.close()


@pytest.mark.nightly
def test_invalid_settings_are_named_and_prevent_the_start(start: Start, tmp_path: Path) -> None:
    process = start(TAPELINE_LEASE_S="never", TAPELINE_AUTH="nobody")
    assert process.wait(60) != 0
    text = (tmp_path / "web.log").read_text()
    assert "TAPELINE_LEASE_S" in text
    assert "TAPELINE_AUTH" in text


def test_listening_on_the_network_requires_an_api_key(start: Start, sqlite_url: str, port: int, tmp_path: Path) -> None:
    process = start(TAPELINE_HOST="0.0.0.0")
    assert process.wait(60) != 0
    assert "tapeline keys create" in (tmp_path / "web.log").read_text()
    with closing(Database(sqlite_url)) as database:
        keys.create(database, name="first", owner="ann", scope=keys.Scope.READ)
    start(TAPELINE_HOST="0.0.0.0")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:
        wait_until_healthy(http)
        assert http.get("/jobs").status_code == 401


def test_an_address_passed_to_gunicorn_itself_is_checked_too(start: Start, tmp_path: Path, port: int) -> None:
    process = start(GUNICORN_CMD_ARGS=f"--bind 0.0.0.0:{port}")
    assert process.wait(60) != 0
    assert "0.0.0.0" in (tmp_path / "web.log").read_text()


def test_a_reload_ends_streams_cleanly_and_rejects_no_request(start: Start, port: int) -> None:
    process = start()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:
        wait_until_healthy(http)
        job_id = http.post("/jobs", json={"kind": "classifier"}).json()["id"]
        request = http.build_request("GET", f"/jobs/{job_id}/stream")
        stream = http.send(request, stream=True)
        lines = stream.iter_lines()
        assert next(lines).startswith("retry")
        process.send_signal(signal.SIGHUP)
        ended = threading.Event()

        def drain() -> None:
            list(lines)  # raises if the response was cut off instead of ended
            ended.set()

        thread = threading.Thread(target=drain)
        thread.start()
        deadline = time.monotonic() + 60
        while not ended.is_set():
            assert time.monotonic() < deadline, "it did not end"
            # A client that opens a new connection per request is served at every moment.
            assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False, timeout=10).status_code == 200
        thread.join()
        stream.close()
        reconnected = http.send(request, stream=True)  # as an EventSource reconnects by itself
        assert next(reconnected.iter_lines()).startswith("retry")
        reconnected.close()


def test_metrics_are_summed_over_all_processes(start: Start, port: int, shared_postgres_url: str) -> None:
    start(TAPELINE_DATABASE_URL=shared_postgres_url)
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as http:
        wait_until_healthy(http)
        before = samples(http.get("/metrics").text)
        for _ in range(30):
            httpx.get(f"{url}/jobs", trust_env=False)  # a new connection each, so any process may serve it
        request = http.build_request("GET", "/stream")
        streams = [http.send(request, stream=True) for _ in range(3)]
        lines = [stream.iter_lines() for stream in streams]  # kept: deleting an iterator closes its stream
        for stream_lines in lines:
            next(stream_lines)
        for _ in range(4):
            after = samples(httpx.get(f"{url}/metrics", trust_env=False).text)
            assert after[JOB_LIST_REQUESTS] - before.get(JOB_LIST_REQUESTS, 0) == 30
            assert after["tapeline_stream_clients", frozenset()] == 3
        for stream in streams:
            stream.close()


@pytest.mark.nightly
def test_counters_of_a_killed_service_are_deleted_by_its_next_start(
    start: Start, port: int, shared_postgres_url: str, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    counter_folders: list[set[str]] = []
    for _ in range(2):
        process = start(TAPELINE_DATABASE_URL=shared_postgres_url, TMPDIR=str(temporary))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:
            wait_until_healthy(http)
        counter_folders.append({path.name for path in temporary.glob("tapeline-metrics-*")})
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (process.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    first, second = counter_folders
    assert len(first) == len(second) == 1
    assert first != second


JOB_LIST_REQUESTS = (
    "tapeline_http_request_seconds_count",
    frozenset({("method", "GET"), ("route", "/jobs"), ("status", "200")}),
)


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def connect(port: int, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(data)
    return connection


def is_alive(port: int) -> bool:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:
        return http.get("/healthz").status_code == 200


@pytest.mark.nightly
def test_more_idle_connections_than_descriptors_lock_out_no_client(start: Start, port: int, tmp_path: Path) -> None:
    process = start(descriptors=256)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:
        wait_until_healthy(http)
    with ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(connect(port))
        for _ in range(20):
            assert is_alive(port)
    assert process.poll() is None
    assert is_alive(port)
    assert "Traceback" not in (tmp_path / "web.log").read_text()


@pytest.mark.nightly
@pytest.mark.parametrize(
    "partial_request",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{",
    ],
    ids=["header", "body"],
)
def test_requests_that_never_arrive_in_full_delay_no_other_client(
    start: Start, port: int, partial_request: bytes
) -> None:
    start(patch="from service.web.server import request_limits as limits\nlimits.HEAD_S, limits.BODY_S = 3.0, 4.0\n")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:
        wait_until_healthy(http)
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(port, partial_request)) for _ in range(700)]
        for _ in range(20):
            assert is_alive(port)
        # Some were refused at once; none of the others may stay open forever.
        for connection in slow:
            with suppress(ConnectionError):
                while connection.recv(65536):
                    pass
    assert is_alive(port)


@pytest.mark.nightly
def test_slow_uploads_of_one_owner_delay_no_other_owner(start: Start, port: int, sqlite_url: str) -> None:
    start(TAPELINE_AUTH="keys", TAPELINE_API_KEYS="of-the-operator-0123456789")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:
        wait_until_healthy(http)
        with closing(Database(sqlite_url)) as database:
            ann, bob = (keys.create(database, name=n, owner=n, scope=Scope.SUBMIT)[1] for n in ("ann", "bob"))
        head = (
            "POST /datasets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\nUpload-Id: slow-upload-{}\r\n"
            f"Authorization: Bearer {ann}\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
            'Content-Disposition: form-data; name="archive"; filename="a.zip"\r\n\r\n'
        )

        first_piece = bytes(70_000)  # the parser reads 64 KiB at a time

        def is_received(number: int) -> bool:
            answer = http.get(f"/uploads/slow-upload-{number}", headers={"Authorization": f"Bearer {ann}"})
            return bool(answer.json()["state"] == "receiving")

        def send(key: str) -> httpx.Response:
            files = {"name": (None, "mine"), "images": b"no IDX", "labels": b"neither"}
            return http.post("/datasets", files=files, headers={"Authorization": f"Bearer {key}"})

        with ExitStack() as stack:
            slow = [
                stack.enter_context(connect(port, head.format(number).encode() + first_piece)) for number in range(4)
            ]
            wait_until(lambda: all(map(is_received, range(4))), "the heads of the uploads")
            assert send(ann).json()["code"] == "too_many_uploads"
            assert send(bob).json()["code"] == "invalid_upload"  # it was read
            for connection in slow:
                connection.settimeout(60)
                with connection.makefile("rb") as answer:
                    assert b"too_slow" in answer.read()
        assert send(ann).json()["code"] == "invalid_upload"


def test_malformed_chunks_are_a_bad_request(shared_port: int) -> None:
    head = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    for chunks in (b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}xx\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n"):
        with connect(shared_port, head + chunks) as connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 "), chunks


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_log_that_cannot_be_written_fails_no_request(start: Start, port: int) -> None:
    process = start(log=Path("/dev/full"))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:
        wait_until_healthy(http)
        for _ in range(300):  # more than a buffer holds
            assert http.post("/jobs", json={"kind": "classifier", "epochs": 0}).status_code == 422
        assert http.post("/jobs", json={"kind": "classifier"}).status_code == 201
    assert process.poll() is None


def test_the_ids_of_two_hundred_jobs_fit_into_a_url(shared_port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{shared_port}", timeout=10, trust_env=False) as http:
        names = "%2C".join(f"job_01J{number:023}" for number in range(200))
        page = http.get(f"/ui/compare?jobs={names}&x=optimizer.learning_rate&y=frechet_distance&of=last")
        assert page.status_code == 200
        assert "do not exist" in page.text
