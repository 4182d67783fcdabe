"""The commands about datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Column
from rich.text import Text

from service.cli.dataset_rows import dataset_rows
from service.cli.target import Target, confirm_deletion, service_options, yes_option
from service.cli.text import print_rows, print_table, to_json
from service.cli.uploading import UploadOptions, parse_name_and_paths, print_upload, send, shape, upload_options
from service.spec import metric_info


@click.group("datasets", invoke_without_command=True)
@service_options
@click.pass_context
def list_datasets(context: click.Context) -> None:
    """List the available datasets, or show or delete one."""
    if context.invoked_subcommand is not None:
        return
    target = context.ensure_object(Target)
    with target.client() as client:
        datasets = client.datasets()
    if target.as_json:
        click.echo(to_json(datasets))
        return
    columns = [
        Column("NAME", overflow="fold"),
        *(Column(title, justify="right", no_wrap=True) for title in ("SIZE", "CLASSES", "TRAINING", "VALIDATION")),
        Column("NOTE", overflow="fold"),
    ]
    print_table(columns, map(_row, datasets))


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
@yes_option
@service_options
@click.pass_obj
def delete_dataset(target: Target, name: str, yes: bool) -> None:
    """Delete an uploaded dataset that no unfinished job uses."""
    with target.client() as client:
        confirm_deletion(f"the dataset {name}", yes=yes)
        client.delete_dataset(name)
    click.echo(to_json({"name": name, "deleted": True}) if target.as_json else f"{name}  deleted")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="[NAME] PATH...")
@click.option("--name", help="Name of the dataset; the first argument otherwise.")
@upload_options
@service_options
@click.pass_obj
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
    upload_settings = UploadOptions(**options)
    name, paths = parse_name_and_paths(name, paths)
    uploaded = send(target, name, paths, upload_settings)
    if target.as_json:
        click.echo(to_json(uploaded.item))
    else:
        print_upload(uploaded, upload_settings)
        click.echo(f"next: tapeline train --dataset {uploaded.reference} --watch")


def _row(item: Mapping[str, Any]) -> tuple[str | Text, ...]:
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
        shape(item) or "broken",
        str(item["classes"]),
        f"{item['train_count']:,}",
        f"{item['validation_count']:,}",
        Text(note, "red" if item["problem"] else "yellow" if not item["available"] else ""),
    )


COMMANDS = (list_datasets, upload)
