from __future__ import annotations

from collections.abc import Iterator

import pytest

from tapeline import Client, Job
from tests.tapeline.stub.server import JOB, StubServer


@pytest.fixture
def server() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.close()


@pytest.fixture
def client(server: StubServer) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


@pytest.fixture
def job(client: Client) -> Job:
    """A job that has not been read yet."""
    return Job(client._connection, {"id": JOB})
