"""The client and the command line on the whole service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from service.local import LocalStack
from tapeline import Client
from tests.service.cli.conftest import runner


@pytest.fixture
def client(stack: LocalStack) -> Iterator[Client]:
    with Client(stack.url) as client:
        yield client


@pytest.fixture
def run(stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    return runner(stack.url, tmp_path, monkeypatch)
