"""The commands that change jobs."""

from __future__ import annotations

import click

from service.cli.target import Target, confirm_deletion, job_argument, with_target, yes_option


def _action(name: str, summary: str) -> click.Command:
    @click.command(name, help=summary)
    @job_argument
    @with_target
    def act(target: Target, job_text: str) -> None:
        with target.job(job_text) as job:
            getattr(job, name)()
        outcome = f"{job.status}, {job['requested']} requested" if job["requested"] else job.status
        target.echo(job, f"{job.id}  {outcome}")

    return act


@click.command()
@job_argument
@click.option("--remove", is_flag=True, help="Remove the star.")
@with_target
def star(target: Target, job_text: str, remove: bool) -> None:
    """Star a job. Lists mark starred jobs."""
    with target.job(job_text) as job:
        job.change(starred=not remove)
    target.echo(job, f"{job.id}  {'star removed' if remove else 'starred'}")


@click.command()
@job_argument
@click.argument("text", required=False)
@click.option("--remove", is_flag=True, help="Remove the note.")
@with_target
def note(target: Target, job_text: str, text: str | None, remove: bool) -> None:
    """Set or show the note of a job: with TEXT, set it; without TEXT, print it."""
    if text is not None and remove:
        raise click.UsageError("give TEXT or --remove, not both")
    with target.job(job_text) as job:
        if text is None and not remove:
            target.echo({"id": job.id, "note": job.get("note")}, job.get("note") or "")
            return
        job.change(note=text)
    target.echo(job, f"{job.id}  {'note removed' if remove else 'note saved'}")


@click.command()
@job_argument
@yes_option
@with_target
def delete(target: Target, job_text: str, yes: bool) -> None:
    """Delete an ended job with all its files. JOB is its whole id or name."""
    with target.client() as client:
        job = target.find_to_delete(client, job_text)
        named = f"{job.id} ({job.name})" if job.name else job.id
        confirm_deletion(f"the job {named} with all its files", yes=yes)
        job.delete()
    target.echo({"id": job.id, "deleted": True}, f"{job.id}  deleted")


cancel = _action("cancel", "Cancel a job. A running job stops after the current batch.")
pause = _action("pause", "Pause a running job after the current batch; it can resume from its last checkpoint.")
resume = _action("resume", "Continue a paused job from its last checkpoint.")
retry = _action("retry", "Continue a failed job from its last checkpoint.")
