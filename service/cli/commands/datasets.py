"""The commands about datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from service.cli.derived import Terminal, command, group
from service.cli.target import Target, complete_datasets, with_target
from service.cli.text import print_rows, visible
from service.cli.uploading import parse_name_and_paths, print_upload, send, shape, upload_options
from service.spec import metric_info
from service.states import Task as LearningTask
from service.wording import counted, rounded

_BAR_WIDTH: Final = 30
_NAME_WIDTH: Final = 24
_MAX_SHOWN_CLASSES: Final = 40
_NUMBERS: Final = ("SIZE", "CLASSES", "TRAINING", "VALIDATION")
"""Columns that are aligned to the right."""
_PARTS: Final = {"train": "training", "validation": "validation", "test": "test"}


class _Datasets(click.Group):
    """A group in which ``datasets NAME`` stands for ``datasets show NAME``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, or ``show``."""
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


def _note(item: Mapping[str, Any]) -> Text:
    size = f" ({metric_info.size(item['download_bytes'])})" if item["download_bytes"] else ""
    download = "" if item["available"] else f"needs a download{size}"
    note = item["problem"] or ("uploaded" if item["uploaded"] else download)
    if item["state"] == "unavailable" and not item["problem"]:
        note = item["state_reason"] or "not available"
    return Text(note, "red" if item["problem"] else "yellow" if not item["available"] else "")


_LISTING: Final = Terminal(
    "datasets",
    "datasets",
    "List the available datasets, or show, publish or delete one.",
    columns={
        "NAME": "name",
        "SIZE": lambda item: shape(item) or "broken",
        "CLASSES": lambda item: (
            "number" if item.get("task") == LearningTask.REGRESSION else str(item["classes"] or "-")
        ),
        "TRAINING": "train_count",
        "VALIDATION": "validation_count",
        "NOTE": _note,
    },
    right=_NUMBERS,
    whole=_NUMBERS,
)
list_datasets: Final = group(
    _LISTING,
    Terminal(
        "delete",
        "delete_dataset",
        "Delete an uploaded dataset that no unfinished job uses.",
        question="the dataset {}",
        done="deleted",
    ),
    kind=_Datasets,
    complete=complete_datasets,
    subcommand_metavar="[NAME | COMMAND [ARGS]...]",
)
list_again: Final = command(replace(_LISTING, name="list", help="List the available datasets."), "datasets")
list_again.hidden = True
list_datasets.add_command(list_again)


@list_datasets.command("show")
@click.argument("name", shell_complete=complete_datasets)
@with_target
def show_dataset(target: Target, name: str) -> None:
    """Show a dataset: origin, licence, versions, classes, and the columns of a table."""
    with target.client() as client:
        item = client.dataset(name)
        is_table = item["kind"] == "table" and item["available"]
        columns = client.dataset_columns(name)["columns"] if is_table else []
    if not target.prints(item | ({"statistics": columns} if columns else {})):
        print_rows(_dataset_rows(item, columns))


@list_datasets.command("publish")
@click.argument("name", shell_complete=complete_datasets)
@click.option("--withdraw", is_flag=True, help="Let only its own owner use it again.")
@with_target
def publish_dataset(target: Target, name: str, withdraw: bool) -> None:
    """Let all owners train on an uploaded dataset of yours (scope admin)."""
    with target.client() as client:
        item = client.publish_dataset(name, shared=not withdraw)
    target.echo(item, f"{name}  {'withdrawn' if withdraw else 'published to all owners'}")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="[NAME] PATH...")
@click.option("--name", help="Name of the dataset; the first argument otherwise.")
@upload_options
@with_target
def upload(target: Target, /, paths: tuple[Path, ...], name: str | None, **options: Any) -> None:
    """Upload a dataset, or a new version of one.

    If the service has exactly this data already, nothing is stored, and the command says so.

    PATH is a folder with a folder of image files for each class, a zip or tar archive of one, an NPZ archive, a CSV or
    TSV file, or IDX files (all plain or gzipped): `tapeline upload photos/ --name mine --size 32`, `tapeline upload
    data.csv --name mine --target species`.

    Folders named train, validation (or val) and test are used as such; without a validation folder, test is used for
    validation. Image files are PNG, JPEG, WebP, BMP or GIF. File names tell IDX files apart: "label" marks labels;
    "t10k", "test" or "val" marks validation data.
    """
    name, paths = parse_name_and_paths(name, paths)
    uploaded = send(target, name, paths, options)
    if not target.prints(uploaded):
        print_upload(uploaded, options)
        click.echo(f"next: tapeline train --dataset {uploaded.reference} --watch")


def _dataset_rows(item: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Titles and values.

    Args:
        columns: statistics of a table's columns.
    """
    noun = "rows" if item["kind"] == "table" else "images"
    counts = {part: item[f"{part}_count"] for part in _PARTS if item[f"{part}_count"]}
    rows = [
        ("Dataset", item["version"] or item["name"]),
        ("Title", item["title"]),
        ("Kind", _kind(item)),
        ("Content", ", ".join(f"{count:,} {_PARTS[part]} {noun}" for part, count in counts.items()) or "unknown"),
        ("State", f"{item['state']}: {item['state_reason']}" if item["state_reason"] else item["state"]),
        ("Origin", item["source"]),
        ("Licence", item["licence"]),
        ("SHA-256", item["sha256"] or "not known yet"),
    ]
    rows += [("Versions", version) for version in item["versions"][1:]]
    rows += [("Classes", line) for line in _class_lines(item)]
    is_regression = item.get("task") == LearningTask.REGRESSION
    for column in columns:
        is_target = is_regression and column["name"] == item["target"]
        rows.append(("Target" if is_target else "Columns", _column_line(column)))
    return rows


def _kind(item: Mapping[str, Any]) -> str:
    if item["kind"] == "table":
        return f"table of {counted(len(item['columns']), 'column')}"
    shape = item["image_shape"]
    if not shape:
        return "unknown"
    return f"images of {shape[0]} x {shape[1]} pixels" + (", in colour" if len(shape) == 3 else "")


def _class_lines(item: Mapping[str, Any]) -> list[str]:
    """A line with a bar for each class; of many classes, only the first."""
    counts = item["class_counts"]
    names = [_on_one_line(name) for name in item["class_names"]]
    if not counts or not names:
        return []
    totals = [sum(class_counts) for class_counts in zip(*counts.values(), strict=True)]
    width = min(max(map(cell_len, names)), _NAME_WIDTH)
    max_total = max(totals) or 1
    lines = [
        f"{set_cell_size(name, width)} {'█' * round(_BAR_WIDTH * total / max_total):<{_BAR_WIDTH}} {total:,}"
        for name, total in zip(names[:_MAX_SHOWN_CLASSES], totals, strict=False)
    ]
    return [*lines, *([f"and {len(names) - _MAX_SHOWN_CLASSES} more"] if len(names) > _MAX_SHOWN_CLASSES else [])]


def _column_line(column: Mapping[str, Any]) -> str:
    missing = f", {column['missing']:,} missing" if column["missing"] else ""
    name = f"{_on_one_line(column['name'])} ({column['type']}{missing})"
    if column["categories"] is not None:
        shown = ", ".join(f"{_on_one_line(text)} {count:,}" for text, count in column["categories"])
        omitted = column["distinct"] - len(column["categories"])
        return f"{name}: {shown}" + (f", and {omitted:,} more" if omitted > 0 else "")
    if column["low"] is None:
        return f"{name}: no values"
    return f"{name}: {_number(column['low'])} to {_number(column['high'])}, mean {_number(column['mean'])}"


def _on_one_line(text: str) -> str:
    return visible(text).replace("\n", "\N{RETURN SYMBOL}")


def _number(value: Any) -> str:
    return rounded(value) if isinstance(value, float) else str(value)
