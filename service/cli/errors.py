"""Errors as users see them: one line and a remedy, never a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Final

import click

from service.cli.target import Target

if TYPE_CHECKING:
    from tapeline import ApiError

INTERRUPTED: Final = 130
"""The exit code of a command that was interrupted by Ctrl-C, as in shells."""


class Failure(click.ClickException):
    """The command failed."""

    def __init__(self, message: str, problem: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.as_json = False

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error to standard error, as JSON with ``--json``."""
        if self.as_json:
            click.echo(json.dumps({"error": self.problem or {"detail": self.message}}), err=True)
        else:
            click.echo(f"{click.style('tapeline:', fg='red')} {self.message}", err=True)


class Commands(click.Group):
    """A command group that imports each command lazily, and turns expected errors into one line and an exit code.

    Commands are listed in the order in which they were added.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lazy_commands: dict[str, tuple[str, str]] = {}

    def add_lazily(self, name: str, module: str, summary: str) -> None:
        """Add the command with this name of a module; ``summary`` is its line in the list of commands."""
        self._lazy_commands[name] = (module, summary)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in self._lazy_commands:
            return None
        attributes = vars(import_module(self._lazy_commands[cmd_name][0])).values()
        return next((item for item in attributes if isinstance(item, click.Command) and item.name == cmd_name), None)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names."""
        return list(self._lazy_commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command; for an unknown one, suggest the closest name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from rapidfuzz import process  # lazily: needed for mistakes only

            suggestion = process.extractOne(args[0], list(self._lazy_commands), score_cutoff=60) if args else None
            if suggestion is None or args[0].startswith("-"):
                raise
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {suggestion[0]!r}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands with their summaries, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self._lazy_commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete the names of commands and options."""
        from click.shell_completion import CompletionItem  # lazily: needed for completion only

        options = click.Command.shell_complete(self, ctx, incomplete) if incomplete.startswith("-") else []
        names = [(name, summary) for name, (_, summary) in self._lazy_commands.items() if name.startswith(incomplete)]
        return [*options, *(CompletionItem(name, help=summary) for name, summary in names)]

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:  # the reader, such as `head`, has enough
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            ctx.exit(1)
        except Exception as error:
            target = ctx.ensure_object(Target)
            failure = _failure(error, target)
            if failure is None:
                raise
        failure.as_json = target.as_json
        raise failure


def _failure(error: Exception, target: Target) -> Failure | None:
    """The message for an expected error; ``None`` for a bug."""
    # Lazily: these modules are needed for errors only.
    from service.errors import ServiceError
    from service.local import StackError
    from tapeline import ApiError, ClientError

    if isinstance(error, ApiError):
        return Failure(_reword(error, target), error.problem)
    if isinstance(error, ClientError):
        return Failure(str(error), getattr(error, "problem", None))
    if isinstance(error, (StackError, ServiceError)):
        return Failure(str(error))
    if isinstance(error, OSError):
        return Failure(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return None


def _reword(error: ApiError, target: Target) -> str:
    """The message of an API error, with remedies in words of the command line."""
    if error.code == "key_required":
        has_key = target.key or os.environ.get("TAPELINE_API_KEYS")
        return (
            f"{error.detail if has_key else 'the service requires an API key'}: give one with --key KEY or "
            "TAPELINE_API_KEYS=KEY; the operator creates keys with: tapeline keys create NAME"
        )
    if "TAPELINE_OWNER_QUEUED" in error.detail:
        return f"{error}; cancel a job with: tapeline cancel JOB"
    if "TAPELINE_OWNER_ARTIFACTS" in error.detail:
        return f"{error}; delete a job with: tapeline delete JOB (the largest: tapeline jobs --sort -size_bytes)"
    return str(error)
