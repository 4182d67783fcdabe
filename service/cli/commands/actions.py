"""The commands that change jobs."""

from __future__ import annotations

from typing import Final

import click

from service.cli.target import Target, confirm_deletion, job_argument, service_options, yes_option
from service.cli.text import to_json
from tapeline import Job


def _action(name: str, summary: str) -> click.Command:
    @click.command(name, help=summary)
    @job_argument
    @service_options
    @click.pass_obj
    def act(target: Target, job_text: str) -> None:
        with target.job(job_text) as job:
            getattr(job, name)()
        _print_result(target, job, f"{job.status}, {job['requested']} requested" if job["requested"] else job.status)

    return act


@click.command()
@job_argument
@click.option("--remove", is_flag=True, help="Remove the star.")
@service_options
@click.pass_obj
def star(target: Target, job_text: str, remove: bool) -> None:
    """Star a job. Lists mark starred jobs."""
    with target.job(job_text) as job:
        job.change(starred=not remove)
    _print_result(target, job, "star removed" if remove else "starred")


@click.command()
@job_argument
@click.argument("text", required=False)
@click.option("--remove", is_flag=True, help="Remove the note.")
@service_options
@click.pass_obj
def note(target: Target, job_text: str, text: str | None, remove: bool) -> None:
    """Set or show the note of a job: with TEXT, set it; without TEXT, print it."""
    if text is not None and remove:
        raise click.UsageError("give TEXT or --remove, not both")
    with target.job(job_text) as job:
        if text is None and not remove:
            click.echo(to_json({"id": job.id, "note": job.get("note")}) if target.as_json else job.get("note") or "")
            return
        job.change(note=text)
    _print_result(target, job, "note removed" if remove else "note saved")


@click.command()
@job_argument
@yes_option
@service_options
@click.pass_obj
def delete(target: Target, job_text: str, yes: bool) -> None:
    """Delete an ended job with all its files. JOB is its whole id or name."""
    with target.client() as client:
        job = target.find_to_delete(client, job_text)
        named = f"{job.id} ({job.name})" if job.name else job.id
        confirm_deletion(f"the job {named} with all its files", yes=yes)
        job.delete()
    click.echo(to_json({"id": job.id, "deleted": True}) if target.as_json else f"{job.id}  deleted")


COMMANDS: Final = (
    _action("cancel", "Cancel a job. A running job stops after the current batch."),
    _action("pause", "Pause a running job after the current batch; it can resume from its last checkpoint."),
    _action("resume", "Continue a paused job from its last checkpoint."),
    _action("retry", "Continue a failed job from its last checkpoint."),
    star,
    note,
    delete,
)


def _print_result(target: Target, job: Job, outcome: str) -> None:
    click.echo(to_json(job) if target.as_json else f"{job.id}  {outcome}")
