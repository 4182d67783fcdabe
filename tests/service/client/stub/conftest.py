from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.client import Client
from tests.service.client.stub.server import StubServer


@pytest.fixture
def server() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.close()


@pytest.fixture
def client(server: StubServer) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client
