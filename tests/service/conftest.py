"""Fixtures for the client and the command line, whose service plays recorded responses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from service.client import Client
from tests.service.client.stub.player import Player
from tests.service.client.stub.recorder import Recorder
from tests.service.client.stub.recordings import FOLDER, VARIABLE
from tests.service.client.stub.scenes import Recordings


@pytest.fixture(scope="session")
def recordings(request: pytest.FixtureRequest) -> Iterator[Recordings]:
    """The server that plays recordings, or a proxy to the whole service that records them."""
    mode = os.environ.get(VARIABLE)
    if mode is None:
        with closing(Player()) as player:
            yield player
        return
    with closing(Recorder(request.getfixturevalue("stack").url)) as recorder:
        yield recorder
        if mode != "check" and not request.session.testsfailed:
            recorder.save(FOLDER, is_whole=mode == "whole")


@pytest.fixture
def server_url(request: pytest.FixtureRequest, recordings: Recordings) -> Iterator[str]:
    """The URL of a service that responds to the requests of this test as recorded, and to no others."""
    with recordings.scene(request.path.stem.removeprefix("test_"), request.node.name) as url:
        yield url


@pytest.fixture
def client(server_url: str) -> Iterator[Client]:
    with Client(server_url) as client:
        yield client


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
