"""``tapeline up`` and ``tapeline demo``: the embedded stack in the foreground."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
from rich.console import Console
from rich.markup import escape

from service.cli.progress import FollowedJob, check_success, display_of, follow_jobs
from service.cli.target import Target, with_target
from service.cli.text import duration_s, key_metrics
from service.local import HomeInUse, LocalStack, PortTaken
from service.runtime import machine_limits
from service.runtime.files.private_files import private_umask
from service.runtime.settings import Settings
from service.spec.metric_info import KEY_METRICS, size
from tapeline import ApiError, Client, ClientError

SPECS: Final[tuple[dict[str, Any], ...]] = (
    {"kind": "classifier", "preset": "fast", "name": "classifier", "tags": ["demo"]},
    {"kind": "gan", "preset": "stable", "name": "gan", "tags": ["demo"]},
)
_FOLDER: Final = Path("demo")
_CANCEL_TIMEOUT_S: Final = 5.0


@click.command()
def up() -> None:
    """Run the web page, API and workers on this machine until Ctrl-C."""
    settings = Settings.from_env(os.environ, cores=machine_limits.processors())
    if settings.artifacts.is_relative_to(settings.home):  # a folder elsewhere may be for others, too
        click.get_current_context().with_resource(private_umask())
    console = Console(highlight=False, soft_wrap=True)
    for signal_number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, interrupt)
    stack = LocalStack(settings, notify=message_printer(console))
    with console.status("starting ..."):
        stack.start()
    try:
        console.print(f"\n  [bold]Tapeline[/] is running (concurrent jobs: {stack.settings.workers})\n")
        console.print(f"  page   [link]{stack.url}[/link]")
        console.print(f"  API    {stack.url}/docs")
        console.print(f"  state  {escape(str(stack.settings.home))}\n")
        console.print("  [dim]Ctrl-C stops; running jobs continue from their last checkpoint at the next start.[/]\n")
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        with suppress(OSError):  # a closed terminal must not prevent the shutdown
            console.print("stopping ... [dim](Ctrl-C again to stop immediately)[/]")
        stack.stop()
    console.print("stopped")


def interrupt(signal_number: int, frame: FrameType | None) -> None:
    """Treat a signal like Ctrl-C."""
    raise KeyboardInterrupt


def message_printer(console: Console) -> Callable[[str], None]:
    """A function that prints messages of the running stack."""

    def print_message(text: str) -> None:
        with suppress(OSError):  # the terminal is closed
            console.print(f"[yellow]{escape(text)}[/]")

    return print_message


@click.command()
@with_target
def demo(target: Target) -> None:
    """Train a classifier and a GAN on handwritten digits; write the results to demo/.

    With --json, print one document with both jobs and all files.
    """
    console = Console(highlight=False, soft_wrap=True, stderr=target.as_json)
    signal.signal(signal.SIGTERM, interrupt)
    started = time.monotonic()
    _FOLDER.mkdir(exist_ok=True)  # fail before training, not after
    jobs: list[FollowedJob] = []
    with _service(target, console) as (client, page_hint):
        console.print("10,000 handwritten digits: 8,500 for training, 1,500 for validation.")
        try:
            for spec in SPECS:
                jobs.append(FollowedJob.of(client.submit(spec)))  # noqa: PERF401 - one by one, for _cancel
            with display_of(jobs, console) as display:
                follow_jobs(lambda: Client(client.server, client.key), jobs, display)
        except BaseException:  # also on Ctrl-C: the next start would resume these jobs
            _cancel(client, jobs, console)
            with suppress(OSError):  # keep files of an earlier demo
                _FOLDER.rmdir()
            raise
        for job in jobs:
            check_success(f"the {job.label}", job.status, job.error)
        finished = [client.job(job.id) for job in jobs]
        results = [job.results() for job in finished]
        files = _fetch(client, *results)
    if target.as_json:
        file_documents = [
            {"path": str(path), "size_bytes": path.stat().st_size, "what": description} for path, description in files
        ]
        click.echo(json.dumps({"jobs": [job.document for job in finished], "files": file_documents}))
        return
    _print_summary(console, finished[0], finished[1], results[0])
    width = max(len(str(path)) for path, _ in files)
    for path, description in files:
        console.print(f"  {path!s:<{width}}  {size(path.stat().st_size):>7}  {description}")
    seconds = time.monotonic() - started
    console.print(f"\nDone in {seconds:.0f} s. Both jobs are stored; to view them in the browser: [bold]{page_hint}[/]")


@contextmanager
def _service(target: Target, console: Console) -> Iterator[tuple[Client, str]]:
    """The service named by --server, or the one running on this machine, or a temporary embedded one; and a hint on how
    to open its page later."""
    if target.server is not None:
        with target.client() as client:
            yield client, client.server
        return
    settings = Settings.from_env(os.environ, cores=machine_limits.processors())
    key = target.key or next(iter(settings.api_keys), None)
    # Run both jobs at once, even on one core.
    settings = replace(settings, workers=max(2, settings.workers))
    try:
        stack = _start(settings, console)
    except HomeInUse as error:
        if error.url is None:
            raise
        console.print(f"Using the running service at {error.url}.")
        with Client(error.url, key) as client:
            yield client, error.url
        return
    try:
        with Client(stack.url, key) as client:
            yield client, "make up" if Path("Makefile").is_file() else "tapeline up"
    finally:
        stack.stop()


def _start(settings: Settings, console: Console) -> LocalStack:
    with console.status("starting ..."):
        stack = LocalStack(settings, notify=message_printer(console), is_demo=True)
        try:
            stack.start()
        except PortTaken:
            stack = LocalStack(replace(settings, port=0), notify=message_printer(console), is_demo=True)
            stack.start()
    return stack


def _cancel(client: Client, jobs: Sequence[FollowedJob], console: Console) -> None:
    """Cancel unfinished jobs, and print the final state of each."""
    ended: list[tuple[FollowedJob, str]] = []
    with suppress(ClientError):
        for job in jobs:
            with suppress(ApiError):  # already ended
                client.handle(job.id).cancel()
        for job in jobs:
            with suppress(TimeoutError):
                ended.append((job, client.handle(job.id).wait(timeout_s=_CANCEL_TIMEOUT_S).status))
    if not jobs:
        return
    console.print("\nInterrupted.")
    for job, status in ended:
        console.print(f"  {job.label} ({job.id}): {status} after {job.epoch} of {job.epochs} epochs")
    for job in jobs[len(ended) :]:
        console.print(f"  {job.label} ({job.id}): not cancelled in time; it continues when Tapeline starts again")
    console.print("Checkpoints of completed epochs are kept. To delete a job: tapeline delete JOB")


def _fetch(client: Client, classifier: Mapping[str, Any], gan: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Download the most interesting files of a job."""
    downloads = [
        ("classifier.safetensors", classifier["checkpoints"]["best"]["url"], "weights of the best epoch"),
        ("classifier-curves.png", classifier["plots"]["curves"], "loss and accuracy by epoch"),
        ("classifier-confusion.png", classifier["plots"]["confusion"], "true and predicted digits"),
        ("classifier-digits.png", classifier["samples"]["latest"]["url"], "digits with their predicted classes"),
        ("gan.safetensors", gan["checkpoints"]["latest"]["url"], "generator and discriminator"),
        ("gan-curves.png", gan["plots"]["curves"], "both losses by epoch"),
        ("gan-samples.png", gan["samples"]["latest"]["url"], "generated digits"),
        ("gan-film.gif", gan["samples"]["film"], "generated digits, epoch by epoch"),
    ]
    return [(client.download(url, _FOLDER / name), description) for name, url, description in downloads]


def _print_summary(
    console: Console, classifier: Mapping[str, Any], gan: Mapping[str, Any], classifier_results: Mapping[str, Any]
) -> None:
    accuracy = f"{classifier['metrics']['val_accuracy']:.2%} of unseen digits classified correctly"
    best = classifier_results["best"]
    if best and best["epoch"] != classifier["progress"]["epoch"]:
        accuracy += f" (best: {best['metrics']['val_accuracy']:.2%}, epoch {best['epoch']})"
    losses = ", ".join(f"{label} {value}" for label, value in key_metrics(gan["metrics"], KEY_METRICS["gan"]))
    console.print(f"\n  [bold]classifier[/]  {duration_s(classifier):>5.1f} s  {accuracy}")
    console.print(f"  [bold]gan[/]         {duration_s(gan):>5.1f} s  {losses}\n")
