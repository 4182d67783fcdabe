"""``tapeline show``: everything about a job on one screen."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click
from rich.text import Text

from service import kinds
from service.cli.progress import explain, finding_text
from service.cli.target import Failure, Target, job_argument, with_target
from service.cli.text import (
    STOPPED,
    STYLES,
    changed_settings,
    clock,
    elapsed_s,
    fold_means,
    is_set,
    print_rows,
    spec_text,
    state,
    visible,
)
from service.kinds.kind import Ability
from service.schema.findings import assignments
from service.spec.metric_info import KEY_METRICS, METRICS, TEST_SCORES, describe, number, size
from service.wording import counted, listed
from tapeline import AmbiguousJob, ApiError, Client, Job
from tapeline.operations.lookup import age

_FOLD_GROUP_ID: Final = re.compile(r"folds_[0-9A-HJKMNP-TV-Z]{26}")
_FOLD_SUFFIX: Final = re.compile(r" ?\(?fold \d+ of \d+\)?$")
"""What the service appends to the name of a cross-validation."""


@click.command()
@job_argument
@with_target
def show(target: Target, job_text: str) -> None:
    """Show a job: state, error, metrics, settings that differ from the preset, lineage and files.

    For the name of a cross-validation, without "(fold 1 of 5)", or its id: the means of its metrics, and its jobs.
    """
    with target.client() as client:
        is_group = _FOLD_GROUP_ID.fullmatch(job_text) is not None
        try:
            job = _fold(client, job_text) if is_group else target.find(client, job_text)
        except AmbiguousJob as error:
            newest = _newest_fold(job_text, error.candidates)
            if newest is None:
                raise
            job, is_group = client.job(newest["id"]), True
        if is_group:
            folds = client.folds(job)
            if not target.prints(folds):
                print_rows(_fold_rows(folds, job))
            return
        results = job.results()
        if target.prints(job.document | {"results": results}):
            return
        rows = _rows(client, job, results)
    print_rows(rows)


def _fold(client: Client, group: str) -> Job:
    """A job of a cross-validation."""
    job = next(iter(client.jobs(limit=1, fold_group=group)), None)
    if job is None:
        raise Failure(f"there is no cross-validation {group}")
    return job


def _newest_fold(text: str, jobs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The newest fold whose name is the text; or the newest job, if all are folds of one cross-validation.

    Args:
        jobs: newest first.
    """
    folds = [job for job in jobs if job.get("fold_group") is not None]
    matching = [job for job in folds if _FOLD_SUFFIX.sub("", job["name"] or "") == text]
    if matching:
        return matching[0]
    is_single_group = len(folds) == len(jobs) and len({job["fold_group"] for job in folds}) == 1
    return folds[0] if is_single_group else None


def _fold_rows(folds: Mapping[str, Any], job: Job) -> list[tuple[str, str | Text]]:
    """A cross-validation: the means, and a line for each fold."""
    spec = job.resolved
    rows: list[tuple[str, str | Text]] = [("Folds", folds["fold_group"])]
    if name := _FOLD_SUFFIX.sub("", job.name or ""):
        rows.append(("Name", name))
    rows.append(("Spec", spec_text(spec)))
    rows.append(("Status", f"{folds['finished']} of {folds['folds']} folds finished"))
    rows += [("Metrics", line) for line in fold_means(folds)]
    for fold in folds["jobs"]:
        text = Text(f"{fold['id']}  fold {fold['fold'] + 1}  ")
        text.append(fold["status"], STYLES.get(fold["status"], "yellow"))
        values = ((name, fold["metrics"].get(name)) for name in (KEY_METRICS[job.kind][0], *TEST_SCORES[:2]))
        for metric, value in values:
            if value is not None:
                text.append(f"  {describe(metric).label} {number(metric, value)}", "default")
        rows.append(("Jobs", text))
    return rows


def _advice(settings: Mapping[str, Any], reason: str) -> str:
    """Advice as options of ``tapeline train``, with the reason as a comment, so that the line can be pasted."""
    options = shlex.join(word for setting in assignments(settings) for word in ("--set", setting))
    return "  # ".join(filter(None, (options, reason))) if options else f"- {reason}"


def _rows(client: Client, job: Job, results: Mapping[str, Any]) -> list[tuple[str, str | Text]]:
    spec = job.resolved
    rows: list[tuple[str, str | Text]] = [("Job", job.id)]
    if job.name:
        rows.append(("Name", ("* " if job.get("starred") else "") + job.name))
    kind = kinds.of(job.kind)
    rows.append(("Spec", spec_text(spec) + (f", seed {spec['seed']}" if kind.trains else "")))
    if kind.uses_model:
        rows.append(("Model", kind.uses_model.format_map(spec)))
    rows.append(("Status", _state(job, results["stopped_by_sweep"])))
    if job.error:
        rows.append(("Error", Text(explain(job.error), "red")))
    mixed = results.get("mixed_provenance", ())  # an older service does not tell
    rows += [("Provenance", Text(f"mixed_provenance: {line}", "yellow")) for line in mixed]
    for finding in job.health:
        ending = ". Try:" if finding["advice"] else "."
        rows.append(("Health", Text(f"epoch {finding['epoch']}: {finding_text(finding)}{ending}", "yellow")))
        rows += [("Health", Text(_advice(**item), "yellow")) for item in finding["advice"]]
    rows.append(("Submitted", f"{age(job)} ago ({job.created_at.astimezone():%Y-%m-%d %H:%M:%S})"))
    if job.status == "queued" and (impediment := client.queue(limit=1).get("reason_text")):
        rows.append(("Waiting", Text(impediment, "yellow")))
    if job["started_at"]:
        rows.append(("Time", _times(job, results["trained_seconds"])))
    rows += [("Metrics", line) for line in _metrics(job, results)]
    if unscored := _unscored(job):
        rows.append(("Metrics", Text(unscored, "yellow")))
    if results["test_epoch"] is not None:
        intervals = results.get("intervals", {})
        scores = [
            f"{describe(name).label} {number(name, results[name])} {intervals.get(name, {}).get('text', '')}".rstrip()
            for name in TEST_SCORES
            if results.get(name) is not None
        ]
        rows.append(("Test part", f"{', '.join(scores)} (epoch {results['test_epoch']}, scored once)"))
    if job["fold_group"] is not None:
        folds = client.folds(job)
        fold_text = f"fold {spec['dataset']['fold'] + 1} of {folds['folds']} of {folds['fold_group']}"
        rows += [("Folds", line) for line in (f"{fold_text}, {folds['finished']} finished", *fold_means(folds))]
    if kind.trains:
        changed = changed_settings(client, spec)
        chosen = {path: text for path, text in changed.items() if is_set(job["spec"], path)}
        rows += [("Settings", f"{path}: {text}") for path, text in chosen.items()]
        rows += [("Preset", f"has changed since: {path}: {changed[path]}") for path in changed if path not in chosen]
        if not changed:
            rows.append(("Settings", "same as the preset"))
    rows += [("Lineage", line) for line in _lineage(client, job)]
    if job.tags:
        rows.append(("Tags", ", ".join(job.tags)))
    if job.get("note"):
        rows.append(("Note", str(job["note"])))
    rows += [("Files", line) for line in _files(job, results)]
    rows.append(("Page", job.page))
    return rows


def _times(job: Job, trained_s: float) -> str:
    """The time of finished epochs, and all time: ``2:42 in finished epochs, 5:55 since the start``."""
    since = "from start to end" if job["finished_at"] else "since the start"
    if not kinds.of(job.kind).trains:
        return f"{clock(elapsed_s(job))} {since}"
    return f"{clock(trained_s)} in finished epochs, {clock(elapsed_s(job))} {since}"


def _state(job: Job, stopped_by_sweep: bool) -> Text:
    progress = job["progress"]
    text = Text(STOPPED) if stopped_by_sweep else Text(state(job), STYLES.get(job.status, "yellow"))
    if reason := job.get("reason"):
        text.append(f" ({reason.replace('_', ' ')})", "default")
    if kinds.of(job.kind).trains:
        text.append(f", epoch {progress['epoch']}/{progress['epochs']}", "default")
    else:
        text.append(f", {progress['step']:,} of {counted(progress['steps'], 'row')}", "default")
    if job.status == "running":
        text.append(f", {progress['fraction']:.0%}", "default")
    if progress.get("eta_seconds") is not None:
        text.append(f", {clock(progress['eta_seconds'])} left", "default")
    if job["stopped_early"]:
        early_stop = job["stopped_early"]
        text.append(
            f"; stopped early: {describe(early_stop['metric']).label} best in epoch {early_stop['best_epoch']}",
            "default",
        )
    return text


def _metrics(job: Job, results: Mapping[str, Any]) -> list[str]:
    """Key metrics of the last and the best epoch, side by side, and the 95% interval below an accuracy."""
    best = results["best"] or {"epoch": None, "metrics": {}}
    names = [name for name in METRICS if name in job.metrics or name in best["metrics"]]
    key_names = [name for name in KEY_METRICS.get(job.kind, ()) if name in names]
    names = key_names + [
        name for name in names if name not in key_names and not describe(name).label.endswith("learning rate")
    ]
    if not names:
        return []
    labels = [describe(name).label for name in names]
    columns = [(f"last (epoch {job.epoch})", job.metrics, results)]
    if best["epoch"] is not None:
        columns.append((f"best (epoch {best['epoch']})", best["metrics"], best))
    table = [("", [heading for heading, _, _ in columns])]
    for name, label in zip(names, labels, strict=True):
        table.append((label, [number(name, metrics.get(name)) for _, metrics, _ in columns]))
        texts = [part.get("intervals", {}).get(name, {}).get("text", "") for _, _, part in columns]
        if any(texts):  # "of 30, 95% CI 89% to 100%"
            table.append((f"  {max(texts).partition(' CI ')[0]} CI", [text.partition(" CI ")[2] for text in texts]))
    width = max(len(label) for label, _ in table)
    return [" ".join([f"{label:<{width}}", *(f"{value:>18}" for value in values)]) for label, values in table]


def _unscored(job: Job) -> str | None:
    """The classes that the metrics say nothing about, as a sentence."""
    if Ability.CLASSIFY not in kinds.of(job.kind).abilities or not job.epoch:
        return None
    try:
        names = [visible(name) for name in job.confusion(checkpoint="latest").get("unscored_classes", ())]
    except ApiError as error:
        if error.code != "not_yet":  # an epoch without a confusion matrix
            raise
        return None
    if not names:
        return None
    shown = listed([*names[:5], *([f"{len(names) - 5:,} more"] if len(names) > 5 else [])])
    return f"no score covers {shown}: the validation data has none of {'it' if len(names) == 1 else 'them'}"


def _lineage(client: Client, job: Job) -> list[str]:
    if job.reused_from is not None:
        return [f"{job['reused_epochs']} of {job.epochs} epochs reused from {job.reused_from}"]
    if job.parent_id is None:
        return []
    try:
        parent = client.job(job.parent_id)
        origin = f"{parent.name} ({parent.id})" if parent.name else parent.id
    except ApiError as error:
        if error.status != 404:
            raise
        origin = f"{job.parent_id} (deleted)"
    reproduction = job.reproduction
    if reproduction is None:
        return [f"fork of {origin} after epoch {job['start_epoch']}"]
    match reproduction["match"]:
        case None:
            verdict = "comparison not finished"
        case True:
            verdict = "bit-identical"
        case _:
            difference = reproduction["first_difference"]
            verdict = f"first difference in epoch {difference['epoch']}: {', '.join(difference['differs'])}"
    if differing_fields := reproduction.get("provenance_differs"):
        verdict += f"; provenance differs in {', '.join(differing_fields)}"
    return [f"reproduction of {origin}: {verdict}"]


def _files(job: Job, results: Mapping[str, Any]) -> list[str]:
    files = results["artifacts"]
    if not files:
        return ["none yet"] if not job.ended else ["none"]
    checkpoint_epochs = [item["epoch"] for item in files if item["kind"] == "checkpoint"]
    total = f"{counted(results['artifact_count'], 'file')}, {size(results['size_bytes'])}"
    lines = [f"{total}; download them with: tapeline download {job.id[-6:]}"]
    if checkpoint_epochs:
        last = results["checkpoints"]["latest"]["epoch"]
        shown = ", ".join(map(str, checkpoint_epochs[:6])) + (f", ... {last}" if len(checkpoint_epochs) > 6 else "")
        best = f"; best: {results['best']['epoch']}" if results["best"] else ""
        lines.append(f"checkpoints of epochs {shown}{best}")
    return lines
