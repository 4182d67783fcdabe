"""``tapeline demo``: the seed's two architectures on real digits, from nothing to pictures."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from service.cli.errors import Failure
from service.cli.jobs import size
from service.cli.progress import Watched, display_of, explain, follow
from service.cli.target import Target, service_options
from service.cli.up import cores, interrupt, say
from service.client import Client, ClientError
from service.contract.settings import Settings
from service.contract.states import Status
from service.local import HomeInUse, LocalStack, PortTaken

SPECS: Final[tuple[dict[str, Any], ...]] = (
    {"kind": "classifier", "preset": "fast", "name": "classifier", "tags": ["demo"]},
    {"kind": "gan", "preset": "stable", "name": "gan", "tags": ["demo"]},
)
_FOLDER: Final = Path("demo")
_CANCEL_S: Final = 5.0


@click.command()
@service_options
@click.pass_obj
def demo(target: Target) -> None:
    """Train a classifier and a GAN on handwritten digits; the results lie in demo/."""
    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, interrupt)
    began = time.monotonic()
    _FOLDER.mkdir(exist_ok=True)  # now, not when all is trained
    jobs: list[Watched] = []
    with _service(target, console) as (client, later):
        console.print("Ten thousand real digits: 8,500 to learn from, 1,500 to be checked with.")
        try:
            for spec in SPECS:
                jobs.append(Watched.of(client.submit(spec)))  # noqa: PERF401 - one by one, for _cancel
            with display_of(jobs, console) as display:
                follow(lambda: Client(client.server, client.key), jobs, display)
        except BaseException:  # Ctrl-C too: the next start would go on with them
            _cancel(client, jobs)
            with suppress(OSError):  # what an earlier demo left there stays
                _FOLDER.rmdir()
            raise
        for job in jobs:
            if job.status != Status.SUCCEEDED:
                why = f": {explain(job.error)}" if job.error else ""
                raise Failure(f"the {job.label} {job.status}{why}")
        finished = [client.get(job.id) for job in jobs]
        results = [client.results(job.id) for job in jobs]
        files = _fetch(client, *results)
    _sum_up(console, finished[0], finished[1], results[0])
    width = max(len(str(path)) for path, _ in files)
    for path, what in files:
        console.print(f"  {path!s:<{width}}  {size(path.stat().st_size):>7}  {what}")
    seconds = time.monotonic() - began
    console.print(f"\nDone in {seconds:.0f} s. Both jobs are kept; look at them in the browser: [bold]{later}[/]")


@contextmanager
def _service(target: Target, console: Console) -> Iterator[tuple[Client, str]]:
    """The service that was named, else the one that runs here, else one of our own for as long as it is needed;
    and how to get to its page later."""
    if target.server is not None:
        with target.client() as client:
            yield client, client.server
        return
    settings = Settings.from_env(os.environ, cores=cores())
    key = target.key or next(iter(settings.api_keys), None)
    # Two jobs side by side, on one core too.
    settings = replace(settings, workers=max(2, settings.workers))
    try:
        stack = _start(settings, console)
    except HomeInUse as error:
        if error.url is None:
            raise
        console.print(f"Using the Tapeline that runs at {error.url}.")
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
        stack = LocalStack(settings, notify=say(console))
        try:
            stack.start()
        except PortTaken:
            stack = LocalStack(replace(settings, port=0), notify=say(console))
            stack.start()
    return stack


def _cancel(client: Client, jobs: Sequence[Watched]) -> None:
    with suppress(ClientError):
        for job in jobs:
            with suppress(ClientError):  # it has ended already
                client.cancel(job.id)
        for job in jobs:
            with suppress(TimeoutError):
                client.wait(job.id, timeout_s=_CANCEL_S)


def _fetch(client: Client, classifier: Mapping[str, Any], gan: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Download what one wants to look at."""
    wanted = [
        ("classifier.safetensors", classifier["checkpoints"]["best"]["url"], "its weights, from the best epoch"),
        ("classifier-curves.png", classifier["plots"]["curves"], "loss and accuracy by epoch"),
        ("classifier-confusion.png", classifier["plots"]["confusion"], "which digit was taken for which"),
        ("classifier-digits.png", classifier["samples"]["latest"]["url"], "digits with what it took them for"),
        ("gan.safetensors", gan["checkpoints"]["latest"]["url"], "generator and discriminator"),
        ("gan-curves.png", gan["plots"]["curves"], "both losses by epoch"),
        ("gan-samples.png", gan["samples"]["latest"]["url"], "digits that it made up"),
        ("gan-film.gif", gan["samples"]["film"], "how it learned to"),
    ]
    return [(client.download(url, _FOLDER / name), what) for name, url, what in wanted]


def _sum_up(
    console: Console, classifier: Mapping[str, Any], gan: Mapping[str, Any], classified: Mapping[str, Any]
) -> None:
    accuracy = f"{classifier['metrics']['val_accuracy']:.2%} of digits it had never seen read correctly"
    best = classified["best"]
    if best and best["epoch"] != classifier["progress"]["epoch"]:
        accuracy += f" (best: {best['metrics']['val_accuracy']:.2%}, epoch {best['epoch']})"
    losses = f"d_loss {gan['metrics']['d_loss']:.3f}, g_loss {gan['metrics']['g_loss']:.3f}"
    console.print(f"\n  [bold]classifier[/]  {_seconds(classifier):>5} s  {accuracy}")
    console.print(f"  [bold]gan[/]         {_seconds(gan):>5} s  {losses}\n")


def _seconds(job: Mapping[str, Any]) -> str:
    began, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    return f"{(ended - began).total_seconds():.1f}"
