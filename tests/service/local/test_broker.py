from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection

from service.local.broker import Broker
from tests import brokers


def send_and_receive(url: str) -> str:
    with Connection(url) as connection, connection.SimpleQueue("test") as queue:
        queue.put("job_1")
        message = queue.get(timeout=5)
        message.ack()
        return str(message.payload)


@pytest.mark.stack
@pytest.mark.parametrize("name", ["plain", "with blank", 'with "quotes" and \\', "ünïcode %20"])
def test_kombu_reaches_the_broker_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    with brokers.serve(tmp_path / name) as broker:
        assert send_and_receive(broker.url) == "job_1"


@pytest.mark.stack
def test_only_the_owner_can_open_the_socket(tmp_path: Path) -> None:
    with brokers.serve(tmp_path) as broker:
        assert stat.S_IMODE(broker.socket.stat().st_mode) == 0o700


@pytest.mark.stack
def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "broker.sock"))
    with brokers.serve(tmp_path) as broker:
        assert send_and_receive(broker.url) == "job_1"


@pytest.mark.stack
def test_a_leftover_server_is_stopped(tmp_path: Path) -> None:
    with brokers.serve(tmp_path) as leftover, brokers.serve(tmp_path) as broker:
        assert leftover.child.wait(5) == 0
        assert send_and_receive(broker.url) == "job_1"


@pytest.mark.stack
def test_a_message_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    with brokers.serve(tmp_path) as broker, Connection(broker.url) as connection:
        connection.SimpleQueue("test").put("job_2")
    with brokers.serve(tmp_path) as broker, Connection(broker.url) as connection:
        assert connection.SimpleQueue("test").get(timeout=5).payload == "job_2"


@pytest.fixture
def short_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path for temporary files: pytest's own folders are already near the length limit."""
    with tempfile.TemporaryDirectory(prefix="tl-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.mark.stack
def test_if_the_path_is_too_long_the_socket_is_in_a_private_temporary_folder(
    tmp_path: Path, short_folder: Path
) -> None:
    home = tmp_path / ("deep" * 20) / ("deeper" * 5)
    with brokers.serve(home) as broker:
        assert broker.socket.parent.parent == short_folder
        assert stat.S_IMODE(broker.socket.parent.stat().st_mode) == 0o700
        assert Broker(home, log=home / "log", output=1, environ={}).socket == broker.socket
        assert send_and_receive(broker.url) == "job_1"


@pytest.mark.usefixtures("short_folder")
def test_a_temporary_folder_that_others_can_open_is_not_used(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 20) / ("deeper" * 5)
    expected = Broker(home, log=home / "log", output=1, environ={}).socket.parent
    expected.chmod(0o777)
    chosen = Broker(home, log=home / "log", output=1, environ={}).socket.parent
    assert chosen != expected
    assert stat.S_IMODE(chosen.stat().st_mode) == 0o700
    assert chosen.stat().st_uid == os.getuid()
