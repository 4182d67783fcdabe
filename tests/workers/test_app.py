from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.local.broker import Broker
from tests import brokers
from tests.waiting import wait_until
from tests.workers.conftest import WorkerHarness


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with brokers.serve(tmp_path) as broker:
        yield broker


def celery(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "celery", "-A", "workers.app", *arguments]
    return subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, check=False)


@pytest.mark.nightly
def test_celery_commands_find_a_worker_but_cannot_stop_it(workers: WorkerHarness, broker: Broker) -> None:
    environ = workers.settings.to_env() | {"TAPELINE_BROKER_URL": broker.url}
    # Named, so that Celery does not wait for the answers of others.
    to_worker = (f"--destination=celery@{socket.gethostname()}", "--timeout=20")
    worker = workers.start(TAPELINE_BROKER_URL=broker.url)
    wait_until(lambda: "1 node online" in celery("status", *to_worker, **environ).stdout, "the worker's answer", 60)
    ping = celery("inspect", "ping", *to_worker, **environ)
    assert ping.returncode == 0
    assert "pong" in ping.stdout
    assert "tapeline.train" in celery("inspect", "registered", *to_worker, **environ).stdout
    celery("control", "shutdown", **environ)
    # Commands arrive in order, so the worker has read the one before when it answers.
    assert "1 node online" in celery("status", *to_worker, **environ).stdout
    workers.until_end(workers.submit(epochs=1))
    assert worker.poll() is None
    assert "Celery has ended" not in (workers.home / "workers.log").read_text()


@pytest.mark.nightly
def test_celery_commands_require_a_broker_url() -> None:
    process = celery("status", TAPELINE_BROKER_URL="")
    assert process.returncode != 0
    assert "TAPELINE_BROKER_URL" in process.stderr


@pytest.mark.stack
def test_importing_the_app_reads_no_settings_and_opens_no_connection() -> None:
    program = (
        "import socket\n"
        "def refuse(*_): raise AssertionError\n"
        "socket.socket.connect = refuse\n"
        "import workers.app\n"
        "assert 'celery' not in vars(workers.app)\n"
        "print(workers.app.celery.main, workers.app.celery is workers.app.celery)\n"
    )
    environ = {**os.environ, "TAPELINE_BROKER_URL": "redis://127.0.0.1:1/0"}
    process = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["tapeline", "True"]
