"""The commands about data sets."""

from __future__ import annotations

import json
from pathlib import Path

import click

from service.cli.errors import Failure
from service.cli.target import Target, service_options


@click.command("datasets")
@service_options
@click.pass_obj
def list_datasets(target: Target) -> None:
    """List the data sets that a spec may name."""
    with target.client() as client:
        found = client.datasets()
    if target.as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for item in found:
        size = " x ".join(map(str, item["image_shape"])) or "broken"
        counts = f"{item['train_count']:,} + {item['validation_count']:,}"
        note = item["problem"] or ("yours" if item["uploaded"] else "" if item["available"] else "to be downloaded")
        click.echo(f"{item['name']}\t{size}\t{item['classes']} classes\t{counts}\t{note}".rstrip())


@click.command()
@click.argument("name")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--validation-fraction", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Share of each class."
)
@service_options
@click.pass_obj
def upload(target: Target, name: str, files: tuple[Path, ...], validation_fraction: float | None) -> None:
    """Send FILES as the data set NAME: one NPZ archive, or IDX files named as MNIST's are, plain or gzipped.

    Of IDX files, one with "label" in its name holds labels, and one with "t10k", "test" or "val" is for validation.
    """
    by_field: dict[str, Path] = {}
    for path in files:
        field = field_of(path.name)
        if field in by_field:
            raise Failure(f"{by_field[field]} and {path} would both be the {field}: rename one")
        by_field[field] = path
    with target.client() as client:
        item = client.upload(name, by_field, validation_fraction=validation_fraction)
    if target.as_json:
        click.echo(json.dumps(item, indent=2))
    else:
        counts = f"{item['train_count']:,} to train on, {item['validation_count']:,} for validation"
        click.echo(f"{name}: {counts}, {item['classes']} classes")


def field_of(name: str) -> str:
    """What a file is, by its name."""
    lower = name.lower()
    if lower.endswith(".npz"):
        return "archive"
    role = "labels" if "label" in lower else "images"
    return f"validation_{role}" if any(word in lower for word in ("t10k", "test", "val")) else role


COMMANDS = (list_datasets, upload)
