"""The commands of the model registry: versions, and aliases that move under gates."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from service.cli.target import (
    Failure,
    Target,
    checkpoint_option,
    complete_models,
    confirm_deletion,
    job_argument,
    service_options,
    with_target,
    yes_option,
)
from service.cli.text import owner_names, print_rows, print_table, visible, with_owners
from service.spec.metric_info import describe, number, size
from service.wording import counted
from tapeline import ApiError, Client, GateFailed, Job, Model, Sweep
from tapeline.method_types import Which
from tapeline.trained.registered import REFERENCE

_POLL_INTERVAL_S: Final = 0.5
_SHOWN_METRICS: Final = 3
_OWNER: Final = "tapeline.models.owner"
_MARKS: Final = {True: ("✓", "green"), False: ("✗", "red")}

model_argument = click.argument("name", metavar="MODEL", shell_complete=complete_models)
version_argument = click.argument("reference", metavar="MODEL:N", shell_complete=complete_models)
alias_argument = click.argument("alias")
reason_option = click.option("--reason", help="Why; it stays in the history.")


@click.group(invoke_without_command=True)
@click.option("--owner", metavar="OWNER", help="Whose models; '*' lists those of all (scope admin).")
@service_options
@click.pass_context
def models(context: click.Context, owner: str | None) -> None:
    """List the registered models; register and show versions, and move aliases.

    A model is a name for networks with one purpose. Its versions are checkpoints, which never change; an alias is a
    name for one version at a time. `tapeline predict digits@champion FILE` predicts with the version that the alias
    champion holds, digits:3 is version 3, and digits@latest the newest.
    """
    context.meta[_OWNER] = owner
    if context.invoked_subcommand is not None:
        return
    target = context.ensure_object(Target)
    with target.client() as client:
        items = list(client.models(owner=owner))
        if target.prints([item.document for item in items]):
            return
        names = owner_names(client, items) if owner else []
    if not items:
        click.echo("no models yet; register a trained job with: tapeline models register JOB digits", err=True)
        return
    rows = [
        (
            item.name,
            item["kind"] or "-",
            f"{item.name}:{item['latest']}" if item["latest"] else "-",
            ", ".join(f"@{alias} {version}" for alias, version in item["aliases"].items()) or "-",
            _metrics_text(item["metrics"], 1),
            item["created_at"][:10],
        )
        for item in items
    ]
    titles = ("NAME", "KIND", "NEWEST", "ALIASES", "METRIC", "CREATED")
    columns = [Column(title, overflow="fold", no_wrap=title in ("NAME", "CREATED")) for title in titles]
    print_table(*with_owners(columns, rows, names))


@models.command("show", short_help="Show a model with aliases and versions, or one version.")
@model_argument
@with_target
def show(target: Target, name: str) -> None:
    """Show a model with its aliases, gates and versions; or one version: digits@champion, digits:3."""
    with target.client() as client:
        model = _model(client, name)
        if model.reference != model.name:
            if not target.prints(model.document):
                _print_version(model)
            return
        aliases, versions = model.aliases(), model.versions()
    if target.prints(model.document | {"alias_rows": aliases, "version_rows": versions}):
        return
    print_rows([("Model", model.name), ("Kind", model["kind"] or "-"), ("Page", model.page)])
    click.echo()
    if aliases:
        rows = [_alias_cells(item) for item in aliases]
        print_table([Column(title, overflow="fold") for title in ("ALIAS", "VERSION", "GATES", "LAST MOVE")], rows)
        click.echo()
    rows = [
        (
            str(item["version"]),
            ", ".join(f"@{alias}" for alias in item["aliases"]) or "-",
            _metrics_text(item, _SHOWN_METRICS),
            f"{item['job'][-6:]}, epoch {item['checkpoint']}",
            item["note"] or "-",
        )
        for item in versions
    ]
    print_table([Column(title, overflow="fold") for title in ("VERSION", "ALIASES", "METRICS", "JOB", "NOTE")], rows)


def _alias_cells(item: Mapping[str, Any]) -> Sequence[str]:
    gates = "\n".join(_texts(item["gates"])) or "-"
    forced = " (forced)" if item["forced"] else ""
    moved = (item["moved_at"] or "-")[:16].replace("T", " ")
    return f"@{item['alias']}", str(item["version"] or "-"), gates, f"{moved}{forced}"


def _print_version(model: Model) -> None:
    rows = [
        ("Version", str(model["reference"])),
        ("Aliases", ", ".join(f"@{alias}" for alias in model["aliases"]) or "-"),
        ("Kind", model.kind),
        ("Job", f"{model['job']}, epoch {model['checkpoint']}"),
        *((describe(name).label, number(name, value)) for name, value in model.metrics.items()),
        ("Checkpoint", f"{size(model['size_bytes'])}, SHA-256 {model['sha256']}"),
        ("Registered", model["created_at"][:16].replace("T", " ") + " UTC"),
        *([("Note", model["note"])] if model["note"] else []),
        *(("Approved", f"by {item['owner']}: {item['note'] or '-'}") for item in model["approvals"]),
        ("Page", model.page),
    ]
    print_rows(rows)


def _metrics_text(values: Mapping[str, Any], count: int) -> str:
    """The first metrics of a version: ``val accuracy 97.10%, val loss 0.1``."""
    metrics = [(name, value) for name, value in values.items() if isinstance(value, float)][:count]
    return ", ".join(f"{describe(name).label} {number(name, value)}" for name, value in metrics) or "-"


@models.command("register", short_help="Register a checkpoint of JOB as the next version of MODEL.")
@job_argument
@model_argument
@checkpoint_option("best")
@click.option("--note", help="Free text.")
@with_target
def register(target: Target, job_text: str, name: str, checkpoint: Which, note: str | None) -> None:
    """Register a checkpoint of JOB as the next version of MODEL, which is created with its first version.

    A checkpoint with the same bytes is the same version. Job and checkpoint are kept as long as the version.
    """
    with target.job(job_text) as job:
        version = job.register(name, checkpoint=checkpoint, note=note)
    job_name = job.name or version["job"][-6:]
    text = f"{version['reference']}  checkpoint of epoch {version['checkpoint']} of {visible(str(job_name))}"
    target.echo(version.document, text)
    if not target.as_json:
        click.echo(f"next: tapeline models move {version.name} champion {version.version}", err=True)


@models.command("move")
@model_argument
@alias_argument
@click.argument("version", type=click.IntRange(1))
@click.option("--dry-run", is_flag=True, help="Only check the gates; exit code 1 if one is not met.")
@click.option("--supply", is_flag=True, help="Start what the gates still need, wait for it, and try again.")
@click.option("--force", is_flag=True, help="Move it although gates are not met (scope admin); needs --reason.")
@reason_option
@with_target
def move(
    target: Target,
    name: str,
    alias: str,
    version: int,
    dry_run: bool,
    supply: bool,
    force: bool,
    reason: str | None,
) -> None:
    """Move ALIAS of MODEL to a version that meets its gates.

    Each gate is printed with what it found. If somebody moves the alias at the same time, it is not moved.
    """
    alias = alias.removeprefix("@")
    if dry_run and (force or supply):
        raise click.UsageError("--dry-run moves and starts nothing: leave out --force and --supply")
    with target.client() as client:
        model = _model(client, name)
        held = _held(model, alias)

        def attempt() -> dict[str, Any]:
            return model.move(alias, version, reason=reason, force=force, dry_run=dry_run, after=held["seq"])

        try:
            answer = attempt()
        except GateFailed as error:
            if not supply or not _can_be_supplied(error):
                _refuse(target, error, version, model)
            _wait(target, model.supply(error.gates))
            try:
                answer = attempt()
            except GateFailed as second:
                _refuse(target, second, version, model)
    if not target.prints(answer):
        _print_findings(answer["findings"])
        _print_move(model, held, answer, dry_run=dry_run)
    if dry_run and not answer["passed"]:
        click.get_current_context().exit(1)


def _print_move(model: Model, held: Mapping[str, Any], answer: Mapping[str, Any], *, dry_run: bool) -> None:
    reference, was = f"{model.name}@{answer['alias']}", held["version"]
    if dry_run:
        gates = counted(len(answer["findings"]), "gate")
        click.echo(f"{reference} has no gates" if not answer["findings"] else f"{gates} checked, nothing moved")
    elif answer["moved"]:
        before = f" (was {was})" if was else ""
        forced = "  forced: gates were not met" if answer["forced"] else ""
        click.echo(f"{reference} is version {answer['version']}{before}{forced}")
    else:
        click.echo(f"{reference} is version {answer['version']} already")


def _held(model: Model, alias: str) -> Mapping[str, Any]:
    """An alias as it is; of a name that nobody has used, one that holds nothing."""
    return next((item for item in model.aliases() if item["alias"] == alias), {"version": None, "seq": 0, "gates": []})


def _refuse(target: Target, error: GateFailed, version: int, model: Model) -> NoReturn:
    """Print what each gate found, and raise the failure with the commands that help."""
    if not target.as_json:
        _print_findings(error.gates)
    hints = []
    if _can_be_supplied(error):
        move_it = f"tapeline models move {model.name} {_alias_of(error)} {version} --supply"
        hints.append(f"start what is missing, and try again: {move_it}")
    if any(_is_approval(remedy) for gate in error.gates for remedy in gate["remedies"]):
        hints.append(f"approve it with another key: tapeline models approve {model.name}:{version}")
    headline = str(error).partition("\n")[0]
    raise Failure("\n".join([headline, *(f"  {hint}" for hint in hints)]), error.problem) from None


def _can_be_supplied(error: GateFailed) -> bool:
    """Whether requests supply what is missing, and not other people."""
    return any(not _is_approval(remedy) for gate in error.gates for remedy in gate["remedies"])


def _is_approval(remedy: Mapping[str, Any]) -> bool:
    return str(remedy["path"]).endswith("/approvals")


def _alias_of(error: GateFailed) -> str:
    return error.detail.partition("gates of @")[2].partition(":")[0]


def _print_findings(findings: Sequence[Mapping[str, Any]]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal or not findings:
        for finding in findings:
            click.echo(f"{_MARKS[finding['passed']][0]} {visible(finding['sentence'])}")
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        mark, style = _MARKS[finding["passed"]]
        table.add_row(Text(mark, style), Text(visible(finding["sentence"])))
    console.print(table)


def _wait(target: Target, started: Sequence[Job | Sweep]) -> None:
    """Wait for jobs and sweeps, with their progress; Ctrl-C leaves them running."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(24), TextColumn("{task.fields[status]}"))
    is_shown = console.is_terminal and not target.as_json
    with Progress(*columns, console=console, disable=not is_shown) as progress:
        tasks = [progress.add_task(_name_of(item), total=1.0, status=item.status) for item in started]
        while any(not item.ended for item in started):
            time.sleep(_POLL_INTERVAL_S)
            for item, task in zip(started, tasks, strict=True):
                if not item.ended:
                    progress.update(task, completed=_fraction(item.refresh()), status=item.status)
    if not is_shown and not target.as_json:
        for item in started:
            click.echo(f"{_name_of(item)}  {item.status}", err=True)


def _name_of(item: Job | Sweep) -> str:
    kind = "reproduction" if isinstance(item, Job) else "sweep"
    return visible(str(item["name"] or f"{kind} {item.id[-6:]}"))


def _fraction(item: Job | Sweep) -> float:
    if isinstance(item, Job):
        return float(item["progress"]["fraction"])
    done = int(item["epochs_trained"]) + int(item["epochs_reused"])
    return done / max(1, int(item["epochs_started"]))


@models.command("rollback", short_help="Move ALIAS back to the version that it held before.")
@model_argument
@alias_argument
@reason_option
@with_target
def rollback(target: Target, name: str, alias: str, reason: str | None) -> None:
    """Move ALIAS back to the version that it held before; another rollback goes further back."""
    with target.client() as client:
        model = _model(client, name)
        held = _held(model, alias.removeprefix("@"))
        answer = model.rollback(alias, reason=reason, after=held["seq"] or None)
    target.echo(answer, f"{answer['reference']} is version {answer['version']} again (was {held['version'] or '-'})")


@models.command("remove")
@model_argument
@alias_argument
@with_target
def remove(target: Target, name: str, alias: str) -> None:
    """Let ALIAS hold no version. Its gates and its history stay."""
    with target.client() as client:
        model = _model(client, name)
        model.remove_alias(alias, after=_held(model, alias.removeprefix("@"))["seq"] or None)
    reference = f"{model.name}@{alias.removeprefix('@')}"
    target.echo({"reference": reference, "version": None}, f"{reference} holds no version")


@models.command("history", short_help="List the moves of ALIAS with their evidence.")
@model_argument
@alias_argument
@with_target
def history(target: Target, name: str, alias: str) -> None:
    """List the moves of ALIAS, newest first, with what its gates found at that time."""
    with target.client() as client:
        moves = _model(client, name).history(alias)
    if target.prints(moves):
        return
    rows: list[Sequence[str]] = []
    for item in moves:
        versions = f"{item['from_version'] or '-'} → {item['to_version'] or '-'}"
        found = [f"{_MARKS[gate['passed']][0]} {gate['sentence']}" for gate in item["gates"]]
        text = "\n".join([*filter(None, [item["reason"]]), *found]) or "-"
        at, forced = item["at"][:16].replace("T", " "), ", forced" if item["forced"] else ""
        rows.append((str(item["seq"]), at, versions, f"{item['kind']}{forced}", text))
    titles = ("MOVE", "AT (UTC)", "VERSION", "KIND", "REASON AND GATES")
    print_table([Column(title, overflow="fold", no_wrap=title == "AT (UTC)") for title in titles], rows)


class _Gates(click.Command):
    """The command about gates, whose help has an example of each kind."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write it."""
        from service.features.registry.gates import examples  # lazily: it loads the tables

        self.help = (self.help or "").replace("EXAMPLES", ", ".join(examples(is_markdown=False, with_defaults=False)))
        super().format_help_text(ctx, formatter)


@models.command("gates", cls=_Gates)
@model_argument
@alias_argument
@click.option("--add", "added", multiple=True, metavar="JSON", help="Add a gate; repeatable (scope admin).")
@click.option("--set", "new", metavar="FILE|JSON", help="Replace all gates by a list; [] removes them (scope admin).")
@with_target
def gates(target: Target, name: str, alias: str, added: Sequence[str], new: str | None) -> None:
    """Show or set the gates of ALIAS: what a version must meet before it moves there.

    A gate is one of EXAMPLES.
    """
    with target.client() as client:
        model = _model(client, name)
        item = _held(model, alias.removeprefix("@"))
        if new is not None or added:
            conditions = item["gates"] if new is None else _read(new, "--set")
            if not isinstance(conditions, list):
                raise click.UsageError("--set takes a list of gates, such as '[{\"reproduced\": true}]'")
            item = model.set_gates(alias, [*conditions, *(_read(text, "--add") for text in added)])
    if target.prints(item["gates"]):
        return
    for text in _texts(item["gates"]):
        click.echo(text)
    if not item["gates"]:
        click.echo(f"{model.name}@{alias.removeprefix('@')} has no gates", err=True)


def _texts(gates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Gates in words."""
    if not gates:
        return []
    from service.features.registry.gates import gate_text  # lazily: it loads the tables

    return [gate_text(gate) for gate in gates]


def _read(text: str, option: str) -> Any:
    """JSON, or that of a file (-: standard input)."""
    if not text.lstrip().startswith(("[", "{")):
        text = sys.stdin.read() if text == "-" else Path(text).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{option}: not valid JSON: {error}") from None


@models.command("approve", short_help="Approve a version, with another key.")
@version_argument
@click.option("--note", help="What was checked.")
@with_target
def approve(target: Target, reference: str, note: str | None) -> None:
    """Approve a version, with a key other than the one that registered it."""
    with target.client() as client:
        model = _model(client, reference, needs_version=True)
        version = model.approve(model.version, note)
    target.echo(version, f"{version['reference']}  {counted(len(version['approvals']), 'approval')}")


@models.command("delete", short_help="Delete a version, or a model.")
@click.argument("reference", metavar="MODEL[:N]", shell_complete=complete_models)
@yes_option
@with_target
def delete(target: Target, reference: str, yes: bool) -> None:
    """Delete a version that no alias holds, or a model none of whose aliases holds a version or has gates. Its jobs
    stay."""
    with target.client() as client:
        model = _model(client, reference)
        if model.reference == model.name:
            confirm_deletion(f"the model {model.name} with its versions and history", yes=yes)
            model.delete()
        elif "@" in model.reference:
            raise click.UsageError(f"name the version itself: tapeline models delete {model['reference']}")
        else:
            confirm_deletion(f"the version {model.reference}", yes=yes)
            model.delete_version(model.version)
    click.echo(f"deleted {reference}", err=True)


def _model(client: Client, reference: str, *, needs_version: bool = False) -> Model:
    if needs_version and REFERENCE.fullmatch(reference) is None:
        raise click.UsageError(f"{reference!r} is not a version: write MODEL:N or MODEL@ALIAS, such as digits:3")
    try:
        return client.model(reference, owner=click.get_current_context().meta.get(_OWNER))
    except ApiError as error:
        if error.code != "model_not_found":
            raise
        raise Failure(f"{error.detail}; list the models with: tapeline models", error.problem) from None
