"""``tapeline doctor, gc, backup, restore, store``: commands for operators. They open database and files directly."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import make_url

from service import hooks
from service.cli.target import Failure
from service.datasets.uploads import UploadFiles
from service.local.broker import running_url
from service.maintenance import doctor as doctors
from service.maintenance import file_checks, named_files, retention, store_id, store_migration
from service.maintenance.backups import backup as copies
from service.maintenance.backups import rotation, signing_key_backup
from service.maintenance.doctor import Diagnosis
from service.maintenance.file_checks import Damage
from service.maintenance.retention import Policy, RetentionPlan
from service.maintenance.space import TRIAL_DAYS, Space, measure
from service.maintenance.store_migration import MigrationReport
from service.runtime.files.durable_files import fsync_folder
from service.runtime.files.private_files import private_umask, protect_redirected
from service.runtime.settings import Settings
from service.spec.metric_info import size
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.stores import open_store, settings_of
from service.wording import counted
from tapeline.addresses import local_server
from tapeline.downloads import complete_file

_MAX_SHOWN_ITEMS: Final = 10
_STEPS: Final = 10
"""Lines of progress that are printed into a pipe."""


@click.command()
@click.option("--files", "with_files", is_flag=True, help="Read all stored files, and list those that are damaged.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(context: click.Context, with_files: bool, as_json: bool) -> None:
    """Diagnose the service: problems, remedies and disk usage.

    Run it on the machine that hosts the service, with the same environment. It accesses the database and the files
    directly, so it also works when the service cannot start. Exit code 1: at least one check failed.
    """
    settings = Settings.from_env(os.environ, cores=1)
    results, space, file_check = [], None, None

    def report(item: Diagnosis) -> None:
        results.append(item)
        if not as_json:
            mark = click.style("ok  ", fg="green") if item.ok else click.style("FAIL", fg="red")
            click.echo(f"{mark} {item.name}: {item.detail}")
            if item.advice and not item.ok:
                click.echo(f"     {click.style('->', fg='yellow')} {item.advice}")

    if not as_json:
        url = make_url(settings.database_url).render_as_string(hide_password=True)
        click.echo(f"Examined: folder {settings.home}, database {url}; not the service at {local_server()}")
    with closing(Database(settings.database_url, application="tapeline-doctor")) as database:
        broker_url = settings.broker_url or running_url(settings.home)
        for item in doctors.examine(settings, database, broker_url=broker_url, with_files=not with_files):
            report(item)
        if {"database", "schema", "artifacts"} <= {item.name for item in results if item.ok}:
            if with_files:
                file_check = _read_files(settings, database, shown=not as_json)
                report(doctors.diagnose_files(file_check.checked, file_check.damaged))
                if not as_json and len(file_check.damaged) > 1:
                    _show_damaged(file_check.damaged)
            space = measure(settings, database, open_store(settings))
            if not as_json:
                _show_space(space, settings)
    all_ok = all(item.ok for item in results)
    if as_json:
        checks = [asdict(item) for item in results]
        document = {"ok": all_ok, "checks": checks, "space": space and asdict(space)}
        if with_files:
            document["files"] = file_check and asdict(file_check)
        click.echo(json.dumps(document, indent=2))
    context.exit(0 if all_ok else 1)


@dataclass(slots=True)
class _FileCheck:
    """The files that were read; a dataset counts as one."""

    checked: int = 0
    size_bytes: int = 0
    damaged: list[Damage] = field(default_factory=list)


def _read_files(settings: Settings, database: Database, *, shown: bool) -> _FileCheck:
    with database.read() as session:
        check = _FileCheck(named_files.count(session))
        total = named_files.size_bytes(session)
    try:
        with _progress("reading", shown=shown, as_bytes=True) as progress:

            def on_read(count: int) -> None:
                check.size_bytes += count
                progress(min(check.size_bytes, total), total)

            check.damaged.extend(file_checks.read_all(database, UploadFiles.of(settings), on_read))
    except OSError as error:
        raise Failure(f"the files cannot be read now: {error.strerror or error}") from error
    return check


def _show_damaged(damaged: Sequence[Damage]) -> None:
    for item in damaged:
        click.echo(f"     {item.path}: {item.reason}")
        click.echo(f"       {item.file}{f' of {item.job}' if item.job else ''}: {item.meaning}")
        click.echo(f"       {click.style('->', fg='yellow')} {item.remedy}")


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

    This covers jobs, checkpoints, audit entries and messages past their retention period, cached animations and plots
    older than a week, and orphaned files left by crashes. The scheduler deletes the same data every ten minutes.
    """
    with _open_service() as (settings, database, store):
        given: dict[str, Any] = {name: value for name, value in days.items() if value is not None}
        policy = replace(Policy.of(settings), **given)
        plan = retention.plan(database, store, policy)
        if not dry_run:
            if retention.is_restoring(settings.artifacts):
                raise Failure("a restore is running, and its files have no rows yet: run gc when it has ended")
            store_id.verify(database, store)  # the files of another service would be orphans
            plan = retention.carry_out(database, store, policy, plan)
    if as_json:
        document = {"deleted": not dry_run, "size_bytes": plan.size_bytes, **asdict(plan)}
        rows = document.pop("rows")
        click.echo(json.dumps(document | rows, indent=2))
    else:
        _show(plan, deleted=not dry_run)


@click.command()
@click.argument("target", metavar="FILE", type=click.Path(allow_dash=True))
@click.option("--verify", is_flag=True, help="Check an existing backup FILE (-: standard input); write nothing.")
@click.option("--files", is_flag=True, help="Include all files although they are in an object store.")
@click.option(
    "--with-signing-key",
    "signing_key",
    is_flag=True,
    help="Include the private key that signs certificates: anyone with the backup can sign.",
)
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(1),
    help="FILE is a folder: write a file named after the time, verify it, then remove older ones but the newest N.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, to standard error.")
def backup(target: str, keep: int | None, *, verify: bool, files: bool, signing_key: bool, as_json: bool) -> None:
    """Back up the database and all files to FILE, a tar archive (-: standard output), which you alone can read.

    The service can keep running. With an object store, the backup has the names and digests of the files, and needs
    the store to be restored; --files includes the files.
    """
    if keep is not None and (verify or target == "-" or Path(target).is_file()):
        raise click.UsageError("with --keep, FILE must be a folder, and nothing else is verified")
    if verify:
        with click.open_file(target, "rb") as source:
            _print_summary("verified", copies.verify(source), as_json=as_json)
        return
    if keep is None and Path(target).is_dir():
        raise click.UsageError(f"{target} is a folder: with --keep N, a new backup is written there")
    _create_privately()
    with _open_service() as (settings, database, _):
        uploads = UploadFiles.of(settings)
        key = signing_key_backup.read(settings, database) if signing_key else None
        if signing_key and key is None:
            click.echo(f"there is no signing key yet: {settings.signing_key_file} does not exist", err=True)

        def write(file: IO[bytes]) -> copies.Report:
            with_files = files or not settings.store
            return copies.backup(database, uploads, file, with_files=with_files, signing_key=key)

        if keep is not None:
            report = _rotate(Path(target), keep, database, uploads.store, write)
        elif target == "-":
            protect_redirected(sys.stdout)
            report = write(sys.stdout.buffer)
        else:
            with complete_file(Path(target), private=True) as file:
                report = write(file)
    _print_summary("backed up", report, as_json=as_json)
    if report.damaged:
        damaged_files = "\n  ".join(report.damaged)
        kept = "; all older backups were kept" if keep is not None else ""
        raise Failure(
            f"damaged or missing, and not in the backup{kept}: {counted(len(report.damaged), 'file')}\n"
            f"  {damaged_files}"
        )


def _rotate(
    folder: Path, keep: int, database: Database, store: ArtifactStore, write: Callable[[IO[bytes]], copies.Report]
) -> copies.Report:
    """Write a backup into a folder. Older ones are removed once it is verified, and only if it lacks no file, which an
    older one may have."""
    store_id.verify(database, store)  # a service that has not started yet has no id
    with rotation.locked(folder):
        path = rotation.new_path(folder)
        with complete_file(path, private=True) as file:
            report = write(file)
        fsync_folder(folder)
        click.echo(f"wrote {path}", err=True)
        with path.open("rb") as written:
            copies.verify(written)
            written.seek(0)
            service = copies.service_of(written)
        if not report.damaged and service is not None:
            for removed in rotation.remove_older(path, service=service, keep=keep):
                click.echo(f"removed {removed}", err=True)
    return report


@click.command()
@click.argument("source", metavar="FILE", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, to standard error.")
def restore(source: IO[bytes], as_json: bool) -> None:
    """Restore a backup from FILE (-: standard input) into an empty database and an empty store.

    A backup of SQLite can be restored to PostgreSQL, and vice versa. A backup without files needs the store that has
    them; exit code 1: some are not in it. A signing key in the backup is put back into its file, never over another
    one. The files belong to you, and others cannot read them: run it as the user of the service.
    """
    _create_privately()
    settings = Settings.from_env(os.environ, cores=1)
    key_file = None if settings.signing_command else settings.signing_key_file
    with closing(Database(settings.database_url, application="tapeline-restore")) as database:
        report = copies.restore(database, UploadFiles.of(settings), source, signing_key_file=key_file)
    _print_summary("restored", report, as_json=as_json)
    if report.signing_key is not None and key_file is None:
        click.echo("not restored: the signing key, because TAPELINE_SIGNING_COMMAND signs here", err=True)
    if report.damaged:
        lost_files = "\n  ".join(report.damaged)
        raise Failure(f"not in the store, and not restored: {counted(len(report.damaged), 'file')}\n  {lost_files}")


def _create_privately() -> None:
    """Let nobody else read what this command creates."""
    click.get_current_context().with_resource(private_umask())


@contextmanager
def _open_service() -> Iterator[tuple[Settings, Database, ArtifactStore]]:
    settings = Settings.from_env(os.environ, cores=1)
    with closing(Database(settings.database_url, application="tapeline-cli")) as database:
        if database.is_sqlite and not Path(settings.database_url.removeprefix("sqlite:///")).exists():
            raise Failure(f"no service in {settings.home}: set TAPELINE_HOME or TAPELINE_DATABASE_URL")
        yield settings, database, open_store(settings)


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
    for expired in hooks.expired():
        if count := plan.rows[expired.name]:
            click.echo(f"{count:6} {expired.noun}")
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
    if report.store is not None:
        click.echo(f"without the files, which are in {report.store}", err=True)
    if report.signing_key is not None:
        click.echo(f"with the signing key {report.signing_key}", err=True)


@click.group()
def store() -> None:
    """Move the files of a service to another store."""


@store.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--from-endpoint", metavar="URL", help="Server of FROM that speaks S3. Default: TAPELINE_STORE_ENDPOINT.")
@click.option("--to-endpoint", metavar="URL", help="Server of TO that speaks S3. Default: TAPELINE_STORE_ENDPOINT.")
@click.option("--copy-only", is_flag=True, help="Copy, and leave the service with FROM; run the command again later.")
@click.option("--skip-damaged", is_flag=True, help="Move the service although files are missing or damaged in FROM.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def migrate(
    source: str,
    target: str,
    from_endpoint: str | None,
    to_endpoint: str | None,
    *,
    copy_only: bool,
    skip_damaged: bool,
    as_json: bool,
) -> None:
    """Copy all files from store FROM to store TO, and move the service there.

    FROM and TO are values of TAPELINE_STORE: file:///folder, s3://bucket/prefix, gs://... or az://.... The service can
    keep running: from the end of the copying on, its workers claim no jobs until they are restarted with the new
    TAPELINE_STORE. Run the command again if it was interrupted. Exit code 1: files are missing or damaged in FROM.
    """
    _create_privately()
    default = os.environ.get("TAPELINE_STORE_ENDPOINT", "")
    from_endpoint = from_endpoint or (default if source.startswith("s3:") else "")
    to_endpoint = to_endpoint or (default if target.startswith("s3:") else "")
    with _open_service() as (settings, database, _), _progress("copying", shown=not as_json) as progress:
        report = store_migration.migrate(
            database,
            UploadFiles.of(settings_of(source, from_endpoint, settings.ca)),
            UploadFiles.of(settings_of(target, to_endpoint, settings.ca)),
            home=settings.datasets_cache,  # in a container, the home folder is read-only
            progress=progress,
            copy_only=copy_only,
            skip_damaged=skip_damaged,
        )
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        _show_migration(report, target, to_endpoint)
    if report.damaged:
        damaged_files = "\n  ".join(report.damaged)
        remedy = (
            ""
            if report.switched
            else (
                "\nThe service was not moved. Restore these files, or delete their jobs, and run the command again. "
                "With --skip-damaged it moves the service without them"
            )
        )
        raise Failure(
            f"damaged or missing, and not copied: {counted(len(report.damaged), 'file')}\n  {damaged_files}{remedy}"
        )


def _show_migration(report: MigrationReport, target: str, endpoint: str) -> None:
    if report.copied or report.present:
        click.echo(f"copied {counted(report.copied, 'file')} ({size(report.size_bytes)}); {report.present} were there")
    if not report.switched:
        return
    if report.waiting:
        click.echo("some workers did not notice the move within 30 s: look at tapeline workers")
    click.echo("the service has moved. Now restart web, workers and scheduler with:")
    click.echo(f"  TAPELINE_STORE={target}")
    if endpoint:
        click.echo(f"  TAPELINE_STORE_ENDPOINT={endpoint}")
    click.echo("and without TAPELINE_ARTIFACTS. Until then, jobs wait; those that run are queued, and lose no epoch.")


@contextmanager
def _progress(verb: str, *, shown: bool, as_bytes: bool = False) -> Iterator[store_migration.Progress]:
    """A bar in a terminal, lines in a pipe; on standard error."""
    if not shown or not sys.stderr.isatty():
        step = 0

        def print_line(done: int, total: int) -> None:
            nonlocal step
            if shown and total and done * _STEPS // total > step:
                step = done * _STEPS // total
                amounts = f"{size(done)} of {size(total)}" if as_bytes else f"{done} of {total} files"
                click.echo(f"{verb}: {amounts}", err=True)

        yield print_line
        return
    amount = DownloadColumn() if as_bytes else MofNCompleteColumn()
    columns = (TextColumn(verb), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
