"""Fixtures for a running service: its client and its command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from service.client import Client
from service.local import LocalStack


@pytest.fixture
def client(stack: LocalStack) -> Iterator[Client]:
    with Client(stack.url) as client:
        yield client


@pytest.fixture
def run(stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs a command as in a pipe, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, spec: dict[str, Any] | str | None = None) -> Result:
        text = spec if isinstance(spec, str) or spec is None else json.dumps(spec)
        return CliRunner().invoke(main, ["--server", stack.url, *arguments], input=text)

    return run
