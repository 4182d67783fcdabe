from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from service.local import HomeInUse, LocalStack, PortTaken, StackError
from service.runtime.settings import Settings
from tapeline import Client
from tests.waiting import wait_until

UP = [sys.executable, "-c", "from service.cli import main; main()", "up"]
SLOW_START_NOTE = "the web process is still starting; waiting up to 120 s (is the machine busy?)"


def settings_for(home: Path, **environ: str) -> Settings:
    return Settings.from_env({"TAPELINE_HOME": str(home), "TAPELINE_PORT": "0"} | environ, cores=1)


def processes_of(home: Path) -> set[int]:
    """The ids of all processes with this state folder in their environment or command line."""
    pids = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with suppress(OSError):
                description = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                if os.fsencode(home) in description:
                    pids.add(int(entry.name))
    return pids


def is_healthy(url: str) -> bool:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.mark.stack
def test_a_startup_error_does_not_refer_to_an_empty_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.local.stack._READY_TIMEOUT_S", 0.0)
    with pytest.raises(StackError, match=r"did not respond within 0 s; it logged nothing$"):
        LocalStack(settings_for(tmp_path / "home")).start()
    assert not processes_of(tmp_path / "home")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return a function that starts ``tapeline up`` as a separate process and returns the process."""
    processes: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        environ = os.environ | {"TAPELINE_HOME": str(tmp_path / "home"), "TAPELINE_PORT": "0", "TAPELINE_WORKERS": "1"}
        process = subprocess.Popen(UP, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    wait_until(lambda: not processes_of(tmp_path / "home"), "the end of all processes", 60)


def url_from(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if "page" in line:
            return line.split()[-1]
    pytest.fail(f"it ended: {output}")


@pytest.mark.stack
@pytest.mark.parametrize(
    ("auth", "hint"),
    [("local", "TAPELINE_AUTH"), pytest.param("auto", "tapeline keys create", marks=pytest.mark.nightly)],
)
def test_network_access_requires_a_key(tmp_path: Path, auth: str, hint: str) -> None:
    environ = {"TAPELINE_HOME": str(tmp_path), "TAPELINE_PORT": "0", "TAPELINE_HOST": "0.0.0.0", "TAPELINE_AUTH": auth}
    stack = LocalStack(Settings.from_env(environ, cores=1))
    with pytest.raises(StackError, match=hint):
        stack.start()
    assert not [child for child in stack._children if child.exit_code() is None]


def test_a_port_in_use_is_reported_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        stack = LocalStack(replace(settings_for(tmp_path / "home"), port=port))
        with pytest.raises(PortTaken, match=f"port {port} .* is in use(?s:.*)TAPELINE_PORT={port + 1} tapeline up"):
            stack.start()
    assert stack.pids == {}
    assert list((tmp_path / "home" / "logs").iterdir()) == []


def test_an_address_of_another_machine_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"192\.0\.2\.1"):
        LocalStack(replace(settings_for(tmp_path), host="192.0.2.1")).start()


def test_a_state_folder_that_cannot_be_created_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=r"state folder .*/file/home cannot be used: Not a directory"):
        LocalStack(settings_for(tmp_path / "file" / "home")).start()


@pytest.mark.nightly
def test_an_unreachable_database_is_an_error_with_its_log(tmp_path: Path) -> None:
    unreachable = "postgresql+psycopg://nobody@127.0.0.1:9/nothing"
    stack = LocalStack(settings_for(tmp_path / "home", TAPELINE_DATABASE_URL=unreachable))
    with pytest.raises(StackError, match=r"could not be migrated(?s:.*)refused(?s:.*)migrate\.log"):
        stack.start()
    assert processes_of(tmp_path / "home") == set()


@pytest.mark.nightly
def test_a_stack_beside_a_demo_is_refused_with_a_note_that_the_demo_ends_by_itself(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with LocalStack(settings_for(home), is_demo=True) as demo:
        note = f"a demo runs on {home} at {demo.url} .*, and ends in a few minutes; wait for it, or start a second one:"
        with pytest.raises(HomeInUse, match=rf"{note}\n  TAPELINE_HOME=\S+ TAPELINE_PORT=\d+ tapeline up"):
            LocalStack(settings_for(home)).start()


@pytest.mark.nightly
def test_the_stack_reports_a_slow_start_refuses_a_second_one_restarts_its_processes_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.local.stack._SLOW_START_S", 0.0)
    home = tmp_path / "home"
    damaged = home / "broker" / "appendonlydir"  # from an earlier run, truncated by a power failure
    damaged.mkdir(parents=True)
    (damaged / "appendonly.aof.manifest").write_text("nonsense\n")
    notes: list[str] = []
    with LocalStack(settings_for(home), notify=notes.append) as stack:
        assert is_healthy(stack.url)
        assert notes == [SLOW_START_NOTE]
        notes.clear()
        assert set(stack.pids) == {"broker", "web", "worker", "scheduler"}

        with pytest.raises(HomeInUse, match=f"Tapeline already runs on {home} at {stack.url}") as caught:
            LocalStack(settings_for(home)).start()
        assert caught.value.pid == os.getpid()
        assert is_healthy(stack.url)

        old_pids = stack.pids
        for pid in old_pids.values():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: all(stack.pids[name] != pid for name, pid in old_pids.items()), "new processes", 60)
        wait_until(lambda: is_healthy(stack.url), "the service", 60)
        assert sorted(note.split("\n")[0].rstrip(":") for note in notes) == [
            f"the {name} process exited (SIGKILL); it restarts in 0.5 s"
            for name in ("broker", "scheduler", "web", "worker")
        ]

        with Client(stack.url) as client:
            job = client.submit({"kind": "classifier", "epochs": 1})
            assert client.job(job["id"]).wait(timeout_s=120)["status"] == "succeeded"
    assert processes_of(home) == set()
    assert not is_healthy(stack.url)
    assert not (home / "broker.sock").exists()


@pytest.mark.stack
def test_ctrl_c_stops_the_stack_and_everything_it_started(
    tmp_path: Path, up: Callable[[], subprocess.Popen[str]]
) -> None:
    process = up()
    assert is_healthy(url_from(process))
    assert len(processes_of(tmp_path / "home")) >= 6  # itself, orphan reaper, broker, web, worker, scheduler
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert rest.splitlines()[-1] == "stopped"
    assert "\x1b" not in rest
    assert processes_of(tmp_path / "home") == set()


@pytest.mark.stack
def test_sigkill_stops_all_processes_and_the_next_start_waits_for_that(
    tmp_path: Path, up: Callable[[], subprocess.Popen[str]]
) -> None:
    process = up()
    url_from(process)
    child_pids = processes_of(tmp_path / "home") - {process.pid}
    process.kill()
    process.wait()
    second = up()
    url = url_from(second)
    assert child_pids & processes_of(tmp_path / "home") == set()
    assert is_healthy(url)
    second.terminate()  # SIGTERM stops it, too
    assert second.wait(30) == 0
    assert processes_of(tmp_path / "home") == set()
