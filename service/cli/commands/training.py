"""The commands that submit jobs and follow them; specs from settings such as ``optimizer.learning_rate=0.01``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.text import Text

from service.cli.progress import FollowedJob, display_of, follow_jobs, print_outcome, watch_job
from service.cli.spec_files import YAML, refuse_yaml
from service.cli.target import (
    Failure,
    Target,
    checkpoint_option,
    complete_datasets,
    complete_presets,
    complete_settings,
    job_argument,
    with_target,
)
from service.cli.text import about, changed_settings, fold_means, print_rows, spec_text
from service.cli.uploading import UploadOptions, given, parse_name_and_paths, print_upload, send, upload_options
from service.errors import MalformedJson
from service.spec.metric_info import KEY_METRICS, size
from service.spec.strict_json import overlay, parse_json
from service.wording import counted
from tapeline import Client, Job
from tapeline.inputs.uploads import dataset_name, is_table
from tapeline.inputs.values import nested_settings
from tapeline.method_types import Which
from tapeline.operations.training import spec_of, suited_kind

set_option: Final = click.option(
    "--set",
    "values",
    multiple=True,
    metavar="FIELD=VALUE",
    shell_complete=complete_settings,
    help="Change a setting, for example optimizer.learning_rate=0.01; repeatable.",
)


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, allow_dash=True), metavar="[SPEC | PATH...]")
@click.option(
    "--dataset", metavar="NAME", shell_complete=complete_datasets, help="Train on this dataset of the service."
)
@click.option("--kind", type=click.Choice(tuple(KEY_METRICS)), help="What to train (default: what suits the data).")
@click.option(
    "--preset",
    metavar="NAME",
    shell_complete=complete_presets,
    help="Start from this preset (default: the one that suits the dataset).",
)
@click.option("--epochs", type=click.IntRange(1), help="Number of passes over the training data.")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Seed of all randomness (default: that of the spec).")
@click.option("--budget", type=float, metavar="SECONDS", help="CPU seconds after which the job pauses.")
@set_option
@click.option("--name", help="Name of the job, and of the uploaded dataset (default: that of the dataset or file).")
@click.option("--watch", is_flag=True, help="Follow the job until it ends.")
@click.option("--dry-run", is_flag=True, help="Check the spec and estimate its cost; submit nothing.")
@click.option(
    "--folds", type=click.IntRange(2), metavar="N", help="Cross-validate: submit N jobs, one for each fold of the data."
)
@click.option("--idempotency-key", metavar="KEY", help="A repeated submission with the same key creates no second job.")
@upload_options
@with_target
def train(
    target: Target,
    /,
    paths: tuple[Path, ...],
    dataset: str | None,
    kind: str | None,
    preset: str | None,
    epochs: int | None,
    seed: int | None,
    budget: float | None,
    values: tuple[str, ...],
    name: str | None,
    watch: bool,
    dry_run: bool,
    folds: int | None,
    idempotency_key: str | None,
    **upload: Any,
) -> None:
    """Submit a job and print its id: from a folder, a table, a dataset or a spec.

    PATH is uploaded first, as by tapeline upload, with the same options: `tapeline train photos/ --size 32 --watch`,
    `tapeline train rows.csv --watch`. `tapeline train --dataset pets --preset conv --epochs 5` trains on a dataset of
    the service. SPEC is a JSON file (-: standard input); the other options override its fields.

    A spec with dataset.folds, or --folds, submits a job for each fold and prints all of their ids.
    """
    options: dict[str, tuple[str, Any]] = {
        "--dataset": ("dataset.name", dataset),
        "--kind": ("kind", kind),
        "--preset": ("preset", preset),
        "--epochs": ("epochs", epochs),
        "--seed": ("seed", seed),
        "--budget": ("budget.seconds", budget),
        "--name": ("name", name),
    }
    settings = settings_of(values, options)
    uploads_data = bool(paths) and not (len(paths) == 1 and is_spec(paths[0]))
    if (given_options := given(upload)) and not uploads_data:
        raise click.UsageError(f"{given_options[0]} applies to data that is uploaded: give a folder or a file")
    if uploads_data:
        name_of_data = name and dataset_name(name)
        if dry_run:
            _show_cost_of_files(target, name_of_data, paths, upload, settings, folds)
            return
        settings = _with_uploaded(target, paths, upload, settings, name=name_of_data)
    elif not paths and not {"dataset", "kind"} & settings.keys():
        raise click.UsageError("nothing to train on: give a folder, a file with a table, a spec, or --dataset NAME")
    with target.client() as client:
        if not paths and "kind" not in settings:
            settings["kind"] = suited_kind(client, _dataset_of(settings))
        document = _document_of(settings) if uploads_data or not paths else with_settings(read(paths[0]), settings)
        document = with_folds(document, folds)
        if dry_run:
            _show_cost(target, client, client.dry_run(document))
            return
        job = client.submit(document, idempotency_key=idempotency_key)
        if other_folds := [client.job(job_id) for job_id in job.get("fold_jobs", [])[1:]]:
            _show_folds(target, client, [job, *other_folds], watch=watch)
        else:
            _show_new(target, job, watch=watch)


@click.command()
@job_argument
@with_target
def watch(target: Target, job_text: str) -> None:
    """Follow a job until it ends. The exit code is 0 if it succeeded."""
    with target.job(job_text) as job:
        _watch(target, job)


@click.command()
@job_argument
@checkpoint_option("latest")
@set_option
@click.option("--watch", is_flag=True, help="Follow the new job until it ends.")
@with_target
def fork(target: Target, job_text: str, checkpoint: Which, values: tuple[str, ...], watch: bool) -> None:
    """Submit a job that continues from a checkpoint of another job, optionally with other settings.

    By default, the fork of "first" is named "first-2"; change it with --set name=...
    """
    with target.job(job_text) as job:
        _show_new(target, job.fork(settings_of(values), checkpoint=checkpoint), watch=watch)


@click.command()
@job_argument
@click.option(
    "--watch",
    is_flag=True,
    help="Follow the new job until it ends. The exit code is 0 if its results are bit-identical.",
)
@with_target
def reproduce(target: Target, job_text: str, watch: bool) -> None:
    """Train a succeeded job again and compare the results bit for bit, epoch by epoch."""
    with target.job(job_text) as original:
        job = original.reproduce()
        _show_new(target, job, watch=watch)
        if not watch:
            return
        result = job.refresh().reproduction or {}
    if not result["match"]:
        differs = ", ".join(result["first_difference"]["differs"])
        raise Failure(f"epoch {result['first_difference']['epoch']} differs from {result['of']}: {differs}", result)
    if not target.as_json:
        click.echo(f"bit-identical to {result['of']}")


def _with_uploaded(
    target: Target,
    paths: tuple[Path, ...],
    upload: UploadOptions,
    settings: Mapping[str, Any],
    *,
    name: str | None,
) -> dict[str, Any]:
    """Upload the data of a job, with the report on standard error; returns its spec."""
    data = _dataset_settings(settings, paths)
    dataset, paths = parse_name_and_paths(name, paths)
    uploaded = send(target, dataset, paths, upload)
    print_upload(uploaded, upload, err=True)
    return spec_of(uploaded, {**settings, "dataset": data})


def _show_cost_of_files(
    target: Target,
    name: str | None,
    paths: tuple[Path, ...],
    upload: UploadOptions,
    settings: Mapping[str, Any],
    folds: int | None,
) -> None:
    """Check the data of a job and estimate its cost; the service stores nothing."""
    data = _dataset_settings(settings, paths)
    dataset, paths = parse_name_and_paths(name, paths)
    spec = parse_json(with_folds(_document_of({**settings, "dataset": {**data, "name": dataset}}), folds))
    checked = send(target, dataset, paths, upload, trial=spec)
    print_upload(checked, upload, err=True)
    _show_cost(target, None, checked["plan"])


def _dataset_settings(settings: Mapping[str, Any], paths: Sequence[Path]) -> Mapping[str, Any]:
    data = settings.get("dataset", {})
    if not isinstance(data, dict) or "name" in data:
        raise click.UsageError(f"give either data to upload ({paths[0]}) or a dataset of the service")
    return data


def _dataset_of(settings: Mapping[str, Any]) -> str:
    data = settings.get("dataset", "")
    return str(data.get("name", "") if isinstance(data, dict) else data)


def _document_of(settings: Mapping[str, Any]) -> bytes:
    """The spec of a job on the dataset of its settings, which also names it."""
    name = _dataset_of(settings).partition("@")[0]
    return json.dumps({**({"name": name} if name else {}), **settings}).encode()


def _show_folds(target: Target, client: Client, jobs: Sequence[Job], *, watch: bool) -> None:
    """Print the ids of the jobs of a cross-validation, or follow all jobs and print the means of their metrics."""
    if not watch or target.as_json:
        target.echo(jobs[0], "\n".join(job.id for job in jobs))
        return
    followed = [FollowedJob.of(job) for job in jobs]
    with display_of(followed, Console(highlight=False)) as display:
        follow_jobs(target.client, followed, display)
    folds = client.folds(jobs[0])
    for line in fold_means(folds):
        click.echo(line)
    if folds["finished"] < len(jobs):
        raise Failure(f"{len(jobs) - folds['finished']} of {len(jobs)} folds did not succeed")


def _show_new(target: Target, job: Job, *, watch: bool) -> None:
    if not watch:
        target.echo(job, job.id)
        return
    if not target.as_json:
        # On separate lines in a terminal, where both do not fit.
        separator = "\n" if sys.stdout.isatty() else "  "
        click.echo(f"{job.id}{separator}{job.page}")
    _watch(target, job)


def _watch(target: Target, job: Job) -> None:
    watch_job(target, job)
    if not target.as_json:
        print_outcome(job.refresh())


def _show_cost(target: Target, client: Client | None, cost: Mapping[str, Any]) -> None:
    """Print the estimated cost of a spec and, with a client, the settings that differ from its preset."""
    if target.prints(cost):
        return
    spec = cost["resolved"]
    changes = changed_settings(client, spec) if client is not None else {}
    rows = [
        ("Job", spec_text(spec)),
        ("Parameters", f"{cost['parameters']:,}"),
        ("Steps", f"{cost['steps']:,} in {counted(spec['epochs'], 'epoch')}, batches of {spec['batch_size']}"),
        ("Memory", size(cost["estimated_bytes"])),
        ("Checkpoint size", size(cost["checkpoint_bytes"])),
        ("Files", f"at most {size(cost['expected_bytes'])}"),
        ("Estimated time", _estimate(cost)),
        *(("Settings", f"{name}: {value}") for name, value in changes.items()),
    ]
    print_rows([*rows, *(("Notes", Text(note, "yellow")) for note in cost["notes"])])
    if sys.stdout.isatty():
        click.echo("Nothing was submitted. To submit the job, omit --dry-run.")


def _estimate(cost: Mapping[str, Any]) -> str:
    """The estimated time, as a range if there is one, and what it is based on."""
    low, high = cost["estimated_seconds_low"], cost["estimated_seconds_high"]
    text = f"about {about(cost['estimated_seconds'])}"
    if low is not None and high is not None and about(low) != about(high):
        text = f"{about(low)} to {about(high)}"
    return f"{text} (based on {cost['estimate_basis']})"


STDIN = Path("-")


def is_spec(path: Path) -> bool:
    """Whether an argument is a spec, and not data: standard input, a pipe, or a file with a JSON object."""
    if path == STDIN or not (path.is_dir() or path.is_file()):
        return True
    if is_table(path):
        return False
    if path.is_dir() or path.suffix.lower() in {".json", *YAML}:
        return path.is_file()
    with path.open("rb") as file:
        return file.read(64).lstrip().startswith(b"{")


def read(path: Path) -> bytes:
    """The text of a spec.

    Raises:
        click.UsageError: the file does not exist, or is YAML.
    """
    refuse_yaml(path)
    if path == STDIN:
        return sys.stdin.buffer.read()
    if not path.exists():
        dataset = f"; for a dataset of the service, use --dataset {path}" if not path.suffix else ""
        raise click.UsageError(f"{path} does not exist{dataset}")
    return path.read_bytes()


def settings_of(values: Sequence[str], options: Mapping[str, tuple[str, Any]] | None = None) -> dict[str, Any]:
    """Parse ``a.b=1`` to ``{"a": {"b": 1}}``; a value that is not JSON is a string.

    Args:
        values: the values of ``--set``.
        options: other options, each with its field and value; the value is ``None`` if the option is not
            given.

    Raises:
        click.UsageError: a value is not ``FIELD=VALUE``, or an option and ``--set`` are for the same field.
    """
    given: list[tuple[str, Any]] = []
    for text in values:
        field, equals, value = text.partition("=")
        if not equals or not all(field.split(".")):
            raise click.UsageError(f"--set expects FIELD=VALUE, for example epochs=9; got {text!r}")
        try:
            given.append((field, parse_json(value.encode())))
        except MalformedJson:
            given.append((field, value))
    try:
        settings = nested_settings(given)
    except ValueError as error:
        raise click.UsageError(f"--set {error}") from error
    for option, (field, value) in (options or {}).items():
        if value is not None:
            name, _, leaf = field.rpartition(".")
            node = settings.setdefault(name, {}) if name else settings
            if not isinstance(node, dict) or leaf in node:
                raise click.UsageError(f"{option} and --set are both given for {field}: omit one")
            node[leaf] = value
    return settings


def with_settings(document: bytes, settings: Mapping[str, Any]) -> bytes:
    """The spec with other settings; an invalid document is returned unchanged, for the service to reject."""
    spec = _object_of(document) if settings else None
    return document if spec is None else json.dumps(overlay(spec, settings)).encode()


def with_folds(document: bytes, folds: int | None) -> bytes:
    """The spec with ``dataset.folds``; an invalid document is returned unchanged, for the service to reject."""
    spec = _object_of(document) if folds is not None else None
    is_valid = spec is not None and isinstance(spec.get("dataset", ""), str | dict)
    return with_settings(document, {"dataset": {"folds": folds}}) if is_valid else document


def _object_of(document: bytes) -> dict[str, Any] | None:
    with suppress(MalformedJson):
        spec = parse_json(document)
        return spec if isinstance(spec, dict) else None
    return None
