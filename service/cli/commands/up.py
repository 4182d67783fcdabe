"""``tapeline up``: the embedded stack in the foreground."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import click
from rich.console import Console
from rich.markup import escape

from service.local import LocalStack
from service.runtime import machine_limits
from service.runtime.settings import Settings


@click.command()
def up() -> None:
    """Run the web page, API and workers on this machine until Ctrl-C."""
    settings = Settings.from_env(os.environ, cores=machine_limits.processors())
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
