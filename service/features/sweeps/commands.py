"""The commands of sweeps: start one and follow it, list them, show and control one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, Literal

import click
from rich.console import Console
from rich.table import Column
from rich.text import Text

from service.cli.commands.training import set_option, settings_of
from service.cli.progress import check_success, print_event, print_outage
from service.cli.spec_files import refuse_yaml
from service.cli.target import Target, check_whole, confirm_deletion, with_target, yes_option
from service.cli.text import STYLES, about, owner_names, print_rows, print_table, with_owners
from service.features.sweeps.search_space import range_text, seeds_of, space_of
from service.spec.metric_info import KEY_METRICS, describe, number
from service.states import SweepStatus, TrialStatus
from service.wording import counted, listed, value_text
from tapeline import ApiError, Client
from tapeline.inputs.values import dotted
from tapeline.operations.training import suited_kind
from tapeline.sweeps import Sweep

_DRAWN_TRIALS: Final = 16
"""As in the form of the page."""
_MAX_SHOWN_TRIALS: Final = 20
_MAX_COLUMN_WIDTH: Final = 24
_MIN_IMPORTANCE_TRIALS: Final = 4
"""The service measures no importance with fewer."""
_EXHAUSTED: Final = {"budget": "the budget is used up", "failures": "too many have failed"}
_BY_VALUE: Final = ("best", "value", "-value")
"""Orders that begin with the highest rung."""


@click.command()
@click.argument("spec", type=click.File("rb"), required=False)
@click.option("--dataset", metavar="NAME", help="Train on this dataset of the service.")
@click.option(
    "--try",
    "tries",
    multiple=True,
    metavar="FIELD=VALUES",
    help="Try a range, FROM..TO, or a list, A,B,C, of a setting; its last part is enough if unique; repeatable.",
)
@click.option(
    "--seeds", metavar="N", help="Train each combination with the seeds 0 to N-1, or with a list of seeds: 3,7,11."
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    metavar="N",
    help=f"Number of combinations to draw at random (default: with a range {_DRAWN_TRIALS}, else all combinations).",
)
@click.option("--kind", type=click.Choice(tuple(KEY_METRICS)), help="What to train (default: what suits the data).")
@click.option("--preset", metavar="NAME", help="Start from this preset (default: the one that suits the dataset).")
@click.option("--epochs", type=click.IntRange(1), help="Number of passes over the training data.")
@set_option
@click.option("--name", help="Name of the sweep (default: that of the dataset).")
@click.option("--watch", is_flag=True, help="Follow the sweep until it ends: a line for each result.")
@click.option("--dry-run", is_flag=True, help="Check the sweep; start nothing.")
@click.option("--idempotency-key", metavar="KEY", help="A repeated request with the same key starts no second sweep.")
@with_target
def sweep(
    target: Target,
    /,
    spec: IO[bytes] | None,
    watch: bool,
    dry_run: bool,
    idempotency_key: str | None,
    **options: Any,
) -> None:
    """Start a sweep and print its id: from settings to try, or from SPEC, a JSON file (-: standard input).

    `tapeline sweep --dataset iris --try optimizer.learning_rate=0.001..0.3 --try batch_size=50,100 --seeds 5` draws
    combinations at random, because one setting has a range; lists alone are tried in all combinations. A range of a
    setting that is a whole number has whole numbers. Another one is logarithmic if its first number is positive
    and its last one at least ten times as large. The other options are those of tapeline train.

    The exit code with --watch is 0 if the sweep succeeded.
    """
    given = [
        f"--{'set' if name == 'values' else 'try' if name == 'tries' else name}" for name in options if options[name]
    ]
    if spec is not None and given:
        raise click.UsageError(f"{given[0]} and SPEC are both given: write it to the file, or leave out the file")
    if spec is not None:
        refuse_yaml(Path(spec.name))
    with target.client() as client:
        document = spec.read() if spec is not None else _document_of(client, **options)
        if dry_run:
            _show_plan(target, client.sweep_dry_run(document))
            return
        created = client.sweep(document, idempotency_key=idempotency_key)
        if watch:
            _watch(target, created)
        else:
            target.echo(created.document, created.id)


def _document_of(
    client: Client,
    *,
    tries: Sequence[str],
    seeds: str | None,
    trials: int | None,
    name: str | None,
    values: Sequence[str],
    **options: Any,
) -> dict[str, Any]:
    """The sweep that the options describe.

    Raises:
        click.UsageError: they are incomplete, or contradict each other.
    """
    fields = {"--dataset": "dataset.name"} | {f"--{field}": field for field in ("kind", "preset", "epochs")}
    settings = settings_of(values, {option: (fields[option], options[option[2:]]) for option in fields})
    if "dataset" not in settings:
        raise click.UsageError("nothing to train on: give --dataset NAME, or a SPEC")
    if not tries and not seeds:
        raise click.UsageError("nothing to try: add --try FIELD=A,B,C or --seeds N")
    data = settings["dataset"]
    dataset = str(data.get("name", "") if isinstance(data, dict) else data)
    base = settings if "kind" in settings else {"kind": suited_kind(client, dataset)} | settings
    resolved: dict[str, Any] = {}
    with suppress(ApiError):  # the check of the sweep lists the faults of its base, too
        resolved = client.dry_run(base)["resolved"]
    space = space_of(tries, resolved)
    if trials is not None and not space:
        raise click.UsageError("--trials draws settings: add --try FIELD=FROM..TO")
    is_drawn = trials is not None or any("choice" not in span for span in space.values())
    return {
        "name": name or dataset.partition("@")[0] or None,
        "base": base,
        "space": space,
        **({"seeds": seeds_of(seeds)} if seeds else {}),
        **({"search": {"name": "random", "trials": trials or _DRAWN_TRIALS}} if is_drawn else {}),
    }


@click.command()
@click.argument("sweep_id", metavar="[SWEEP]", required=False)
@click.option("--sort", default="best", show_default=True, help="Order of the trials: best, trial, value, batch_size.")
@click.option("--all", "everything", is_flag=True, help=f"Show all trials, not only {_MAX_SHOWN_TRIALS}.")
@click.option("--watch", is_flag=True, help="Follow the sweep until it ends.")
@click.option(
    "--plot",
    "to",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the curves of the best trials, .png or .svg.",
)
@click.option("--metric", metavar="NAME", help="Metric to plot (default: the objective's).")
@click.option(
    "--band",
    type=click.Choice(("range", "interval", "none")),
    default="range",
    show_default=True,
    help="Band to draw around each mean.",
)
@click.option(
    "--do",
    "verb",
    type=click.Choice(("pause", "resume", "cancel", "delete")),
    help="Pause, resume, cancel or delete the sweep.",
)
@click.option("--owner", metavar="OWNER", help="List sweeps of this owner, or of all with '*' (scope admin).")
@yes_option
@with_target
def sweeps(
    target: Target,
    sweep_id: str | None,
    owner: str | None,
    sort: str,
    everything: bool,
    watch: bool,
    verb: str | None,
    yes: bool,
    to: Path | None,
    metric: str | None,
    band: Literal["range", "interval", "none"],
) -> None:
    """List sweeps, newest first, or show one with its trials. SWEEP is an id, the end of one, or a name.

    EPOCH is the last one that a trial has completed. By value, those that halving trained longest are first, and a
    gap separates trials with values of different epochs, which are not comparable. With several seeds, 95% CI is the
    interval of their mean over the seeds. If the output is not a terminal, the columns are separated by tabs.
    """
    file_format = to.suffix.removeprefix(".").lower() if to is not None else ""
    if to is not None and file_format not in ("png", "svg"):
        raise click.UsageError("the name of a plot ends with .png or .svg")
    if to is not None and verb == "delete":
        raise click.UsageError("a deleted sweep has no plot: leave out --plot, or --do delete")
    if to is None and metric is not None:
        raise click.UsageError("--metric requires --plot FILE")
    with target.client() as client:
        if sweep_id is None:
            if watch or verb or to:
                raise click.UsageError("name a sweep")
            _list(target, client, owner)
            return
        selected = client.find_sweep(sweep_id)
        if verb == "delete":
            check_whole("sweep", sweep_id, selected.id, selected["name"])
            if sweep_id != selected.id and (namesakes := sum(item["name"] == sweep_id for item in client.sweeps())) > 1:
                raise click.UsageError(f"{namesakes} sweeps are named {sweep_id!r}: give the id")
            confirm_deletion(f"the sweep {selected.id} with its jobs and their files", yes=yes)
            selected.delete()
            click.echo(f"deleted {selected.id}", err=True)
            return
        if verb is not None:
            getattr(selected, verb)()
        if watch:
            _watch(target, selected)
        if to is not None:
            to.write_bytes(selected.plot(metric=metric, band=band, fmt=file_format))
            click.echo(str(to))
        elif not watch:
            _show(target, selected, sort=sort, limit=None if everything else _MAX_SHOWN_TRIALS)


def _list(target: Target, client: Client, owner: str | None) -> None:
    sweeps = list(client.sweeps(limit=100, owner=owner))
    if target.prints([sweep.document for sweep in sweeps]):
        return
    rows = []
    for sweep in sweeps:
        trials, metric = sweep["trials"], sweep["objective"]["metric"]
        done = trials["total"] if sweep.status == SweepStatus.SUCCEEDED else trials["succeeded"] + trials["stopped"]
        best = "-" if sweep["best_trial"] is None else f"{number(metric, sweep['best_value'])} {describe(metric).label}"
        status = Text(sweep.status, STYLES.get(sweep.status, ""))
        rows.append([sweep.id, sweep["name"] or "-", status, f"{done}/{trials['total']}", best])
    if rows:
        columns = [Column(title, no_wrap=title == "ID") for title in ("ID", "NAME", "STATUS", "TRIALS", "BEST")]
        print_table(*with_owners(columns, rows, owner_names(client, sweeps)))
    else:
        click.echo("no sweeps yet; start one with: tapeline sweep --dataset iris --seeds 5")


def _show(target: Target, sweep: Sweep, *, sort: str, limit: int | None) -> None:
    trials = sweep.trials(sort=sort)
    if target.prints(sweep.document | {"trial_rows": trials}):
        return
    metric, settings = sweep["objective"]["metric"], list(map(dotted, sweep["resolved"]["space"]))
    is_paused = sweep.status == SweepStatus.PAUSED
    counts = {_status(name, is_paused): count for name, count in sweep["trials"].items() if count and name != "total"}
    rows = [
        ("Sweep", sweep.id),
        ("Name", sweep["name"] or "-"),
        ("Status", sweep.status),
        ("Trials", f"{sweep['trials']['total']}: {', '.join(f'{count} {name}' for name, count in counts.items())}"),
        ("Objective", f"{sweep['objective']['goal']} {metric}, {sweep['objective']['over_seeds']} of the seeds "
         + ", ".join(map(str, sweep["seeds"]))),
        ("Epochs", _epochs(sweep)),
        *([("Time left", f"about {about(left)}")] if (left := sweep.document.get("eta_seconds")) else []),
        *([("Best", sentence)] if (sentence := sweep.document.get("best_sentence")) else []),
        ("Digest", sweep["sweep_digest"] or "-"),
        ("Page", sweep.page),
    ]  # fmt: skip
    if sweep["error"]:
        rows.append(("Error", f"{sweep['error']['code']}: {sweep['error']['message']}"))
    print_rows(rows)
    click.echo()
    with_interval, with_error = len(sweep["seeds"]) > 1, any(row["error"] for row in trials)
    interval_title = ["95% CI OVER SEEDS"] if with_interval else []
    titles = ["TRIAL", "STATUS", "EPOCH", describe(metric).label, *interval_title, *settings]
    lines = []
    for row in trials[:limit]:
        low, high = (row[f"{metric} ({bound})"] for bound in ("interval_low", "interval_high"))
        interval = "-" if low is None else " to ".join(number(metric, bound) for bound in (low, high))
        cells = [
            str(row["trial"]),
            _status(row["status"], is_paused),
            str(row["last_epoch"]),
            number(metric, row[metric]),
        ]
        cells += [interval] if with_interval else []
        lines.append(
            [*cells, *(value_text(row.get(name)) for name in settings), *([row["error"] or ""] if with_error else [])]
        )
    best = next((index for index, row in enumerate(trials[:limit]) if row["trial"] == sweep["best_trial"]), None)
    columns = [  # wide enough not to break values of up to _MAX_COLUMN_WIDTH characters
        Column(title, overflow="fold", min_width=min(max(map(len, values)), _MAX_COLUMN_WIDTH))
        for title, values in zip(titles, zip(*lines, strict=True), strict=False)
    ]
    rungs = [row["rung_epoch"] for row in trials[:limit]] if sort in _BY_VALUE else []
    gaps = [index for index in range(1, len(rungs)) if rungs[index] != rungs[index - 1]]
    print_table([*columns, *([Column("ERROR", overflow="fold")] if with_error else [])], lines, best=best, gaps=gaps)
    if limit is not None and len(trials) > limit:
        click.echo(f"and {len(trials) - limit} more; show them with --all", err=True)
    if settings and len(trials) >= _MIN_IMPORTANCE_TRIALS:
        _print_importance(sweep)
    if equal := [str(row["trial"]) for row in trials[:limit] if _has_one_value(row, metric, sweep["seeds"])]:
        click.echo(
            f"note: all seeds of {'trial' if len(equal) == 1 else 'trials'} {listed(equal)} have the same value, which "
            "can be chance where a metric has few distinct values and there are few seeds: their interval says nothing",
            err=True,
        )


def _print_importance(sweep: Sweep) -> None:
    importance = sweep.importance()
    measured = [item for item in importance if item["share"] is not None]
    if not measured:
        return
    lines = [
        [
            dotted(item["setting"]),
            f"{item['share']:.0%}",
            "not distinguishable" if item.get("distinguishable") is False else item["best"] or "-",
        ]
        for item in measured
    ]
    click.echo()
    print_table([Column(title, overflow="fold") for title in ("SETTING", "IMPORTANCE", "BEST VALUES")], lines)
    click.echo(importance.note)


def _has_one_value(row: Mapping[str, Any], metric: str, seeds: Sequence[int]) -> bool:
    """Whether the values of a trial do not vary, so that its interval has no width."""
    values = [value for seed in seeds if (value := row.get(f"{metric} (seed {seed})")) is not None]
    return len(values) > 1 and len(set(values)) == 1


def _status(status: str, is_paused: bool) -> str:
    """The state of a trial. Nothing runs while the sweep is paused."""
    return "paused" if is_paused and status == TrialStatus.RUNNING else status


def _watch(target: Target, sweep: Sweep) -> None:
    console = Console(highlight=False)
    if not target.as_json:
        click.echo(f"{sweep.id}  {sweep.page}")
    metric = sweep["objective"]["metric"]
    maximize = sweep["objective"]["goal"] == "maximize"
    best: float | None = None
    best_rung = 0
    status, error = sweep.status, sweep["error"]
    for event in sweep.events(on_outage=None if target.as_json else print_outage):
        if target.as_json:
            print_event(event)
        data: Mapping[str, Any] = event.data.get("data", {})
        if event.type == "result" and data["value"] is not None:
            if data["rung"] > best_rung:  # like the choice of the winner: more epochs beat fewer
                best_rung, best = data["rung"], None
            if data["rung"] == best_rung:
                best = data["value"] if best is None else (max if maximize else min)(best, data["value"])
        if event.type == "result" and data.get("error") and not target.as_json:
            data = {**data, "why": (sweep.trial(data["trial"])["error"] or {}).get("message", data["error"])}
        if not target.as_json and (line := _line(event.type, data, metric, best)):
            console.print(Text(line, "dim" if event.type in ("propose", "stop") else ""), soft_wrap=True)
        if event.type == "end":
            status, error = data["status"], data["error"]
    if not target.as_json:
        if sentence := sweep.refresh().document.get("best_sentence"):
            click.echo(sentence)
        click.echo(f"{status}: {_epochs(sweep, noun=' epochs')}, digest {sweep['sweep_digest'] or '-'}")
    check_success(f"sweep {sweep.id}", status, error)


def _line(kind: str, data: Mapping[str, Any], metric: str, best: float | None) -> str | None:
    settings = "  ".join(f"{dotted(name)} {value_text(value)}" for name, value in (data.get("settings") or {}).items())
    match kind:
        case "status" if data["reason"] in ("paused", "resumed"):
            return str(data["reason"])
        case "propose" if data.get("error"):
            return f"trial {data['trial']:>3}  failed: {data['error']['message']}"
        case "propose":
            return f"trial {data['trial']:>3}  starts  {settings}".rstrip()
        case "result":
            if data.get("error"):
                return f"trial {data['trial']:>3}  failed: {data['why']}"
            value = number(metric, data["value"])
            so_far = f"  best {number(metric, best)}" if best is not None else ""
            return f"trial {data['trial']:>3}  {describe(metric).label} {value}{so_far}"
        case "promote" | "stop":
            names = ", ".join(str(trial) for trial, _ in data["trials"])
            return f"epoch {data['epoch']:>3}  {'promoted' if kind == 'promote' else 'stopped'}: {names}"
        case "exhausted":
            return f"no more trials start: {_EXHAUSTED.get(data['by'], data['by'])}"
        case "winner":
            return f"winner: trial {data['trial']} with {number(metric, data['value'])}  {settings}".rstrip()
    return None


def _epochs(sweep: Sweep, *, noun: str = "") -> str:
    trained, reused, planned = (sweep[f"epochs_{counter}"] for counter in ("trained", "reused", "started"))
    done = f"{trained:,}{noun} trained" + (f", {reused:,} reused" if reused else "")
    budget = f" of a budget of {sweep['budget_epochs']:,}" if sweep["budget_epochs"] else ""
    return f"{done}, {planned:,} planned{budget}"


def _show_plan(target: Target, plan: Mapping[str, Any]) -> None:
    if target.prints(plan):
        return
    resolved = plan["resolved"]
    limits = " and ".join(name for name in ("halving", "budget") if resolved.get(name))
    unlimited = f"; without {limits} {plan['epochs_without_halving']:,}" if limits else ""
    rungs = resolved["rungs"] if resolved.get("halving") else []
    rows = [
        ("Trials", f"{plan['trials']:,} ({resolved['search']['name']}), {counted(plan['jobs'], 'job')}"),
        *((dotted(pointer), range_text(span)) for pointer, span in resolved["space"].items()),
        *([("Seeds", ", ".join(map(str, resolved["seeds"])))] if len(resolved["seeds"]) > 1 else []),
        ("Epochs", f"at most {plan['epochs']:,}{unlimited}"),
        *([("Rungs", ", ".join(map(str, rungs)))] if rungs else []),
        ("Objective", f"{resolved['objective']['goal']} {resolved['objective']['metric']}"),
        *(("Note", note) for note in plan["notes"]),
    ]
    print_rows(rows)
