"""``tapeline doctor, gc, backup, restore``: for operators; they open database and files themselves."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Final

import click

from service.cli.errors import Failure
from service.contract.artifacts import ArtifactFolder
from service.contract.database import Database
from service.contract.settings import Settings
from service.contract.uploads import UploadFolder
from service.local.broker import running_url
from service.upkeep import backup as copies
from service.upkeep import doctor as doctors
from service.upkeep import retention
from service.upkeep.retention import Plan, Policy

_SHOWN: Final = 10


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Check the service, and say how to repair it; exit code 1 if a check fails.

    It examines the database, broker and folders that the environment names: run it where the service runs.
    """
    settings = Settings.from_env(os.environ, cores=1)
    found = []
    with closing(Database(settings.database_url, application="tapeline-doctor")) as database:
        broker_url = settings.broker_url or running_url(settings.home)
        for item in doctors.examine(settings, database, broker_url=broker_url):
            found.append(item)
            if not as_json:
                click.echo(
                    f"{click.style('ok   ', fg='green') if item.ok else click.style('FAIL ', fg='red')} "
                    f"{item.name:10} {item.detail}"
                )
                if item.advice and not item.ok:
                    click.echo(f"      {'':10} {click.style('->', fg='yellow')} {item.advice}")
    well = all(item.ok for item in found)
    if as_json:
        click.echo(json.dumps({"ok": well, "checks": [asdict(item) for item in found]}, indent=2))
    context.exit(0 if well else 1)


@click.command()
@click.option("--dry-run/--delete", default=True, help="Only show what would be deleted (default), or delete it.")
@click.option(
    "--keep-jobs", "jobs_days", metavar="DAYS", type=click.FloatRange(0), help="Overrides TAPELINE_KEEP_JOBS_DAYS."
)
@click.option(
    "--keep-checkpoints",
    "checkpoints_days",
    metavar="DAYS",
    type=click.FloatRange(0),
    help="Overrides TAPELINE_KEEP_CHECKPOINTS_DAYS.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs: every file by its name.")
def gc(dry_run: bool, jobs_days: float | None, checkpoints_days: float | None, as_json: bool) -> None:
    """Show or delete expired data.

    Expired are jobs and checkpoints past their retention (the best and the latest checkpoint are kept), and orphaned
    files. The scheduler deletes the same data by itself, as the settings say.
    """
    with _service() as (settings, database, store):
        policy = Policy(
            jobs_days=settings.keep_jobs_days if jobs_days is None else jobs_days,
            checkpoints_days=settings.keep_checkpoints_days if checkpoints_days is None else checkpoints_days,
        )
        going = retention.plan(database, store, policy)
        if not dry_run:
            going = retention.carry_out(database, store, policy, going)
    if as_json:
        click.echo(json.dumps({"deleted": not dry_run, "size_bytes": going.size_bytes, **asdict(going)}, indent=2))
    else:
        _show(going, deleted=not dry_run)


@click.command()
@click.argument("target", metavar="FILE", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "--verify", is_flag=True, help="Write nothing: check every byte of the backup FILE (- is standard input)."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, to standard error.")
def backup(target: str, verify: bool, as_json: bool) -> None:
    """Back up all rows and files into FILE, a tar archive, or to standard output if FILE is -.

    The service may keep running.
    """
    if verify:
        with click.open_file(target, "rb") as source:
            _tell("verified", copies.verify(source), as_json=as_json)
        return
    with _service() as (settings, database, store):
        received = UploadFolder(settings.artifacts)
        if target == "-":
            report = copies.backup(database, store, received, sys.stdout.buffer)
        else:
            unfinished = Path(f"{target}.unfinished")
            try:
                with unfinished.open("wb") as file:
                    report = copies.backup(database, store, received, file)
                    file.flush()
                    os.fsync(file.fileno())
                unfinished.rename(target)
            finally:
                unfinished.unlink(missing_ok=True)
    _tell("backed up", report, as_json=as_json)
    if report.damaged:
        lost = "\n  ".join(report.damaged)
        raise Failure(f"{len(report.damaged)} files are damaged and not in the backup:\n  {lost}")


@click.command()
@click.argument("source", metavar="FILE", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, to standard error.")
def restore(source: IO[bytes], as_json: bool) -> None:
    """Restore FILE (or standard input, if FILE is -) into an empty database and an empty artifacts folder.

    The database may be of the other kind: from the embedded stack to Docker Compose, for example.
    """
    settings = Settings.from_env(os.environ, cores=1)
    with closing(Database(settings.database_url, application="tapeline-restore")) as database:
        received = UploadFolder(settings.artifacts)
        report = copies.restore(database, ArtifactFolder(settings.artifacts), received, source)
    _tell("restored", report, as_json=as_json)


COMMANDS: Final = (doctor, gc, backup, restore)


@contextmanager
def _service() -> Iterator[tuple[Settings, Database, ArtifactFolder]]:
    settings = Settings.from_env(os.environ, cores=1)
    with closing(Database(settings.database_url, application="tapeline-cli")) as database:
        if database.is_sqlite and not Path(settings.database_url.removeprefix("sqlite:///")).exists():
            raise Failure(f"no database in {settings.home}: set TAPELINE_HOME or TAPELINE_DATABASE_URL")
        yield settings, database, ArtifactFolder(settings.artifacts)


def _show(going: Plan, *, deleted: bool) -> None:
    parts = (("jobs", going.jobs), ("checkpoints", going.checkpoints), ("orphaned files", going.files))
    for what, items in parts:
        size = sum(item.size_bytes for item in items)
        click.echo(f"{len(items):6} {what} ({_bytes(size)})")
        for item in items[:_SHOWN]:
            click.echo(f"         {item.name}  {_bytes(item.size_bytes)}")
        if len(items) > _SHOWN:
            click.echo(f"         and {len(items) - _SHOWN} more")
    if deleted:
        click.echo(f"deleted; {_bytes(going.size_bytes)} freed")
    else:
        click.echo(f"{_bytes(going.size_bytes)} can be freed; nothing was deleted yet: repeat with --delete")


def _tell(done: str, report: copies.Report, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(report)), err=True)  # standard output may be the backup
        return
    rows = sum(report.rows.values())
    click.echo(
        f"{done}: {report.rows.get('jobs', 0)} jobs, {rows} rows, {report.files} files ({_bytes(report.size_bytes)})",
        err=True,
    )


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
