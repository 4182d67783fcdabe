"""The commands about datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.errors import Failure
from service.cli.target import Target, service_options
from service.cli.text import to_json
from service.spec.metric_info import size


@click.command("datasets")
@service_options
@click.pass_obj
def list_datasets(target: Target) -> None:
    """List the available datasets."""
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


@click.command()
@click.argument("name")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--validation-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of each class to set aside for validation if there are no validation files (default: 0.15).",
)
@service_options
@click.pass_obj
def upload(target: Target, name: str, files: tuple[Path, ...], validation_fraction: float | None) -> None:
    """Upload a dataset from FILES and call it NAME, or a new version of NAME.

    FILES are one NPZ archive, or IDX files (plain or gzipped). File names tell IDX files apart: "label" marks labels;
    "t10k", "test" or "val" marks validation data.
    """
    by_field: dict[str, Path] = {}
    for path in files:
        field = field_of(path.name)
        if field in by_field:
            raise Failure(f"{by_field[field]} and {path} would both be used as {field}: rename one")
        by_field[field] = path
    with target.client() as client:
        item = client.upload(name, by_field, validation_fraction=validation_fraction)
    if target.as_json:
        click.echo(to_json(item))
    else:
        counts = f"{item['train_count']:,} training and {item['validation_count']:,} validation images"
        click.echo(f"{name}: {counts}, {item['classes']} classes")
        if len(item["versions"]) > 1:
            click.echo(f"it is the newest of {len(item['versions'])} versions: {', '.join(item['versions'])}")


def _row(item: Mapping[str, Any]) -> tuple[str, ...]:
    """A dataset as columns."""
    download = (
        f"needs a download ({size(item['download_bytes'])})" if item.get("download_bytes") else "needs a download"
    )
    note = item["problem"] or ("uploaded" if item["uploaded"] else "" if item["available"] else download)
    if item.get("state") == "unavailable" and not item["problem"]:
        note = item["state_reason"] or "not available"
    return (
        item["name"],
        " x ".join(map(str, item["image_shape"])) or "broken",
        str(item["classes"]),
        f"{item['train_count']:,}",
        f"{item['validation_count']:,}",
        note,
    )


def field_of(name: str) -> str:
    """The field of the form that a file goes into, by its name."""
    lower = name.lower()
    if lower.endswith(".npz"):
        return "archive"
    role = "labels" if "label" in lower else "images"
    return f"validation_{role}" if any(word in lower for word in ("t10k", "test", "val")) else role


COMMANDS = (list_datasets, upload)
