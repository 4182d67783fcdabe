"""A quickly trained job, and a function that runs commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from tapeline import Client
from tests.tapeline.stub.scenes import Recordings

Run = Callable[..., Result]

TINY = {
    "kind": "classifier",
    "epochs": 2,
    "layers": [{"units": 10, "activation": "softmax"}],
    "checkpoint": {"keep_last": 2},
}


@pytest.fixture(scope="session")
def trained(recordings: Recordings) -> str:
    with recordings.scene("fixtures", "trained") as url, Client(url) as client:
        job = client.submit(TINY).wait(timeout_s=120)
        assert job.status == "succeeded"
        return job.id


@pytest.fixture
def run(server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs a command as in a pipe, in an empty folder."""
    return runner(server_url, tmp_path, monkeypatch)


def runner(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function that runs a command as in a pipe, in this folder, against the service at a URL."""
    monkeypatch.chdir(folder)

    def run(*arguments: str, spec: dict[str, Any] | str | None = None) -> Result:
        text = spec if isinstance(spec, str) or spec is None else json.dumps(spec)
        return CliRunner().invoke(main, ["--server", url, *arguments], input=text)

    return run
