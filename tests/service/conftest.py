"""A running service, used through the client and the command line."""

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
    with Client(stack.url) as made:
        yield made


@pytest.fixture
def run(stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command as in a pipe, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, spec: dict[str, Any] | str | None = None) -> Result:
        text = spec if isinstance(spec, str) or spec is None else json.dumps(spec)
        return CliRunner().invoke(main, ["--server", stack.url, *arguments], input=text)

    return run
