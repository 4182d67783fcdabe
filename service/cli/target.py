"""Options that all commands share: the service, its key, and the output format; lookup of jobs; failures."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import click

from tapeline.errors import AmbiguousJob, ApiError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from tapeline import Client, Job, Model
    from tapeline.method_types import Which

_UNITS: Final = {"m": 60, "h": 60 * 60, "d": 24 * 60 * 60}

Command = TypeVar("Command", bound=Callable[..., Any])


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


@dataclass(slots=True)
class Target:
    """The values of ``--server``, ``--key`` and ``--json``, given before or after the name of the command."""

    server: str | None = None
    key: str | None = None
    as_json: bool = False

    def client(self) -> Client:
        """A client of the service named by ``--server``, or of the one on this machine.

        Raises:
            click.UsageError: ``--server`` is not a URL.
        """
        from tapeline import Client  # lazily: --help and completion of options need no HTTP

        try:
            return Client(self.server, self.key, on_wait=None if self.as_json else _print_wait)
        except ValueError as error:
            raise click.UsageError(str(error)) from error

    def prints(self, document: Any) -> bool:
        """Print a document if ``--json`` is given; whether it was."""
        if self.as_json:
            click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=dict))
        return self.as_json

    def echo(self, document: Any, text: str) -> None:
        """Print a document with ``--json``, or else a text."""
        if not self.prints(document):
            click.echo(text)

    def find(self, client: Client, text: str) -> Job:
        """Find a job by its id, its name, or a unique part of either.

        If several jobs have the name, the newest is used, with a message on standard error.

        Raises:
            AmbiguousJob, ApiError: several jobs match, or none.
            click.UsageError: it is a sweep.
        """
        try:
            return self._find(client, text)
        except (AmbiguousJob, ApiError):
            if not text.startswith("job_") and any(text in (sweep["name"], sweep.id) for sweep in client.sweeps()):
                raise click.UsageError(f"{text} is a sweep: tapeline sweeps {text}") from None
            raise

    def _find(self, client: Client, text: str) -> Job:
        match = client.look_up(text)
        if match.namesakes > 1 and not self.as_json:
            click.echo(
                f"{match.namesakes} jobs are named {text!r}; using the newest, {match.job.id}",
                err=True,
            )
        return match.job

    @contextmanager
    def job(self, text: str) -> Iterator[Job]:
        """``find`` with a client that is closed at the end of the block."""
        with self.client() as client:
            yield self.find(client, text)

    def find_network(self, client: Client, text: str, checkpoint: Which = "best") -> Job | Model:
        """Find a trained network: a version of a model, ``digits@champion`` or ``digits:3``, or a job as ``find`` does.

        Raises:
            AmbiguousJob, ApiError: several jobs match, or nothing does.
            click.UsageError: another checkpoint of a version.
        """
        from tapeline.trained.registered import REFERENCE  # lazily, as the client

        if REFERENCE.fullmatch(text) is None:
            return self.find(client, text)
        try:
            model = client.model(text)
        except ApiError as error:
            if error.code not in ("model_not_found", "not_found"):
                raise
            with suppress(ApiError):
                return self.find(client, text)  # a name of a job may have the same form
            raise
        if checkpoint != "best":
            raise click.UsageError(f"{text} is one checkpoint: leave out --checkpoint, or name the job")
        return model

    @contextmanager
    def network(self, text: str, checkpoint: Which = "best") -> Iterator[Job | Model]:
        """``find_network`` with a client that is closed at the end of the block."""
        with self.client() as client:
            yield self.find_network(client, text, checkpoint)

    def find_side(self, client: Client, text: str) -> Job | str:
        """Like ``find``, or the id of a sweep or a trial, as ``Client.find_side``."""
        return client.find_side(text, find_job=partial(self._find, client))


def _print_wait(reason: str, seconds: float) -> None:
    click.echo(f"{reason}; trying again in {seconds:.0f} s (Ctrl-C stops)", err=True)


def service_options(command: Command) -> Command:
    """Add the shared options to a command."""

    def remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        target = context.ensure_object(Target)
        if value and parameter.name is not None:
            setattr(target, parameter.name, value)

    option = partial(click.option, expose_value=False, callback=remember)
    server_help = "URL of the service (default: http://127.0.0.1 with port TAPELINE_PORT or 8000)."
    command = option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
    command = option("--key", metavar="KEY", help="API key (default: the first one in TAPELINE_API_KEYS).")(command)
    return option("--server", metavar="URL", help=server_help)(command)


def with_target(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options to a command, whose first parameter is the ``Target``."""
    return service_options(click.pass_obj(command))


yes_option = click.option("--yes", "-y", is_flag=True, help="Delete without a question.")


def check_whole(kind: str, text: str, id_: str, name: str | None) -> None:
    """Raise ``click.UsageError`` if the text is only a part of an id or name: what is deleted must be named."""
    if text not in (id_, name):
        named = f"{id_} ({name})" if name else id_
        raise click.UsageError(f"{text!r} is only a part: to delete the {kind} {named}, give its whole id or name")


def confirm_deletion(what: str, *, yes: bool) -> None:
    """Ask on a terminal; a script is not asked.

    Raises:
        click.Abort: the answer is no.
    """
    if not yes and sys.stdin.isatty():
        click.confirm(f"Delete {what}?", abort=True, err=True)


Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def completer(offered: Callable[[Client, Mapping[str, Any], str], Iterable[tuple[str, str]]]) -> Completer:
    """Complete a value from what the service offers: values with their descriptions, for the other options of the
    command and the typed text; nothing if the service does not respond."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        target = context.find_object(Target) or Target()
        items: dict[str, str] = {}
        with suppress(Exception), target.client() as client:  # completion cannot show errors
            for value, text in offered(client, context.params, incomplete):
                if value.startswith(incomplete):
                    items.setdefault(value, text)
        return [CompletionItem(value, help=text) for value, text in items.items()]

    return complete


def _jobs(client: Client, options: Mapping[str, Any], incomplete: str) -> Iterator[tuple[str, str]]:
    for job in client.jobs(limit=100):
        is_named = job.name and (not incomplete or job.name.startswith(incomplete))
        yield str(job.name if is_named else job.id), f"{job.kind}, {job.status}"


def _models(client: Client, options: Mapping[str, Any], incomplete: str) -> Iterator[tuple[str, str]]:
    for model in client.models(limit=100):
        yield model.name, f"{model['versions']} versions"
        if "@" in incomplete or ":" in incomplete:
            for alias in (*model["aliases"], "latest"):
                yield f"{model.name}@{alias}", f"version {model['aliases'].get(alias, model['latest'])}"


def _networks(client: Client, options: Mapping[str, Any], incomplete: str) -> Iterator[tuple[str, str]]:
    for model in client.models(limit=100):
        for alias, version in model["aliases"].items():
            yield f"{model.name}@{alias}", f"version {version}"
    yield from _jobs(client, options, incomplete)


def _datasets(client: Client, options: Mapping[str, Any], incomplete: str) -> Iterator[tuple[str, str]]:
    return ((item["name"], item["title"]) for item in client.datasets())


def _presets(client: Client, options: Mapping[str, Any], incomplete: str) -> Iterator[tuple[str, str]]:
    kind = options.get("kind") or "classifier"
    return ((item["name"], item["summary"]) for item in client.presets() if item["kind"] == kind)


def complete_settings(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names of settings."""
    from click.shell_completion import CompletionItem

    from service.jobs.queries.setting_schemas import setting_names

    return [CompletionItem(f"{name}=") for name in setting_names() if name.startswith(incomplete)]


complete_jobs: Final = completer(_jobs)
complete_models: Final = completer(_models)
complete_datasets: Final = completer(_datasets)
complete_presets: Final = completer(_presets)

job_argument = click.argument("job_text", metavar="JOB", shell_complete=complete_jobs)
network_argument = click.argument("network_text", metavar="JOB|MODEL@ALIAS", shell_complete=completer(_networks))


def checkpoint_option(default: str, *names: str) -> Callable[[Command], Command]:
    """The option ``--checkpoint``, whose value is as the client expects it: ``best``, ``latest`` or an epoch."""
    return click.option(
        "--checkpoint",
        *names,
        default=default,
        show_default=True,
        metavar="best|latest|N",
        callback=_parse_checkpoint,
        help="N is an epoch number.",
    )


def _parse_checkpoint(context: click.Context, parameter: click.Parameter, value: str) -> Which:
    match value:
        case "best" | "latest":
            return value
        case _ if value.isdecimal() and int(value) > 0:
            return int(value)
    raise click.BadParameter(f"{value!r} is not best, latest or an epoch number")


def parse_duration_s(option: str, text: str, *, or_zero: bool = False) -> float:
    """Seconds of an option such as ``90d``, ``12h`` or ``30m``."""
    if or_zero and text == "0":
        return 0.0
    match = re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", text)
    if match is None:
        raise click.UsageError(f"{option} is {text!r}: write it as 90d, 12h or 30m")
    return float(int(match[1]) * _UNITS[match[2]])
