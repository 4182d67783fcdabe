"""What a person sees when something is wrong: one clear line, never a traceback."""

from __future__ import annotations

import json
from importlib import import_module
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
        self.as_json = False

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it to standard error; as JSON where the command was to speak JSON."""
        if self.as_json:
            click.echo(json.dumps({"error": self.problem or {"detail": self.message}}), err=True)
        else:
            click.echo(f"{click.style('tapeline:', fg='red')} {self.message}", err=True)


class Commands(click.Group):
    """Turns the errors that are meant for people into one line and an exit code, and lists commands as they were
    added: in the order in which one meets them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._later: dict[str, str] = {}

    def add_later(self, name: str, module: str) -> None:
        """Add a command whose module is loaded when it is needed: what opens the database takes a second to load."""
        self._later[name] = module

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        if cmd_name not in self._later:
            return super().get_command(ctx, cmd_name)
        found = getattr(import_module(self._later[cmd_name]), cmd_name)
        return found if isinstance(found, click.Command) else None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except Failure as error:
            failure = error
        except ApiError as error:
            failure = Failure(str(error), error.problem)
        except (ClientError, StackError, ContractError) as error:
            failure = Failure(str(error))
        except OSError as error:
            failure = Failure(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        failure.as_json = ctx.ensure_object(Target).as_json
        raise failure

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names."""
        return [*self.commands, *self._later]
