"""``tapeline doctor, gc, backup, restore``: commands for operators. They open database and files directly."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Final

import click

from service.cli.target import Failure
from service.datasets.uploads import UploadFolder
from service.local.broker import running_url
from service.maintenance import backup as copies
from service.maintenance import doctor as doctors
from service.maintenance import retention
from service.maintenance.retention import Policy, RetentionPlan
from service.maintenance.space import TRIAL_DAYS, Space, measure
from service.runtime.settings import Settings
from service.spec.metric_info import size
from service.storage.artifacts import ArtifactFolder
from service.storage.database import Database
from service.wording import counted
from tapeline.downloads import complete_file

_MAX_SHOWN_ITEMS: Final = 10


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Diagnose the service: problems, remedies and disk usage.

    Run it on the machine that hosts the service, with the same environment. It accesses the database and the files
    directly, so it also works when the service cannot start. Exit code 1: at least one check failed.
    """
    settings = Settings.from_env(os.environ, cores=1)
    results, space = [], None
    with closing(Database(settings.database_url, application="tapeline-doctor")) as database:
        broker_url = settings.broker_url or running_url(settings.home)
        for item in doctors.examine(settings, database, broker_url=broker_url):
            results.append(item)
            if not as_json:
                mark = click.style("ok  ", fg="green") if item.ok else click.style("FAIL", fg="red")
                click.echo(f"{mark} {item.name}: {item.detail}")
                if item.advice and not item.ok:
                    click.echo(f"     {click.style('->', fg='yellow')} {item.advice}")
        if {"database", "schema", "artifacts"} <= {item.name for item in results if item.ok}:
            space = measure(settings, database, ArtifactFolder(settings.artifacts))
            if not as_json:
                _show_space(space, settings)
    all_ok = all(item.ok for item in results)
    if as_json:
        checks = [asdict(item) for item in results]
        click.echo(json.dumps({"ok": all_ok, "checks": checks, "space": space and asdict(space)}, indent=2))
    context.exit(0 if all_ok else 1)


@click.command()
@click.option("--dry-run/--delete", default=True, help="List expired data (default), or delete it.")
@click.option(
    "--keep-jobs",
    "jobs_days",
    metavar="DAYS",
    type=click.FloatRange(0),
    help="Delete jobs that ended longer ago; 0: never. Default: TAPELINE_KEEP_JOBS_DAYS.",
)
@click.option(
    "--keep-checkpoints",
    "checkpoints_days",
    metavar="DAYS",
    type=click.FloatRange(0),
    help="Delete checkpoints of jobs that ended longer ago, except the best and the latest; 0: never. "
    "Default: TAPELINE_KEEP_CHECKPOINTS_DAYS.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with every item.")
def gc(dry_run: bool, as_json: bool, **days: float | None) -> None:
    """Show or delete expired data.

    This covers jobs, checkpoints and audit entries past their retention period, cached animations and plots older
    than a week, and orphaned files left by crashes. The scheduler deletes the same data every ten minutes.
    """
    with _open_service() as (settings, database, store):
        policy = replace(Policy.of(settings), **{name: value for name, value in days.items() if value is not None})
        plan = retention.plan(database, store, policy)
        if not dry_run:
            if retention.is_restoring(settings.artifacts):
                raise Failure("a restore is running, and its files have no rows yet: run gc when it has ended")
            plan = retention.carry_out(database, store, policy, plan)
    if as_json:
        click.echo(json.dumps({"deleted": not dry_run, "size_bytes": plan.size_bytes, **asdict(plan)}, indent=2))
    else:
        _show(plan, deleted=not dry_run)


@click.command()
@click.argument("target", metavar="FILE", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--verify", is_flag=True, help="Check an existing backup FILE (-: standard input); write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, to standard error.")
def backup(target: str, verify: bool, as_json: bool) -> None:
    """Back up the database and all files to FILE, a tar archive (-: standard output).

    The service can keep running.
    """
    if verify:
        with click.open_file(target, "rb") as source:
            _print_summary("verified", copies.verify(source), as_json=as_json)
        return
    with _open_service() as (settings, database, store):
        uploads = UploadFolder(settings.artifacts)
        with nullcontext(sys.stdout.buffer) if target == "-" else complete_file(Path(target)) as file:
            report = copies.backup(database, store, uploads, file)
    _print_summary("backed up", report, as_json=as_json)
    if report.damaged:
        damaged_files = "\n  ".join(report.damaged)
        raise Failure(
            f"damaged or missing, and not in the backup: {counted(len(report.damaged), 'file')}\n  {damaged_files}"
        )


@click.command()
@click.argument("source", metavar="FILE", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, to standard error.")
def restore(source: IO[bytes], as_json: bool) -> None:
    """Restore a backup from FILE (-: standard input) into an empty database and an empty artifact folder.

    A backup of SQLite can be restored to PostgreSQL, and vice versa.
    """
    settings = Settings.from_env(os.environ, cores=1)
    with closing(Database(settings.database_url, application="tapeline-restore")) as database:
        uploads = UploadFolder(settings.artifacts)
        report = copies.restore(database, ArtifactFolder(settings.artifacts), uploads, source)
    _print_summary("restored", report, as_json=as_json)


@contextmanager
def _open_service() -> Iterator[tuple[Settings, Database, ArtifactFolder]]:
    settings = Settings.from_env(os.environ, cores=1)
    with closing(Database(settings.database_url, application="tapeline-cli")) as database:
        if database.is_sqlite and not Path(settings.database_url.removeprefix("sqlite:///")).exists():
            raise Failure(f"no service in {settings.home}: set TAPELINE_HOME or TAPELINE_DATABASE_URL")
        yield settings, database, ArtifactFolder(settings.artifacts)


def _show(plan: RetentionPlan, *, deleted: bool) -> None:
    categories = (
        ("jobs", plan.jobs),
        ("checkpoints", plan.checkpoints),
        ("cached images", plan.pictures),
        ("orphaned files", plan.files),
    )
    for label, items in categories:
        total = sum(item.size_bytes for item in items)
        click.echo(f"{len(items):6} {label} ({size(total)})")
        for item in items[:_MAX_SHOWN_ITEMS]:
            click.echo(f"         {item.name}  {size(item.size_bytes)}")
        if len(items) > _MAX_SHOWN_ITEMS:
            click.echo(f"         and {len(items) - _MAX_SHOWN_ITEMS} more")
    if plan.audit_entries:
        click.echo(f"{plan.audit_entries:6} audit entries")
    if deleted:
        click.echo(f"deleted: {size(plan.size_bytes)} freed")
    else:
        click.echo(f"nothing was deleted; --delete would free {size(plan.size_bytes)}")


def _show_space(space: Space, settings: Settings) -> None:
    """Print what uses the disk, and the commands that free space."""
    click.echo(f"\nDisk space: {size(space.total_bytes)}")
    for kind, size_bytes in space.kinds.items():
        click.echo(f"  {kind:17} {size(size_bytes):>9}")
    if space.largest_jobs:
        click.echo("Largest jobs:")
    for job in space.largest_jobs:
        click.echo(f"  {size(job.size_bytes):>9}  {job.id}  {job.name or ''}".rstrip())
    if space.reclaimable_bytes:
        click.echo(f"`tapeline gc --delete` frees {size(space.reclaimable_bytes)} of expired data and orphaned files.")
    if space.old_checkpoints_bytes:
        click.echo(
            f"`tapeline gc --keep-checkpoints {TRIAL_DAYS:g} --delete` frees {size(space.old_checkpoints_bytes)} of "
            "checkpoints that are neither the best nor the latest of their job."
        )
    if not settings.keep_checkpoints_days and not settings.keep_jobs_days:
        click.echo("Retention is off: TAPELINE_KEEP_CHECKPOINTS_DAYS and TAPELINE_KEEP_JOBS_DAYS turn it on.")


def _print_summary(action: str, report: copies.Report, *, as_json: bool) -> None:
    if as_json:
        # To stderr, since stdout may be the backup. asdict() would rebuild the Counter from pairs, and count these.
        click.echo(json.dumps(asdict(report) | {"rows": report.rows}), err=True)
        return
    counts = {"job": report.rows.get("jobs", 0), "row": sum(report.rows.values()), "file": report.files}
    summary = ", ".join(counted(count, noun) for noun, count in counts.items())
    click.echo(f"{action}: {summary} ({size(report.size_bytes)})", err=True)
