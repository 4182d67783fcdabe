"""Uploads of datasets: the options, the transfer, and the report of the import."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from service.cli.target import Command, Failure, Target
from service.cli.text import visible
from service.datasets.formats.options import UPLOAD_OPTIONS, PhotoOptions, TableOptions, UploadOption, options_of
from service.datasets.info import DATASET_NAME, Fit
from service.states import Task as LearningTask
from service.wording import counted, rounded
from tapeline.images.files import USUAL_SIZE, parse_size
from tapeline.inputs.uploads import Packed, by_field, dataset_name, is_table, packed, reason_to_scale
from tapeline.operations.datasets import Dataset, packing_options

_MAX_SHOWN_CLASSES: Final = 10
_MAX_SHOWN_COLUMNS: Final = 12
_MAX_NAMED_FILES: Final = 5
_READING: Final = "reading"
"""The description of the bar once everything is sent."""


UploadOptions = Mapping[str, Any]
"""The values of the options that ``upload_options`` adds: arguments of ``Client.upload``."""


def given(options: UploadOptions, among: Sequence[UploadOption] = UPLOAD_OPTIONS) -> list[str]:
    """The options that are given, as the user writes them."""
    return [option.flag for option in among if options[option.name]]


def upload_options(command: Command) -> Command:
    """Add the options of an upload to a command, which receives them as ``UploadOptions``."""
    for option in reversed(UPLOAD_OPTIONS):
        declared = option.declared
        command = click.option(
            option.flag,
            option.name,
            type=_type(option),
            multiple=option.kind is Mapping,
            metavar=declared.metavar,
            help=declared.help,
        )(command)
    return command


def _type(option: UploadOption) -> click.ParamType[Any] | None:
    if option.is_choice:
        return click.Choice(option.choices)
    return click.FloatRange(0, 1, min_open=True, max_open=True) if option.kind is float else None


def parse_name_and_paths(name: str | None, paths: tuple[Path, ...]) -> tuple[str, tuple[Path, ...]]:
    """Name and files from the arguments: ``mine photos/``, ``photos/ --name mine`` or ``photos/``.

    Raises:
        Failure: a file does not exist, or the name is not valid.
        NotUploadable: a dataset cannot be made from a file.
    """
    if name is None and len(paths) > 1:
        if _is_path(paths[0], paths[1:]):
            by_field([path for path in paths if path.exists()])
            proposal = dataset_name(paths[0].resolve().name)
            raise Failure(
                f"{paths[0]} is a file, not a name; name the dataset with --name, for example --name {proposal}"
            )
        name, paths = str(paths[0]), paths[1:]
    for path in paths:
        if not path.exists():
            raise Failure(f"{path} does not exist")
    by_field(paths)  # before the name: another name does not help a file that cannot be uploaded
    if name is None:
        name = dataset_name(file_name := paths[0].resolve().name)
        if not file_name.startswith(name):
            click.echo(f"note: the dataset is named {name}", err=True)
    if not DATASET_NAME.fullmatch(name):
        raise Failure(
            f"{visible(name)!r} cannot be the name of a dataset, which has 1 to 64 ASCII letters, digits, dots, dashes "
            f"and underscores, a letter or digit first; try --name {dataset_name(name)}"
        )
    return name, paths


def send(
    target: Target,
    name: str,
    paths: tuple[Path, ...],
    options: UploadOptions,
    *,
    trial: Mapping[str, Any] | None = None,
) -> Dataset:
    """Upload files under a name, with a progress bar.

    Args:
        trial: the spec of a job whose cost is estimated; nothing is stored.

    Raises:
        Failure: an option does not apply to the files.
        ClientError: the files cannot be sent, or the service refuses them.
    """
    is_folder = paths[0].is_dir()
    _check_options(options, paths[0], as_table=not is_folder and any(map(is_table, paths)))
    if is_folder:
        options = _with_size(options, paths[0])
    with ExitStack() as stack:
        content = _packed(paths, options, stack)
        client = stack.enter_context(target.client())
        bar = stack.enter_context(_progress_bar(_DoneColumn(), _SpeedColumn()))
        task = bar.add_task("uploading", total=sum(path.stat().st_size for path in content.paths.values()))

        def on_reading(fraction: float) -> None:
            bar.update(task, description=_READING, total=1.0, completed=fraction)

        def on_progress(count: int) -> None:
            bar.advance(task, count)
            if bar.tasks[task].finished:
                on_reading(0.0)

        uploaded = client.upload(
            name,
            content.paths,
            dry_run=trial is not None,
            spec=trial,
            on_progress=on_progress,
            on_reading=on_reading,
            **{**options, "types": _parse_types(options["types"])},
        )
    if content.unnamed and (left_out := (uploaded["report"] or {}).get("left_out")):
        left_out["count"] += content.unnamed
    return uploaded


def print_upload(item: Dataset, options: UploadOptions, *, err: bool = False) -> None:
    """Print the result of an upload.

    Args:
        err: print to standard error.
    """
    report = item["report"] or {}
    if not item["created"] and "plan" not in item:  # that of a dry run
        version_note = f", as {item.reference}" if item.reference != item.name else ""
        click.echo(f"{item.name}: the service has exactly this data already{version_note}", err=err)
        return
    item_is_table = item["kind"] == "table"
    noun = "rows" if item_is_table else "images"
    counts = f"{item['train_count']:,} training and {item['validation_count']:,} validation {noun}"
    counts += f", {item['test_count']:,} test {noun}," if item["test_count"] else ""
    learned = f"{item['classes']} classes: {_list_classes(item['class_names'])}"
    if item.get("task") == LearningTask.REGRESSION:
        learned = f"the number to predict is {visible(item['target'])}"
        if limits := report.get("range"):
            learned += f" ({' to '.join(map(rounded, limits))})"
    lines = [f"{item.name}: {counts} of {shape(item)}{'' if item_is_table else ' pixels'}, {learned}"]
    if item_is_table:
        lines += _report_lines(item, _parse_types(options["types"]))
    else:
        lines += [f"note: {visible(note)}" for note in report.get("notes") or ()]
    if len(item.get("versions", ())) > 1:
        lines.append(f"it is the newest of {len(item['versions'])} versions: {', '.join(item['versions'])}")
    for line in lines:
        click.echo(line, err=err)
    if left_out := report.get("left_out"):
        file_lines = [f"{file['file']} {file['reason']}" for file in left_out["files"]]
        _print_left_out(left_out["count"], file_lines)


def shape(item: Mapping[str, Any]) -> str:
    """The size of a dataset's images, or its number of columns."""
    if item.get("kind") == "table":
        return counted(len(item["columns"]), "column")
    return " x ".join(map(str, item["image_shape"]))


def _is_path(first: Path, other_paths: Sequence[Path]) -> bool:
    """Whether the first argument is a path, and not a name: it exists, and ``pets pets/`` does not name it again."""
    if not first.exists():
        return False
    return not (len(other_paths) == 1 and other_paths[0].exists() and first.samefile(other_paths[0]))


def _check_options(options: UploadOptions, path: Path, *, as_table: bool) -> None:
    unsuitable = given(options, options_of(PhotoOptions if as_table else TableOptions))
    if unsuitable:
        kinds = ("a table", "images") if as_table else ("not a table", "tables")
        raise Failure(f"{path} is {kinds[0]}; {unsuitable[0]} applies to {kinds[1]}")


def _parse_types(values: Sequence[str]) -> dict[str, str]:
    types = {}
    for value in values:
        column, equals, kind = value.rpartition("=")
        if not equals or not column:
            raise Failure(f"--type {value}: must be COLUMN=TYPE, such as age=number")
        types[column] = kind
    return types


def _report_lines(item: Mapping[str, Any], types: Mapping[str, str]) -> list[str]:
    """The report of a table's import: detected types, and omitted columns and rows."""
    report = item["report"] or {}
    kinds = ", ".join(
        f"{visible(column['name'])} ({column['type']})" for column in item["columns"][:_MAX_SHOWN_COLUMNS]
    )
    omitted = len(item["columns"]) - _MAX_SHOWN_COLUMNS
    lines = [f"columns: {kinds}" + (f", and {omitted} more" if omitted > 0 else "")]
    notes = [*report.get("notes", ()), *filter(None, [report.get("leak")])]
    lines += [f"note: {visible(note)}" for note in notes]
    for entry in report.get("ignored", ()):
        name = visible(entry["name"])
        by_option = f"because of --type {name}=ignore" if types.get(entry["name"]) == "ignore" else None
        reason = visible(entry["reason"]).replace("set the type number", f"use --type {shlex.quote(name)}=number")
        lines.append(f"left out: column {name} {by_option or reason}")
    if count := report.get("rejected_count"):
        shown = "; ".join(f"line {entry['line']:,} {visible(entry['reason'])}" for entry in report["rejected"][:5])
        lines.append(f"rejected: {counted(count, 'row')}: {shown}" + ("; ..." if count > 5 else ""))
    return lines


def _with_size(options: UploadOptions, folder: Path) -> UploadOptions:
    """The options with a size, if the images of a folder need one and none is given."""
    if options["size"] is not None or not (reason := reason_to_scale(folder)):
        return options
    verb = "padded" if options["fit"] == Fit.PAD else "cropped"
    advice = "--size 64 keeps more detail and takes about four times as long"
    click.echo(f"note: {reason}: they are {verb} to {USUAL_SIZE} x {USUAL_SIZE}; {advice}", err=True)
    return {**options, "size": USUAL_SIZE}


def _print_left_out(count: int, files: Sequence[str]) -> None:
    """Print to stderr the files that an import left out."""
    ellipsis = f"\n  and {count - _MAX_NAMED_FILES:,} more" if count > _MAX_NAMED_FILES else ""
    lines = "\n  ".join(visible(line) for line in files[:_MAX_NAMED_FILES])
    click.echo(f"left out {counted(count, 'file')}:\n  {lines}{ellipsis}", err=True)


def _packed(paths: Sequence[Path], options: UploadOptions, stack: ExitStack) -> Packed:
    """The files, with a folder packed under a progress bar."""
    try:
        parse_size(options["size"] or "1")
    except ValueError as error:
        raise Failure(f"--size: {error}") from error
    with _progress_bar(MofNCompleteColumn()) as bar:
        task = bar.add_task("packing", total=None)

        def on_image(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        content = stack.enter_context(packed(paths, **packing_options(options), on_image=on_image))
    if content.left_out:
        _print_left_out(len(content.left_out), content.left_out)
    return content


class _DoneColumn(DownloadColumn):
    """The bytes sent; once all are sent, the fraction that the service has read."""

    def render(self, task: Task) -> Text:
        """The column."""
        if task.description != _READING:
            return super().render(task)
        return Text(f"{task.percentage:.0f}%", "progress.percentage")


class _SpeedColumn(TransferSpeedColumn):
    """The sending speed; empty while the service reads."""

    def render(self, task: Task) -> Text:
        """The column."""
        return Text("") if task.description == _READING else super().render(task)


def _progress_bar(*columns: ProgressColumn) -> Progress:
    """A progress bar on stderr; nothing if that is not a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), *columns, console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip


def _list_classes(names: Sequence[str]) -> str:
    shown = ", ".join(visible(name) for name in names[:_MAX_SHOWN_CLASSES])
    return f"{shown}, and {len(names) - _MAX_SHOWN_CLASSES} more" if len(names) > _MAX_SHOWN_CLASSES else shown
