"""The commands about workers. ``invite`` and ``worker`` need no service: they use the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Column
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import DBAPIError

from migrations.roles import WORKER
from service.access import audit
from service.access.audit import AuditAction
from service.cli.commands.access import open_database, operator
from service.cli.target import Failure, Target, service_options, with_target
from service.cli.text import print_table
from service.maintenance import worker_invitation
from service.runtime.files.private_files import protect_redirected
from service.runtime.settings import SETTINGS, Settings
from service.storage.database import Database
from tapeline import Client
from tapeline.downloads import complete_file

_IMPEDIMENTS: Final = ("no_worker", "storage", "dataset", "memory")
"""Reasons why no job starts at all."""
_TITLES: Final = ("NAME", "HOST", "PROCESS", "SLOTS", "STATE", "JOBS", "VERSION", "CPU", "NUMPY")
_TITLES_IN_BRIEF: Final = 6
_MIN_WIDTH_WITH_BUILDS: Final = 130


@click.group(invoke_without_command=True)
@service_options
@click.pass_context
def workers(context: click.Context) -> None:
    """List the workers of the last minute with your running jobs, or drain one (scope admin).

    A worker's name is TAPELINE_WORKER_NAME, or its host name. Commands take it, or the id that --json shows.
    """
    if context.invoked_subcommand is not None:
        return
    target = context.ensure_object(Target)
    with target.client() as client:
        listed = client.workers()
        queue = client.queue(limit=1)
    if target.prints(listed):
        return
    if listed:
        console = Console()
        shown = len(_TITLES) if not console.is_terminal or console.width >= _MIN_WIDTH_WITH_BUILDS else _TITLES_IN_BRIEF
        columns = [Column(title, overflow="fold") for title in _TITLES[:shown]]
        print_table(columns, [_cells(worker)[:shown] for worker in listed])
    for worker in listed:
        if worker["differs_text"]:
            click.echo(f"{worker['name']}: {worker['differs_text']}")
    if queue["reason"] in _IMPEDIMENTS:  # tapeline queue shows the others
        click.echo(queue["reason_text"])


def _cells(worker: Mapping[str, Any]) -> tuple[str, ...]:
    """A worker as a row of a table."""
    state = "busy" if worker["running"] else "idle"
    state = next((name for name in ("draining", "blocked") if worker[name]), state)
    jobs = ", ".join(job["name"] or job["id"] for job in worker["jobs"])
    slots = f"{worker['running']}/{worker['slots']}"
    numpy = ", ".join(filter(None, [worker["numpy"], *worker["blas"]]))
    build = (worker["version"] or "-", worker["cpu"] or "-", numpy or "-")
    return worker["name"], worker["host"], str(worker["pid"]), slots, state, jobs, *build


@workers.command()
@click.argument("worker")
@click.option("--finish", is_flag=True, help="Let its running jobs end first; other workers continue them otherwise.")
@with_target
def drain(target: Target, worker: str, finish: bool) -> None:
    """Let a worker claim no more jobs, for example before its machine is stopped.

    It takes effect within five seconds. A worker that is started again is not drained.
    """
    with target.client() as client:
        item = client.drain_worker(_find(client, worker), running="finish" if finish else "release")
    target.echo(item, f"{item['id']}  draining: its jobs {'end first' if finish else 'are released'}")


@workers.command()
@click.argument("worker")
@with_target
def undrain(target: Target, worker: str) -> None:
    """Let a drained worker claim jobs again."""
    with target.client() as client:
        item = client.undrain_worker(_find(client, worker))
    target.echo(item, f"{item['id']}  claims jobs again")


def _find(client: Client, text: str) -> str:
    """The id of a worker, given its id or its name."""
    ids = [worker["id"] for worker in client.workers() if text in (worker["id"], worker["name"])]
    if len(ids) > 1:
        raise click.UsageError(f"{len(ids)} workers are named {text!r}: give an id, one of {', '.join(ids)}")
    return ids[0] if ids else text  # the service says what it knows of others


@workers.command()
@click.argument("name", required=False, default="")
@click.option("--host", help="Address of this machine for others, in place of 127.0.0.1, a socket or a compose name.")
@click.option(
    "--share",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="The folder of the store on that machine, if it is no bucket.",
)
@click.option("--role", default=WORKER, show_default=True, help="Role of PostgreSQL.")
@click.option(
    "--password-file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with its password (default: the one that compose's setup writes).",
)
@click.option("--image", default="tapeline", show_default=True, help="Image on that machine.")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the file here, readable by you alone (default: print it).",
)
@with_target
def invite(
    target: Target,
    name: str,
    host: str | None,
    share: Path | None,
    role: str,
    password_file: Path | None,
    image: str,
    output: Path | None,
) -> None:
    """Print what a worker NAME on another machine needs, for a file worker.env there.

    Run it on the machine that hosts the service, with the same environment. How to use the file is printed on standard
    error. The file has passwords: of a role that can only train jobs, of the broker, and of the store.
    """
    protect_redirected(sys.stdout)
    settings = Settings.from_env(os.environ, cores=1)
    if not SETTINGS["TAPELINE_WORKER_NAME"].valid(name):
        raise click.UsageError(f"NAME must {SETTINGS['TAPELINE_WORKER_NAME'].rule}")
    if share is not None and not share.is_absolute():
        raise click.UsageError("--share must be an absolute path")
    worker_invitation.check(settings, host=host, share=share)
    invitation = worker_invitation.invite(
        settings,
        os.environ,
        role=role,
        password=_password(settings, password_file, role),
        host=host,
        share=share,
        name=name,
    )
    with open_database() as database:
        login = make_url(invitation.variables["TAPELINE_DATABASE_URL"])
        _check_role(make_url(settings.database_url).set(username=login.username, password=login.password))
        with database.write() as session:
            audit.record(session, operator(), AuditAction.INVITE_WORKER, name or None, role=role)
    commands = {
        "docker": invitation.docker_command("worker.env", image),
        "command": "tapeline worker --env-file worker.env",
    }
    if output is not None:
        with complete_file(output, private=True) as file:
            file.write(invitation.env_file().encode())
    if target.prints({"variables": dict(invitation.variables), "remarks": list(invitation.remarks), **commands}):
        return
    if output is None:
        click.echo(invitation.env_file(), nl=False)
    click.echo(
        f"\nStore {'this' if output is None else output} as worker.env on the other machine, and start the worker\n"
        f"there, in a container with the same image:\n\n{commands['docker']}\n\n"
        f"or from an environment with the same version of Tapeline:\n\n{commands['command']}",
        err=True,
    )


def _password(settings: Settings, path: Path | None, role: str) -> str:
    """The password of the role of workers."""
    written = settings.home / "secrets" / "app" / "worker"
    if path is None and not written.exists():
        raise Failure(
            f"there is no file {written} with the password of the role {role}: docker compose up writes it. "
            "Elsewhere, make a role, give it its privileges with python -m migrations.upgrade --grant-to-workers ROLE, "
            "and name it with --role and --password-file"
        )
    return (path or written).read_text(encoding="utf-8").strip()


def _check_role(url: URL) -> None:
    """Check that the role can log in and may train jobs."""
    with closing(Database(url.render_as_string(hide_password=False), application="tapeline-cli")) as database:
        try:
            with database.engine.connect() as connection:
                connection.execute(text("SELECT 1 FROM workers LIMIT 1"))
        except DBAPIError as error:
            reason = str(error.orig).strip().splitlines()[0]
            raise Failure(
                f"a worker could not use the database: {reason}. Make the role and its privileges: docker compose up "
                f"setup migrate, or python -m migrations.upgrade --grant-to-workers {url.username}"
            ) from error


@click.command("worker")
@click.option(
    "--env-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with variables, as `tapeline workers invite` prints it; those of the environment take precedence.",
)
def run_worker(env_file: Path | None) -> None:
    """Run one worker process, without web page and API, until SIGTERM or Ctrl-C: then its jobs are released."""
    environ = (_read_variables(env_file) if env_file is not None else {}) | os.environ
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "workers"], environ)  # noqa: S606 - no shell, our own module


def _read_variables(path: Path) -> dict[str, str]:
    """The variables of a file in the syntax of ``docker run --env-file``: NAME=VALUE, without quotes."""
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name, equals, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals:
            raise Failure(f"{path} line {number} must be NAME=VALUE")
        found[name] = value
    return found
