"""The ``tapeline`` command.

The module of a command is imported when the command runs, not for ``--help`` or shell completion. Errors are shown as
one line and a remedy, never as a traceback.

The summaries of commands are listed here, too, and a test compares them with the docstrings.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click

from service.cli.target import Failure, Target, service_options
from service.declarations import Entries, Feature, Room, extended, installed

if TYPE_CHECKING:
    from tapeline import ApiError

_EPILOG = (
    "JOB is an id, a name (if several jobs have it: the newest), or a unique part of either. predict, generate and "
    "export also take a version of a model: digits@champion, digits:3."
)
_OF_KERNEL: Final = {
    "up": ("demo", "Run the web page, API and workers on this machine until Ctrl-C."),
    "demo": ("demo", "Train a classifier and a GAN on handwritten digits; write the results to demo/."),
    "train": ("training", "Submit a job: train on a folder, a table, a dataset or a spec."),
    "watch": ("training", "Follow a job until it ends."),
    "fork": ("training", "Submit a job that continues from a checkpoint of another job."),
    "reproduce": ("training", "Train a succeeded job again and compare the results bit for bit."),
    "jobs": ("jobs", "List jobs, newest first."),
    "open": ("jobs", "Open the page of a job in the browser."),
    "download": ("jobs", "Download a job's files: checkpoints, curves, samples."),
    "workers": ("workers", "List the workers with your running jobs, drain one, or invite one on another machine."),
    "worker": ("workers", "Run one worker process, without web page and API."),
    "queue": ("people.owners", "Show your queued jobs, when they may start, and why they wait."),
    "owners": ("people.owners", "List owners with their shares, or show or change one."),
    "show": ("showing", "Show a job: state, metrics, settings, lineage, files."),
    "metrics": ("results", "Show a job's metrics, epoch by epoch."),
    "mistakes": ("results", "Show what a classifier gets wrong, most confident first."),
    "confusion": ("results", "Show the scores of each class, and what it is confused with."),
    "importance": ("results", "Show which columns of a table a network uses."),
    "residuals": ("results", "Show the rows for which a regressor is furthest from the target."),
    "predict": ("inference", "Classify images or rows, or predict the number of rows."),
    "generate": ("inference", "Generate images with a trained GAN."),
    "export": (
        "inference",
        "Export a trained model to another program: ONNX, PyTorch, TensorBoard, Hugging Face or MLflow.",
    ),
    "certify": (
        "models.certificates",
        "Download a certificate of a job: its checkpoint, signed, with its provenance.",
    ),
    "verify": ("models.certificates", "Verify a certificate, offline or by training again."),
    "signing-keys": ("models.certificates", "List, replace or retire the keys that sign certificates."),
    "cancel": ("jobs", "Cancel a job. A running job stops after the current batch."),
    "pause": ("jobs", "Pause a running job after the current batch; it can resume from its last checkpoint."),
    "resume": ("jobs", "Continue a paused job from its last checkpoint."),
    "retry": ("jobs", "Continue a failed job from its last checkpoint."),
    "star": ("jobs", "Star a job."),
    "note": ("jobs", "Set or show the note of a job."),
    "delete": ("jobs", "Delete an ended job with all its files."),
    "datasets": ("datasets", "List the available datasets, or show, publish or delete one."),
    "upload": ("datasets", "Upload a dataset."),
    "keys": ("access", "Manage API keys."),
    "audit": ("access", "Show the audit log."),
    "doctor": ("maintenance", "Diagnose the service: problems, remedies and disk usage."),
    "gc": ("maintenance", "Show or delete expired data."),
    "backup": ("maintenance", "Back up all rows and files."),
    "restore": ("maintenance", "Restore a backup into an empty service."),
    "store": ("maintenance", "Move the files of a service to another store."),
}
"""The module of each command in ``service.cli.commands``, and its line in the list of commands."""


def _of_feature(feature: Feature) -> Entries[tuple[str, str]]:
    lines = feature.commands.items.items()
    return Entries(feature.commands.after, {name: (feature.module(Room.COMMANDS), line) for name, line in lines})


COMMANDS: Final = extended(
    {name: (f"{__name__}.commands.{module}", line) for name, (module, line) in _OF_KERNEL.items()},
    map(_of_feature, installed()),
)
"""The module of each command, and its line in the list, with those of features."""


_SYNONYMS: Final = {"list": "jobs", "ls": "jobs", "ps": "jobs", "run": "train", "submit": "train", "rm": "delete"}
"""Commands of other programs, and those that do the same here."""


class Commands(click.Group):
    """A command group whose commands stand for those that are imported when they run; it turns expected errors into one
    line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names."""
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import and return a command."""
        if (meant := _SYNONYMS.get(args[0])) is not None:
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {meant!r}?", ctx)
        name, stand_in, rest = super().resolve_command(ctx, args)
        if name is None or stand_in is None:
            return name, None, rest
        attributes = vars(import_module(COMMANDS[name][0])).values()
        command = next(item for item in attributes if isinstance(item, click.Command) and item.name == name)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _print_warning
                warnings.simplefilter("once", UserWarning)
                return super().invoke(ctx)
        except Failure as refused:
            refused.as_json = ctx.ensure_object(Target).as_json
            raise
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            ctx.exit(130)  # as in shells
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


@click.group(
    cls=Commands,
    commands=[click.Command(name, short_help=summary) for name, (_, summary) in COMMANDS.items()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@service_options
@click.version_option(package_name="tapeline", message="%(version)s")
def main() -> None:
    """Train neural networks as jobs."""


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"{click.style('tapeline:', fg='yellow')} {message}", err=True)


def _failure(error: Exception, target: Target) -> Failure | None:
    """The message for an expected error; ``None`` for a bug."""
    # Lazily: these modules are needed for errors only.
    from service.errors import ServiceError
    from service.local import StackError
    from service.storage.database import is_database_fault
    from tapeline import ApiError, ClientError

    if isinstance(error, ClientError):
        message = _reword(error, target) if isinstance(error, ApiError) else str(error)
        return Failure(_in_options(message), getattr(error, "problem", None))
    if isinstance(error, (StackError, ServiceError)):
        return Failure(str(error))
    if is_database_fault(error):
        reason = str(getattr(error, "orig", error)).strip().partition("\n")[0]
        return Failure(f"the database cannot be used: {reason}; tapeline doctor names the cause and the remedy")
    if isinstance(error, OSError):
        return Failure(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return None


_OPTIONS: Final = {
    "on_bad=skip": "--on-bad skip",
    "channels=1": "--channels 1",
    "use split:": "use --split:",
    "  types: ": "  --type: ",
    "client.jobs() lists the jobs": "list the jobs with: tapeline jobs",
}
"""Arguments and methods of the client in the messages of its errors, as options and commands."""
_LISTING: Final = re.compile(r"client\.jobs\(q=['\"](.*)['\"]\) lists them")


_REQUEST: Final = re.compile(r"(?:GET|POST) /jobs/\w*(\w{6})/(\w+)$")


def _command(request: re.Match[str]) -> str:
    """The command that sends a request about a job."""
    short_id, name = request.groups()
    return f"tapeline {name} {short_id}{' FILE' if name == 'predict' else ''}"


def _in_options(message: str) -> str:
    for argument, option in _OPTIONS.items():
        message = message.replace(argument, option)
    return _LISTING.sub(r"see: tapeline jobs -q \1", message)


def _reword(error: ApiError, target: Target) -> str:
    """The message of an API error, with remedies in words of the command line."""
    if error.code == "key_required":
        has_key = target.key or os.environ.get("TAPELINE_API_KEYS")
        return (
            f"{error.detail if has_key else 'the service requires an API key'}: give one with --key KEY or "
            "TAPELINE_API_KEYS=KEY; the operator creates keys with: tapeline keys create NAME"
        )
    if error.code == "budget_spent":
        return f"{error.detail.partition(':')[0]}: give it more with --budget SECONDS"
    if error.code == "wrong_kind":
        return _REQUEST.sub(_command, error.detail)
    if "TAPELINE_OWNER_QUEUED" in error.detail:
        return f"{error}; cancel a job with: tapeline cancel JOB"
    if "TAPELINE_OWNER_ARTIFACTS" in error.detail:
        return f"{error}; delete a job with: tapeline delete JOB (the largest: tapeline jobs --sort -size_bytes)"
    return str(error)
