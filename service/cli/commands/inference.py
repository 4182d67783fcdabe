"""The commands that use trained networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.errors import Failure
from service.cli.target import Target, job_argument, service_options
from service.cli.text import to_json
from service.client import ApiError, GenerateOptions, Which
from service.spec.metric_info import size

_SHOWN_CLASSES: Final = 5
_BAR_WIDTH: Final = 30
_FILM_POINTS: Final = 4
_FILM_STEPS: Final = 12


def _which(context: click.Context, parameter: click.Parameter, value: str) -> Which:
    """A checkpoint as the client expects it: ``best``, ``latest`` or an epoch."""
    match value:
        case "best" | "latest":
            return value
        case _ if value.isdecimal() and int(value) > 0:
            return int(value)
    raise click.BadParameter(f"{value!r} is not best, latest or an epoch number")


_checkpoint: Final = click.option(
    "--checkpoint",
    default="best",
    show_default=True,
    metavar="best|latest|N",
    callback=_which,
    help="N is an epoch number.",
)


@click.command()
@job_argument
@click.argument(
    "pictures", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False)
)
@_checkpoint
@click.option(
    "--fit",
    is_flag=True,
    help="In colour: scale and crop an image as an import does. In grey: centre a drawing like MNIST digits.",
)
@click.option("--invert", is_flag=True, help="Invert the images: use it for dark drawings on a light background.")
@service_options
@click.pass_obj
def predict(
    target: Target, job_text: str, pictures: Sequence[Path], checkpoint: Which, fit: bool, invert: bool
) -> None:
    """Classify images with a trained classifier: PNG, JPEG, WebP, BMP or GIF files.

    Images are converted to grey or colour, as the training images are, and scaled to their size. Photos are rotated as
    in their EXIF data.
    """
    with target.client() as client:
        try:
            answer = target.find(client, job_text).predict(pictures, checkpoint=checkpoint, fit=fit, invert=invert)
        except ApiError as error:
            raise _naming_files(error, pictures) from error
    if target.as_json:
        click.echo(to_json({"pictures": [str(path) for path in pictures], **answer}))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        for path, number, shares in zip(pictures, answer["classes"], answer["probabilities"], strict=True):
            click.echo(f"{path}\t{answer['class_names'][number]}\t{shares[number]:.4f}")
        return
    for path, shares in zip(pictures, answer["probabilities"], strict=True):
        console.print(_bars(path, shares, answer))
    console.print(f"[dim]checkpoint of epoch {answer['checkpoint']}[/]")


@click.command()
@job_argument
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: ID.png, or ID.gif]")
@click.option(
    "--count",
    type=click.IntRange(1, 256),
    help="Number of images (default: 16), or of latent points with --film (default: 4).",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the latent points.")
@click.option("--film", is_flag=True, help="Make a GIF: a walk through the latent space and back to its start.")
@click.option("--scale", type=click.IntRange(1, 16), default=4, show_default=True, help="Scale factor of the output.")
@_checkpoint
@service_options
@click.pass_obj
def generate(
    target: Target,
    job_text: str,
    output: Path | None,
    count: int | None,
    seed: int,
    film: bool,
    scale: int,
    checkpoint: Which,
) -> None:
    """Generate images with a trained GAN: a grid as a PNG, or an animation as a GIF.

    With --json, print the images as numbers in [0, 1].
    """
    options: GenerateOptions = {"checkpoint": checkpoint, "scale": scale}
    if film:
        points = count or _FILM_POINTS
        options |= {"seeds": [*range(seed, seed + points), seed], "steps": _FILM_STEPS}
    else:
        options |= {"seed": seed, "count": count or 16}
    with target.client() as client:
        job = target.find(client, job_text)
        if target.as_json:
            click.echo(to_json(job.generate(**options)))
            return
        made = job.generate_picture(format="film" if film else "grid", **options)
    path = output or Path(f"{job.id}.gif" if film else f"{job.id}.png")
    path.write_bytes(made.data)
    click.echo(f"{path}  {size(len(made.data))}  checkpoint of epoch {made.checkpoint}")


COMMANDS: Final = (predict, generate)


def _naming_files(error: ApiError, pictures: Sequence[Path]) -> Exception:
    """The error with file names instead of indices."""
    names = {f"#/images/{number}": path for number, path in enumerate(pictures)}
    if not error.errors or any(fault.get("pointer") not in names for fault in error.errors):
        return error
    lines = [f"{names[str(fault['pointer'])]} {fault['detail']}" for fault in error.errors]
    return Failure("\n".join(lines), error.problem)


def _bars(path: Path, shares: Sequence[float], answer: Mapping[str, Any]) -> Table:
    """The most probable classes with bars."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=28)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    order = sorted(range(len(shares)), key=lambda number: -shares[number])[:_SHOWN_CLASSES]
    for place, number in enumerate(order):
        style = "bold green" if place == 0 else "dim"
        table.add_row(
            Text(str(path) if place == 0 else ""),
            Text(answer["class_names"][number], style),
            Text(f"{shares[number]:.1%}", style),
            Text("█" * round(shares[number] * _BAR_WIDTH), style),
        )
    return table
