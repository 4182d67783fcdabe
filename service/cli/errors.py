"""What a person sees when something is wrong: one clear line, never a traceback."""

from __future__ import annotations

import json
from typing import IO, Any, Final

import click

from service.cli.target import Target
from service.client import ApiError, ClientError
from service.contract.errors import ContractError
from service.local import StackError

INTERRUPTED: Final = 130
"""What a shell gives for a command that Ctrl-C ended."""


class Failure(click.ClickException):
    """The command did not do what it was asked to."""

    def __init__(self, message: str, problem: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.problem = problem

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it to standard error; as JSON where the command was to speak JSON."""
        context = click.get_current_context(silent=True)
        target = context.find_object(Target) if context is not None else None
        if target is not None and target.as_json:
            click.echo(json.dumps({"error": self.problem or {"detail": self.message}}), err=True)
        else:
            click.echo(f"{click.style('tapeline:', fg='red')} {self.message}", err=True)


class Commands(click.Group):
    """Turns the errors that are meant for people into one line and an exit code, and lists commands as they were
    added: in the order in which one meets them."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except ApiError as error:
            raise Failure(str(error), error.problem) from error
        except (ClientError, StackError, ContractError) as error:
            raise Failure(str(error)) from error
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names."""
        return list(self.commands)
