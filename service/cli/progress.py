"""Follow jobs: progress bars in a terminal, plain lines in a pipe."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import click
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from service import kinds
from service.cli.target import Failure, Target
from service.cli.text import SHORT_ID, STOPPED, STYLES, clock, key_metrics, status_text, visible
from service.spec.metric_info import KEY_METRICS, describe, number
from service.states import TERMINAL, Status
from tapeline import Client, ClientError, Event, Job
from tapeline.notebook.cards import finding_name

_NAME_WIDTH: Final = 20
_POLL_INTERVAL_S: Final = 5.0
_SILENT_POLLS: Final = 3
"""Without an event for so many intervals, a running job has lost its worker: others report progress more often."""
_BLOCKS: Final = "▁▂▃▄▅▆▇█"


@dataclass(slots=True, kw_only=True)
class FollowedJob:
    """The state of a job, tracked from its events."""

    id: str
    kind: str
    label: str
    epochs: int = 0
    epoch: int = 0
    fraction: float = 0.0
    eta_s: float | None = None
    status: str = "queued"
    requested: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    """Values of each metric, by epoch."""
    error: Mapping[str, Any] | None = None
    sweep_id: str | None = None
    stopped_by_sweep: bool = False

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> FollowedJob:
        """Read the state from a job document of the API."""
        followed = cls(id=job["id"], kind=job["kind"], label=visible(job.get("name") or job["kind"]))
        followed.apply("snapshot", job)
        return followed

    def apply(self, kind: str, data: Mapping[str, Any]) -> None:
        """Update the state by the data of an event."""
        match kind:
            case "snapshot":
                self.apply("progress", data["progress"])
                self.status, self.requested, self.error = data["status"], data["requested"], data["error"]
                self.metrics = dict(data["metrics"])
                self.sweep_id, self.stopped_by_sweep = data.get("sweep_id"), bool(data.get("stopped_by_sweep"))
            case "progress":
                self.epoch, self.epochs, self.fraction = data["epoch"], data["epochs"], data["fraction"]
                self.eta_s = data.get("eta_seconds")
            case "metrics":
                self.metrics = dict(data["values"])
                self.epoch = max(self.epoch, data["epoch"])
                for name in kinds.of(self.kind).live_metrics:
                    if self.metrics.get(name) is not None:
                        self.history.setdefault(name, []).append(self.metrics[name])
            case "status":
                self.status, self.requested = data["status"], data.get("requested")
            case "end":
                self.status, self.error = data["status"], data.get("error")
                self.fraction = 1.0 if self.status == Status.SUCCEEDED else self.fraction

    @property
    def state(self) -> str:
        """Status, and a pending request."""
        if self.stopped_by_sweep and self.status == Status.CANCELLED:
            return STOPPED
        return status_text(self.status, self.requested)

    def values(self) -> list[tuple[str, str]]:
        """Labels and values of the displayed metrics, as text."""
        return key_metrics(self.metrics, kinds.of(self.kind).live_metrics)


def sparkline(values: Sequence[float], width: int) -> str:
    """A sparkline of the values; if there are too many, neighbours are averaged."""
    count = min(len(values), width)
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
    low, high = min(means), max(means)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((mean - low) / (high - low) * top) if high > low else 0] for mean in means)


def follow_jobs(client: Callable[[], Client], jobs: Sequence[FollowedJob], display: Display) -> None:
    """Display jobs until all of them have ended.

    Args:
        client: creates a client for each job's thread.

    Raises:
        ClientError: a stream failed permanently.
    """
    updates: queue.SimpleQueue[tuple[FollowedJob, Event | Exception | bool | None]] = queue.SimpleQueue()

    def stream_events(job: FollowedJob) -> None:
        def on_outage(is_unavailable: bool) -> None:
            updates.put((job, is_unavailable))

        try:
            with client() as own_client:
                followed = own_client.handle(job.id)
                for event in followed.events(on_outage=on_outage):
                    if job.sweep_id and event.type in ("status", "end") and event.data["status"] == Status.CANCELLED:
                        job.stopped_by_sweep = bool(followed.refresh().get("stopped_by_sweep"))
                    updates.put((job, event))
            updates.put((job, None))
        except Exception as error:  # noqa: BLE001 - raised again in the waiting thread
            updates.put((job, error))

    for job in jobs:
        threading.Thread(target=stream_events, args=(job,), name=f"stream-{job.label}", daemon=True).start()
    open_streams, broken_streams, silent_polls, shown = len(jobs), 0, 0, None
    while open_streams:
        try:
            job, item = updates.get(timeout=_POLL_INTERVAL_S)
            silent_polls = 0
        except queue.Empty:
            silent_polls += 1
            states = {Status.QUEUED} | ({Status.RUNNING} if silent_polls >= _SILENT_POLLS else set())
            if (waiting := next((job for job in jobs if job.status in states), None)) is None:
                continue
            with suppress(ClientError), client() as own_client:
                if (impediment := own_client.queue(limit=1).get("reason_text")) not in (None, shown):
                    display.note(waiting, impediment)
                shown = impediment
            continue
        match item:
            case None:
                open_streams -= 1
            case Exception():
                raise item
            case bool():  # all streams break together: report the first break and the last recovery
                if broken_streams == (0 if item else 1):
                    display.outage(item)
                broken_streams += 1 if item else -1
            case Event():
                _show(job, item, display)


def _show(job: FollowedJob, event: Event, display: Display) -> None:
    data = event.data
    job.apply(event.type, data)
    match event.type:
        case "health":
            text = finding_text(data) if data["state"] == "found" else f"{finding_name(data)} resolved"
            display.note(job, f"epoch {data['epoch']}: {text}")
        case "log" if data.get("message") and data.get("code") != "reproduced":  # `reproduce` prints the verdict
            display.note(job, f"{data.get('level', 'warning')}: {data['message']}")
    display.changed(job, event)


def finding_text(finding: Mapping[str, Any]) -> str:
    """A finding of health with its name: ``mode collapse: all samples are …``."""
    return f"{finding_name(finding)}: {finding['message']}"


def print_outcome(job: Job) -> None:
    """Print the best epoch of a job, its findings and the next commands to standard error."""
    if (best := job.best) is None:
        return
    name = KEY_METRICS[job.kind][0]
    interval = best["intervals"].get(name, {}).get("text")
    value = f": {describe(name).label} {number(name, best['metrics'].get(name))}" + (
        f" ({interval})" if interval else ""
    )
    lines = [f"best epoch {best['epoch']}{value}", *(finding_text(finding) for finding in job.health)]
    short_id = job.id[-SHORT_ID:]
    commands = [f"tapeline {text.format(short_id)}" for text in kinds.of(job.kind).next_commands]
    click.echo("\n".join([*lines, *(f"next: {command}" for command in commands)]), err=True)


def print_event(event: Event) -> None:
    """Print an event as a line of JSON."""
    click.echo(json.dumps({"seq": event.seq, "type": event.type, "data": event.data}))


def check_success(what: str, status: str, error: Mapping[str, Any] | None) -> None:
    """Raise ``Failure``, with the error, unless a job or a sweep has succeeded."""
    if status != Status.SUCCEEDED:
        raise Failure(f"{what} {status}" + (f": {explain(error)}" if error else ""), dict(error) if error else None)


def print_outage(is_unavailable: bool) -> None:
    """Print to standard error that the service stopped responding, or that it responds again."""
    click.echo("connection lost, reconnecting ..." if is_unavailable else "connection restored", err=True)


def watch_job(target: Target, job: Job, *, to_stderr: bool = False) -> None:
    """Follow a job until it ends; with ``--json``, print its events.

    Raises:
        Failure: it did not succeed.
    """
    followed = FollowedJob.of(job)
    try:
        if target.as_json and not to_stderr:
            for event in job.events():
                print_event(event)
                followed.apply(event.type, event.data)
        else:
            with display_of([followed], Console(highlight=False, stderr=to_stderr)) as display:
                follow_jobs(target.client, [followed], display)
    except KeyboardInterrupt:
        if not target.as_json and followed.status not in TERMINAL:
            click.echo(f"job {job.id} continues; stop it with: tapeline cancel {job.id}", err=True)
        raise
    check_success(f"job {job.id}", followed.status, followed.error)


class PlainDisplay:
    """One line per epoch and change of state, without control codes, for pipes and files."""

    def __init__(self, *, labelled: bool, to_stderr: bool = False) -> None:
        self._labelled, self._to_stderr = labelled, to_stderr
        self._states: dict[str, str] = {}

    def changed(self, job: FollowedJob, event: Event) -> None:
        """Print the change."""
        match event.type:
            case "metrics":
                values = "  ".join(f"{name} {value}" for name, value in job.values())
                width = len(str(job.epochs))
                self.note(job, f"epoch {event.data['epoch']:>{width}}/{job.epochs}  {values}")
            # Not for a snapshot: the log that follows has the same information, in order.
            case "status" | "end" if self._states.get(job.id) != job.state:
                self._states[job.id] = job.state
                self.note(job, job.state)

    outage = staticmethod(print_outage)

    def note(self, job: FollowedJob, text: str) -> None:
        """Print the message."""
        # click flushes
        click.echo(f"{job.label}  {text}" if self._labelled else text, err=self._to_stderr)


class BarDisplay(Progress):
    """A progress bar for each job, with messages above the bars; below them, sparklines of the metrics if there is a
    single job, and whether the service is unavailable."""

    _is_unavailable = False

    def __init__(self, jobs: Sequence[FollowedJob], console: Console) -> None:
        names = Column(no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH)
        name_width = min(max(len(job.label) for job in jobs), _NAME_WIDTH)
        bar_width = min(24, max(6, console.width - 90))  # metrics before bars
        super().__init__(
            TextColumn("{task.description}", markup=False, table_column=names),
            BarColumn(bar_width),
            _StateColumn(console.width - name_width - bar_width - 2),
            console=console,
            refresh_per_second=5,
        )
        self._bars = {job.id: self.add_task(job.label, total=1.0, job=job) for job in jobs}

    def changed(self, job: FollowedJob, event: Event) -> None:
        """Update the bar."""
        self.update(self._bars[job.id], completed=job.fraction)
        if event.type == "end":
            self.stop_task(self._bars[job.id])

    def note(self, job: FollowedJob, text: str) -> None:
        """Print the message above the bars."""
        self.console.print(f"[yellow]{escape(job.label)}: {escape(text)}[/]")

    def outage(self, is_unavailable: bool) -> None:
        """Show an outage below the bars while it lasts; the message about its end stays above them."""
        self._is_unavailable = is_unavailable
        self.refresh()
        if not is_unavailable:
            self.console.print("connection restored")

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars and sparklines."""
        yield self.make_tasks_table(self.tasks)
        if len(self.tasks) == 1:
            job: FollowedJob = self.tasks[0].fields["job"]
            curves = {name: values for name, values in job.history.items() if len(values) > 1}
            label_width = max((len(describe(name).label) for name in curves), default=0)
            for name, values in curves.items():
                line = sparkline(values, self.console.width - label_width - 30)
                first, last = number(name, values[0]), number(name, values[-1])
                label = describe(name).label
                yield Text.assemble(
                    (f"{label:>{label_width}}  ", "dim"), (f"{first} ", "dim"), (line, "cyan"), f" {last}"
                )
        if self._is_unavailable:
            yield Text("connection lost, reconnecting ...", "yellow")


class _StateColumn(ProgressColumn):
    """The progress of a job, and as many of its metrics as fit."""

    def __init__(self, available_width: int) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))
        self._available_width = available_width

    def render(self, task: Task) -> Text:
        """The column for one job."""
        job: FollowedJob = task.fields["job"]
        width = len(str(job.epochs))
        done = f"epoch {job.epoch:>{width}}/{job.epochs}" if kinds.of(job.kind).trains else f"{job.fraction:4.0%}"
        text = Text(done, no_wrap=True)
        suffix = Text()
        if job.status != "running" or job.requested:
            suffix = Text(f"  {job.state}", STYLES.get(job.status, "yellow"))
        elif job.eta_s is not None:
            suffix = Text(f"  {clock(job.eta_s)} left", "dim")
        remaining_width = self._available_width - len(text) - len(suffix)
        for label, value in job.values():
            remaining_width -= len(label) + len(value) + 3
            if remaining_width < 0:
                break
            text.append(f"  {label} ", style="dim").append(value)
        return text.append(suffix)


Display = PlainDisplay | BarDisplay


@contextmanager
def display_of(jobs: Sequence[FollowedJob], console: Console) -> Iterator[Display]:
    """The display for the console: bars in a terminal, plain lines elsewhere."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainDisplay(labelled=len(jobs) > 1, to_stderr=console.stderr)
        return
    with BarDisplay(jobs, console) as display:
        yield display


def explain(error: Mapping[str, Any]) -> str:
    """The error of a failed job, with advice."""
    text = str(error.get("message") or error.get("code"))
    return f"{text}; {error['hint']}" if error.get("hint") else text
