"""Which service a command talks to, and whether to a person or to a machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from service.client import Client
from service.local import url_of

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(slots=True)
class Target:
    """What ``--server``, ``--key`` and ``--json`` said, before the command's name or after it."""

    server: str | None = None
    key: str | None = None
    as_json: bool = False

    def client(self) -> Client:
        """A client of the service that was named, or of the one on this machine.

        Raises:
            click.UsageError: the name is none.
        """
        try:
            return Client(self.server or _local_server(), self.key)
        except ValueError as error:
            raise click.UsageError(str(error)) from error


def service_options(command: _Command) -> _Command:
    """Give a command the options that say which service it talks to."""

    def remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        target = context.ensure_object(Target)
        if value and parameter.name is not None:
            setattr(target, parameter.name, value)

    for option in (
        click.option(
            "--json", "as_json", is_flag=True, expose_value=False, callback=remember, help="Print JSON, for machines."
        ),
        click.option(
            "--key",
            metavar="KEY",
            expose_value=False,
            callback=remember,
            help="API key (default: the first of TAPELINE_API_KEYS).",
        ),
        click.option(
            "--server",
            metavar="URL",
            expose_value=False,
            callback=remember,
            help="The service (default: http://127.0.0.1 at TAPELINE_PORT, or 8000).",
        ),
    ):
        command = option(command)
    return command


def _local_server() -> str:
    port = os.environ.get("TAPELINE_PORT") or "8000"
    if not port.isdecimal():
        raise click.UsageError(f"TAPELINE_PORT is {port!r}: not a port")
    return url_of(os.environ.get("TAPELINE_HOST") or "127.0.0.1", int(port))
