"""The commands about datasets."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

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
from rich.table import Table
from rich.text import Text

from service.cli.dataset_rows import dataset_rows
from service.cli.errors import Failure
from service.cli.target import Target, service_options
from service.cli.text import print_rows, to_json, visible
from service.client import ApiError
from service.datasets.info import DATASET_NAME, Channels, OnBad, PhotoOptions
from service.spec import metric_info
from service.wording import counted

_ARCHIVES: Final = (".npz", ".zip", ".tar", ".tar.gz", ".tgz")
_TABLES: Final = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_SHOWN_CLASSES: Final = 10
_SHOWN_COLUMNS: Final = 12
_NAMED_FILES: Final = 5
_READING: Final = "reading"
"""What the service does when all is sent."""


@click.group("datasets", invoke_without_command=True)
@service_options
@click.pass_context
def list_datasets(context: click.Context) -> None:
    """List the available datasets, or show or delete one."""
    if context.invoked_subcommand is not None:
        return
    target = context.ensure_object(Target)
    with target.client() as client:
        found = client.datasets()
    if target.as_json:
        click.echo(to_json(found))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        for item in found:
            click.echo("\t".join(_row(item)).rstrip())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("NAME", "SIZE", "CLASSES", "TRAINING", "VALIDATION", "NOTE"):
        wide = title in ("NAME", "NOTE")
        table.add_column(title, overflow="fold", no_wrap=not wide, justify="left" if wide else "right")
    for item in found:
        name, pixels, classes, train, validation, note = _row(item)
        style = "red" if item["problem"] else "yellow" if not item["available"] else ""
        table.add_row(Text(name), pixels, classes, train, validation, Text(note, style))
    console.print(table)


@list_datasets.command("show")
@click.argument("name")
@service_options
@click.pass_obj
def show_dataset(target: Target, name: str) -> None:
    """Show a dataset: origin, licence, versions, classes, and the columns of a table."""
    with target.client() as client:
        item = client.dataset(name)
        is_table = item["kind"] == "table" and item["available"]
        columns = client.dataset_columns(name)["columns"] if is_table else []
    if target.as_json:
        click.echo(to_json(item | ({"statistics": columns} if columns else {})))
    else:
        print_rows(dataset_rows(item, columns))


@list_datasets.command("delete")
@click.argument("name")
@service_options
@click.pass_obj
def delete_dataset(target: Target, name: str) -> None:
    """Delete an uploaded dataset that no unfinished job uses."""
    with target.client() as client:
        client.delete_dataset(name)
    click.echo(to_json({"name": name, "deleted": True}) if target.as_json else f"{name}  deleted")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="[NAME] PATH...")
@click.option("--name", help="Name of the dataset; the first argument otherwise.")
@click.option("--size", help="Scale and crop image files to this size in pixels: 32, or 32x24 for width x height.")
@click.option(
    "--channels",
    type=click.Choice([one.value for one in Channels]),
    help="1 stores image files in grey, 3 in colour, auto in colour if any has colours (default: auto).",
)
@click.option(
    "--on-bad",
    type=click.Choice([one.value for one in OnBad]),
    help="skip leaves out image files that are truncated or not images, and lists them (default: error).",
)
@click.option(
    "--validation-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of each class to set aside for validation if there are no validation files (default: 0.15).",
)
@click.option("--target", "target_column", help="Column of a table that holds the class (default: the last one).")
@click.option(
    "--split",
    "split_column",
    help="Column that assigns each row of a table to a part: train, validation (val) or test.",
)
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="COLUMN=TYPE",
    help="Type of a column, instead of the detected one: number, category, date or ignore. Repeatable.",
)
@service_options
@click.pass_obj
def upload(
    target: Target,
    paths: tuple[Path, ...],
    name: str | None,
    size: str | None,
    channels: Literal["1", "3", "auto"] | None,
    on_bad: Literal["error", "skip"] | None,
    validation_fraction: float | None,
    target_column: str | None,
    split_column: str | None,
    types: tuple[str, ...],
) -> None:
    """Upload a dataset, or a new version of one.

    PATH is a folder with a folder of image files for each class, a zip or tar archive of one, an NPZ archive, a CSV or
    TSV file, or IDX files (all plain or gzipped): `tapeline upload photos/ --name mine --size 32`, `tapeline upload
    data.csv --name mine --target species`.

    Folders named train, validation (or val) and test are used as such; without a validation folder, test is used for
    validation. Image files are PNG, JPEG, WebP, BMP or GIF. File names tell IDX files apart: "label" marks labels;
    "t10k", "test" or "val" marks validation data.
    """
    name, paths = _named(name, paths)
    if not DATASET_NAME.fullmatch(name):
        raise Failure(
            f"{visible(name)!r} cannot be the name of a dataset, which has 1 to 64 ASCII letters, digits, dots, dashes "
            f"and underscores, a letter or digit first; try --name {_slug(name)}"
        )
    unnamed = 0
    with ExitStack() as stack:
        if any(path.is_dir() for path in paths):
            if len(paths) > 1:
                raise Failure("upload one folder at a time: its folders are the classes")
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="tapeline-upload-")))
            packed, unnamed = _packed(paths[0], folder / "images.tar", size, channels, on_bad)
            by_field = {"archive": packed}
        else:
            by_field = _by_field(paths)
        client = stack.enter_context(target.client())
        bar = stack.enter_context(_bar(_DoneColumn(), _SpeedColumn()))
        task = bar.add_task("uploading", total=sum(path.stat().st_size for path in by_field.values()))

        def on_reading(share: float) -> None:
            bar.update(task, description=_READING, total=1.0, completed=share)

        def on_progress(count: int) -> None:
            bar.advance(task, count)
            if bar.tasks[task].finished:
                on_reading(0.0)

        try:
            item = client.upload(
                name,
                by_field,
                validation_fraction=validation_fraction,
                size=size,
                channels=channels,
                on_bad=on_bad,
                target=target_column,
                split=split_column,
                types=_types(types),
                on_progress=on_progress,
                on_reading=on_reading,
            )
        except ApiError as error:
            if not error.errors:
                raise
            said = str(error).replace("on_bad=skip", "--on-bad skip").replace("channels=1", "--channels 1")
            said = said.replace("  types: ", "  --type: ")
            raise Failure(said, error.problem) from error
    if target.as_json:
        click.echo(to_json(item))
    else:
        is_table = item["kind"] == "table"
        things = "rows" if is_table else "images"
        counts = f"{item['train_count']:,} training and {item['validation_count']:,} validation {things}"
        counts += f", {item['test_count']:,} test {things}," if item["test_count"] else ""
        shape = _shape(item) + ("" if is_table else " pixels")
        click.echo(f"{name}: {counts} of {shape}, {item['classes']} classes: {_classes(item['class_names'])}")
        if is_table:
            _tell_report(item, _types(types))
        elif notes := (item["report"] or {}).get("notes"):
            for note in notes:
                click.echo(f"note: {visible(note)}")
        if left_out := (item["report"] or {}).get("left_out"):
            _say_left_out(left_out["count"] + unnamed, [f"{one['file']} {one['reason']}" for one in left_out["files"]])
        if len(item["versions"]) > 1:
            click.echo(f"it is the newest of {len(item['versions'])} versions: {', '.join(item['versions'])}")


def _types(given: Sequence[str]) -> dict[str, str]:
    types = {}
    for one in given:
        column, equals, kind = one.rpartition("=")
        if not equals or not column:
            raise Failure(f"--type {one}: must be COLUMN=TYPE, such as age=number")
        types[column] = kind
    return types


def _tell_report(item: Mapping[str, Any], types: Mapping[str, str]) -> None:
    """The report of a table's import: detected types, and omitted columns and rows."""
    report = item["report"] or {}
    kinds = ", ".join(f"{visible(column['name'])} ({column['type']})" for column in item["columns"][:_SHOWN_COLUMNS])
    more = len(item["columns"]) - _SHOWN_COLUMNS
    click.echo(f"columns: {kinds}" + (f", and {more} more" if more > 0 else ""))
    for note in report.get("notes", ()):
        click.echo(f"note: {visible(note)}")
    for one in report.get("ignored", ()):
        name = visible(one["name"])
        by_option = f"because of --type {name}=ignore" if types.get(one["name"]) == "ignore" else None
        reason = visible(one["reason"]).replace("set the type number", f"use --type {shlex.quote(name)}=number")
        click.echo(f"left out: column {name} {by_option or reason}")
    if count := report.get("rejected_count"):
        shown = "; ".join(f"line {one['line']:,} {visible(one['reason'])}" for one in report["rejected"][:5])
        click.echo(f"rejected: {counted(count, 'row')}: {shown}" + ("; ..." if count > 5 else ""))


def _shape(item: Mapping[str, Any]) -> str:
    if item.get("kind") == "table":
        return counted(len(item["columns"]), "column")
    return " x ".join(map(str, item["image_shape"]))


def _named(name: str | None, paths: tuple[Path, ...]) -> tuple[str, tuple[Path, ...]]:
    """Name and files from the arguments: ``mine photos/``, ``photos/ --name mine`` or ``photos/``."""
    if name is None and len(paths) > 1:
        name, paths = str(paths[0]), paths[1:]
    for path in paths:
        if not path.exists():
            raise Failure(f"{path} does not exist")
    return name or paths[0].resolve().name.partition(".")[0], paths


def _slug(text: str) -> str:
    """A name for a dataset after one that cannot be it: ``meine-fotos`` for ``Meine Fotos``."""
    text = unicodedata.normalize("NFC", text).lower()
    for letter, ascii_ in {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "o"}.items():
        text = text.replace(letter, ascii_)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9._]+", "-", text).strip("-._")[:64] or "data"


def _say_left_out(count: int, files: Sequence[str]) -> None:
    """Print to stderr what an import left out."""
    more = f"\n  and {count - _NAMED_FILES:,} more" if count > _NAMED_FILES else ""
    lines = "\n  ".join(visible(line) for line in files[:_NAMED_FILES])
    click.echo(f"left out {counted(count, 'file')}:\n  {lines}{more}", err=True)


def _packed(folder: Path, target: Path, size: str | None, channels: str | None, on_bad: str | None) -> tuple[Path, int]:
    """The archive of a folder, and the number of left out files that it does not name."""
    from service.cli import packing  # here: it loads Pillow
    from service.datasets.formats.decoding import SUFFIXES
    from service.datasets.formats.photos import parse_size

    try:
        width_and_height = parse_size(size) if size is not None else None
    except ValueError as error:
        raise Failure(f"--size: {error}") from error
    images, others = packing.files_of(folder)
    if not images:
        raise Failure(f"{folder} contains no images; files ending in {', '.join(SUFFIXES)} are read")
    with _bar(MofNCompleteColumn()) as bar:
        task = bar.add_task("packing", total=len(images))
        options = PhotoOptions(
            size=width_and_height, channels=Channels(channels or Channels.AUTO), on_bad=OnBad(on_bad or OnBad.ERROR)
        )
        names = packing.names_to_send(folder, others)
        left_out = packing.pack(folder, images, names, target, options=options, on_image=lambda: bar.advance(task))
    if left_out:
        _say_left_out(len(left_out), left_out)
    return target, len(others) - len(names)


def _by_field(paths: tuple[Path, ...]) -> dict[str, Path]:
    by_field: dict[str, Path] = {}
    for path in paths:
        field = field_of(path.name)
        if field in by_field:
            raise Failure(f"{by_field[field]} and {path} would both be used as {field}: rename one")
        by_field[field] = path
    return by_field


class _DoneColumn(DownloadColumn):
    """The bytes that were sent; then the share of them that the service has read."""

    def render(self, task: Task) -> Text:
        """The column."""
        if task.description != _READING:
            return super().render(task)
        return Text(f"{task.percentage:.0f}%", "progress.percentage")


class _SpeedColumn(TransferSpeedColumn):
    """How fast bytes are sent; nothing while the service reads them."""

    def render(self, task: Task) -> Text:
        """The column."""
        return Text("") if task.description == _READING else super().render(task)


def _bar(*columns: ProgressColumn) -> Progress:
    """A progress bar on stderr; nothing if that is not a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), *columns, console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(visible(name) for name in names[:_SHOWN_CLASSES])
    return f"{shown}, and {len(names) - _SHOWN_CLASSES} more" if len(names) > _SHOWN_CLASSES else shown


def _row(item: Mapping[str, Any]) -> tuple[str, ...]:
    """A dataset as columns."""
    download = (
        f"needs a download ({metric_info.size(item['download_bytes'])})"
        if item.get("download_bytes")
        else "needs a download"
    )
    note = item["problem"] or ("uploaded" if item["uploaded"] else "" if item["available"] else download)
    if item.get("state") == "unavailable" and not item["problem"]:
        note = item["state_reason"] or "not available"
    return (
        item["name"],
        _shape(item) or "broken",
        str(item["classes"]),
        f"{item['train_count']:,}",
        f"{item['validation_count']:,}",
        note,
    )


def field_of(name: str) -> str:
    """The form field for a file, derived from its name."""
    lower = name.lower()
    if lower.endswith(_ARCHIVES):
        return "archive"
    if lower.endswith(_TABLES):
        return "table"
    role = "labels" if "label" in lower else "images"
    return f"validation_{role}" if any(word in lower for word in ("t10k", "test", "val")) else role


COMMANDS = (list_datasets, upload)
