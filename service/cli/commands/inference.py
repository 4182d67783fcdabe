"""The commands that use trained networks."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service import kinds
from service.cli.progress import watch_job
from service.cli.target import Failure, Target, checkpoint_option, complete_datasets, network_argument, with_target
from service.cli.text import visible
from service.kinds.kind import Ability
from service.spec.metric_info import number, size
from service.spec.schema import PredictedPart
from service.storage.artifacts import EXPORT_NAMES, EXPORTS
from service.wording import counted
from tapeline import ApiError, Job, Model
from tapeline.images.files import IMAGE_SUFFIXES
from tapeline.inputs.uploads import files_of, is_table
from tapeline.method_types import GenerateOptions, Which

_MAX_SHOWN_CLASSES: Final = 5
_BAR_WIDTH: Final = 12
_NAME_WIDTH: Final = 32
_STDIN: Final = Path("-")
_FILM_POINTS: Final = 4
_FILM_STEPS: Final = 12


@click.command()
@network_argument
@click.argument("pictures", metavar="[FILE... | COLUMN=VALUE...]", nargs=-1, type=click.Path(path_type=Path))
@checkpoint_option("best")
@click.option(
    "--fit",
    is_flag=True,
    help="Crop and centre a drawing like MNIST digits. Without effect for models trained on image files.",
)
@click.option("--invert", is_flag=True, help="Invert the images: use it for dark drawings on a light background.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV file for the predictions of a table or a dataset  [default: stdout]",
)
@click.option(
    "--dataset",
    metavar="NAME",
    shell_complete=complete_datasets,
    help="Predict this dataset of the service, as a job, instead of files.",
)
@click.option(
    "--part", type=click.Choice([part.value for part in PredictedPart]), help="Part of the dataset  [default: all]"
)
@click.option("--name", help="Name of the job that predicts the dataset.")
@click.option("--no-wait", is_flag=True, help="Print the id of the job that predicts the dataset, and do not wait.")
@with_target
def predict(
    target: Target,
    network_text: str,
    pictures: Sequence[Path],
    checkpoint: Which,
    fit: bool,
    invert: bool,
    output: Path | None,
    dataset: str | None,
    part: str | None,
    name: str | None,
    no_wait: bool,
) -> None:
    """Classify images or the rows of a table, or predict the number that a regressor was trained on.

    FILE is a PNG, JPEG, WebP, BMP or GIF file, a folder of them, or one CSV or TSV file with the columns of the
    training data: `tapeline predict JOB rows.csv -o out.csv` copies the rows and adds the prediction and the
    probabilities (-: standard input). The output has the delimiter, the encoding and the decimal sign of the input.
    Columns that the model does not use are copied. With --json and without -o, print the predictions as JSON.

    `tapeline predict JOB rooms=3 city=Oslo` predicts one row.

    Images are converted to grey or colour, as the training images are, and scaled to their size. If these were uploaded
    as image files, images are cropped or padded in the same way. Photos are rotated as in their EXIF data.

    `tapeline predict JOB --dataset NAME -o out.csv` submits a job that predicts a whole dataset of the service, waits
    for it, and downloads its CSV file. With --json, print that job.
    """
    if dataset is not None:
        if pictures or fit or invert:
            raise click.UsageError("--dataset cannot be combined with files, --fit or --invert")
        _predict_dataset(target, network_text, checkpoint, dataset, part or "all", name, output, waits=not no_wait)
        return
    if part or name or no_wait:
        raise click.UsageError("--part, --name and --no-wait apply to --dataset")
    if not pictures:
        raise click.UsageError("nothing to predict: give files, COLUMN=VALUE, or --dataset NAME")
    if all("=" in str(path) and not path.exists() for path in pictures):
        if fit or invert or output is not None:
            raise click.UsageError("a row of COLUMN=VALUE takes no --fit, --invert and --output")
        _predict_row(target, network_text, dict(_cell(str(path)) for path in pictures), checkpoint)
        return
    if pictures == (_STDIN,):
        with _standard_input() as path:
            _predict_table(target, network_text, path, checkpoint, output, name="standard input")
        return
    pictures = [picture for path in pictures for picture in (_images_in(path) if path.is_dir() else [path])]
    # Among images, a .txt file is more likely a note that a file pattern matched, too.
    if all(map(is_table, pictures)) or any(is_table(path) and path.suffix.lower() != ".txt" for path in pictures):
        if len(pictures) > 1 or fit or invert:
            raise Failure("for a table, name exactly one CSV or TSV file, without --fit and --invert")
        _predict_table(target, network_text, pictures[0], checkpoint, output)
        return
    if output is not None:
        raise Failure("--output is for tables")
    with target.network(network_text, checkpoint) as network:
        try:
            prediction = network.predict(pictures, checkpoint=checkpoint, fit=fit, invert=invert)
        except ApiError as error:
            raise _with_file_names(error, pictures) from error
    if target.prints({"pictures": [str(path) for path in pictures], **prediction}):
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        for path, class_index, probabilities in zip(
            pictures, prediction["classes"], prediction["probabilities"], strict=True
        ):
            click.echo(f"{path}\t{prediction['class_names'][class_index]}\t{probabilities[class_index]:.4f}")
        return
    for path, probabilities in zip(pictures, prediction["probabilities"], strict=True):
        console.print(_bars(path, probabilities, prediction))
    source = f"{prediction.model}, " if prediction.model else ""
    console.print(f"[dim]{source}checkpoint of epoch {prediction['checkpoint']}[/]")


def _predict_dataset(
    target: Target,
    network_text: str,
    checkpoint: Which,
    dataset: str,
    part: Any,
    name: str | None,
    output: Path | None,
    *,
    waits: bool,
) -> None:
    with target.client() as client:
        network = target.find_network(client, network_text, checkpoint)
        model = f"{network.id}@{checkpoint}" if isinstance(network, Job) else network_text
        job = client.predict_dataset(model, dataset, part=part, name=name)
        if not waits:
            target.echo(job, job.id)
            return
        watch_job(target, job, to_stderr=True)
        if target.as_json and output is None:
            target.prints(job.refresh())
            return
        with TemporaryDirectory(prefix="tapeline-predict-") as folder:
            path = job.download_predictions(output or Path(folder, "predictions.csv"))
            if output is None:
                click.echo(path.read_bytes(), nl=False)
                return
        if target.prints({"output": str(output), **job.refresh()}):
            return
    rows, epoch = job["progress"]["steps"], job.resolved["model"]["checkpoint"]
    click.echo(f"{output}  {counted(rows, 'row')}  checkpoint of epoch {epoch}")


def _images_in(folder: Path) -> list[Path]:
    images, _ = files_of(folder)
    if not images:
        raise Failure(f"{folder} contains no images; files ending in {', '.join(IMAGE_SUFFIXES)} are read")
    return images


def _cell(text: str) -> tuple[str, str | None]:
    """A column and its value, which is missing if it is empty; the service reads numbers from texts."""
    name, _, value = text.partition("=")
    return name, value or None


def _predict_row(target: Target, network_text: str, row: Mapping[str, Any], checkpoint: Which) -> None:
    with target.network(network_text, checkpoint) as network:
        try:
            prediction = network.predict(row, checkpoint=checkpoint)
        except ApiError as error:
            lines = [f"{str(fault['pointer']).rpartition('/')[2]} {fault['detail']}" for fault in error.errors]
            is_of_cells = bool(lines) and error.errors[0]["code"] != "unsuitable"
            raise (
                Failure(visible("\n".join(lines)), error.problem) if is_of_cells else _with_path(error, "")
            ) from error
    if target.prints(prediction):
        return
    for value in prediction["unknown_values"]:
        click.echo(
            visible(f"{value['column']}: {value['value']!r} is not a known category, treated as missing"), err=True
        )
    for name in prediction["absent_columns"]:
        click.echo(visible(f"column {name!r} is missing, treated as a missing value"), err=True)
    (result,) = prediction.predictions
    if "value" in result:
        click.echo(f"{visible(prediction['target'])}\t{number('val_rmse', result['value'])}")
        return
    for name, probability in sorted(result["probabilities"].items(), key=lambda pair: -pair[1])[:_MAX_SHOWN_CLASSES]:
        click.echo(f"{visible(name)}\t{probability:.1%}")


@contextmanager
def _standard_input() -> Iterator[Path]:
    """The standard input as a file, whose size is sent first."""
    with TemporaryDirectory(prefix="tapeline-predict-") as folder:
        path = Path(folder, "stdin.csv")
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield path


def _predict_table(
    target: Target, network_text: str, path: Path, checkpoint: Which, output: Path | None, *, name: str | None = None
) -> None:
    name = name or str(path)
    if not path.exists():
        raise Failure(f"{path} does not exist")
    with target.network(network_text, checkpoint) as network:
        try:
            if target.as_json and output is None:
                prediction: dict[str, Any] = {**network.predict(path, checkpoint=checkpoint)}
                names: tuple[str, ...] = ("class_names", "classes", "probabilities")
                names = ("target", "values") if prediction.get("values") is not None else names
                results = {field: prediction[field] for field in names}
                target.prints({"table": name, **prediction["summary"], **results})
                return
            summary = network.predict_table(path, sys.stdout if output is None else output, checkpoint=checkpoint)
        except ApiError as error:
            raise _with_path(error, name) from error
    if target.prints({"table": name, "output": str(output), **summary}):
        return
    for note in summary["notes"]:
        click.echo(visible(note), err=True)
    if output is not None:
        click.echo(f"{output}  {counted(summary['rows'], 'row')}  checkpoint of epoch {summary['checkpoint']}")


def _with_path(error: ApiError, file: str) -> Exception:
    """The error with the file's name, where it does not name a line."""
    if error.code != "invalid_input" or not error.errors:
        return error
    if error.errors[0]["code"] == "unsuitable":
        return Failure("the job is trained on images: give image files instead of a table", error.problem)
    lines = [
        visible(fault["detail"]) if fault["pointer"].startswith("#/rows/") else f"{file}: {visible(fault['detail'])}"
        for fault in error.errors
    ]
    return Failure("\n".join(lines), error.problem)


@click.command()
@network_argument
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: ID.png, or ID.gif]")
@click.option(
    "--count",
    type=click.IntRange(1, 256),
    help="Number of images (default: 16), or of latent points with --film (default: 4).",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the latent points.")
@click.option("--class", "class_", help="Class of all images, by name or number, of a conditional GAN.")
@click.option("--film", is_flag=True, help="Make a GIF: a walk through the latent space and back to its start.")
@click.option("--scale", type=click.IntRange(1, 16), default=4, show_default=True, help="Scale factor of the output.")
@checkpoint_option("best")
@with_target
def generate(
    target: Target,
    network_text: str,
    output: Path | None,
    count: int | None,
    seed: int,
    class_: str | None,
    film: bool,
    scale: int,
    checkpoint: Which,
) -> None:
    """Generate images with a trained GAN: a grid as a PNG, or an animation as a GIF.

    With --json, print the images as numbers in [0, 1].
    """
    options: GenerateOptions = {"checkpoint": checkpoint, "scale": scale}
    if class_ is not None:
        options |= {"class": class_}
    if film:
        points = count or _FILM_POINTS
        options |= {"seeds": [*range(seed, seed + points), seed], "steps": _FILM_STEPS}
    else:
        options |= {"seed": seed, "count": count or 16}
    with target.network(network_text, checkpoint) as network:
        if Ability.GENERATE not in kinds.of(str(network.kind)).abilities:
            name = _name_of(network)
            raise Failure(f"{name} is a {network.kind}; use: tapeline predict {shlex.quote(name)} FILE")
        if target.as_json:
            target.prints(network.generate(**options))
            return
        picture = network.generate_picture(format="film" if film else "grid", **options)
    stem = network.id if isinstance(network, Job) else str(picture.model).replace(":", "-")
    path = output or Path(f"{stem}.gif" if film else f"{stem}.png")
    path.write_bytes(picture.data)
    source = f"{picture.model}, " if picture.model else ""
    click.echo(f"{path}  {size(len(picture.data))}  {source}checkpoint of epoch {picture.checkpoint}")


def _name_of(network: Job | Model) -> str:
    return str(network.name or network.id[-6:]) if isinstance(network, Job) else network.reference


@click.command()
@network_argument
@click.option(
    "--to", "program", required=True, type=click.Choice([*EXPORT_NAMES, "mlflow"]), help="The program to export to."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File or folder  [default: current folder]")
@click.option("--license", "licence", metavar="ID", help="License for the model card of huggingface, such as mit.")
@click.option("--uri", metavar="URI", help="MLflow's tracking server, such as http://HOST:5000 or sqlite:///FILE.")
@click.option("--experiment", default="tapeline", show_default=True, help="MLflow's experiment.")
@checkpoint_option("best")
@with_target
def export(
    target: Target,
    network_text: str,
    program: str,
    output: Path | None,
    licence: str | None,
    uri: str | None,
    experiment: str,
    checkpoint: Which,
) -> None:
    """Export a trained model to another program: ONNX, PyTorch, TensorBoard, Hugging Face or MLflow.

    onnx is one file, the others are zip files. mlflow logs the job as a run, with all metrics and files. It needs
    the package mlflow-skinny on this machine. onnx and huggingface need onnx on the server, tensorboard needs
    tensorboardX; torch and certificate need neither. pytorch is another name for torch. `tapeline certify` downloads a
    certificate as a folder.
    """
    export_format = EXPORTS[EXPORT_NAMES[program]] if program != "mlflow" else None
    unsuitable: dict[str, object] = {"--uri": uri} if export_format is not None else {"--output": output}
    if export_format is not None and not export_format.has_card:
        unsuitable["--license"] = licence
    for option, value in unsuitable.items():
        if value is not None:
            raise click.UsageError(f"{option} does not apply to --to {program}")
    if export_format is None and uri is None:
        raise click.UsageError(
            "--to mlflow needs --uri, for example --uri http://127.0.0.1:5000 or sqlite:///mlflow.db"
        )
    with target.client() as client:
        network = target.find_network(client, network_text, checkpoint)
        if uri is not None:
            if isinstance(network, Model):
                checkpoint = network["checkpoint"]
            job = network.job if isinstance(network, Model) else network
            run_id = client.export_to_mlflow(job, uri, experiment=experiment, checkpoint=checkpoint)
            target.echo({"run_id": run_id, "uri": uri}, f"run {run_id} in {uri}")
            return
        to = output or Path()
        if export_format is not None and not to.suffix and not to.is_dir():
            to = to.with_name(f"{to.name}.{export_format.suffix}")
        path = network.export(program, to, checkpoint=checkpoint, license=licence)
    size_bytes = path.stat().st_size
    target.echo({"path": str(path), "size_bytes": size_bytes}, f"{path}  {size(size_bytes)}")


def _with_file_names(error: ApiError, pictures: Sequence[Path]) -> Exception:
    """The error with file names instead of indices."""
    if [(fault.get("pointer"), fault.get("code")) for fault in error.errors] == [("#/images", "unsuitable")]:
        detail = str(error.errors[0]["detail"]).replace("send rows", "give one CSV or TSV file")
        return Failure(detail, error.problem)
    names = {f"#/images/{index}": path for index, path in enumerate(pictures)}
    if not error.errors or any(fault.get("pointer") not in names for fault in error.errors):
        return error
    lines = [f"{names[str(fault['pointer'])]} {fault['detail']}" for fault in error.errors]
    return Failure("\n".join(lines), error.problem)


def _bars(path: Path, probabilities: Sequence[float], prediction: Mapping[str, Any]) -> Table:
    """The most probable classes with bars."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column(no_wrap=True, overflow="crop")
    order = sorted(range(len(probabilities)), key=lambda class_index: -probabilities[class_index])[:_MAX_SHOWN_CLASSES]
    for rank, class_index in enumerate(order):
        style = "bold green" if rank == 0 else "dim"
        table.add_row(
            Text(_shorten_path(visible(str(path))) if rank == 0 else ""),
            Text(f"{probabilities[class_index]:.1%}", style),
            Text(visible(prediction["class_names"][class_index]), style),
            Text("█" * round(probabilities[class_index] * _BAR_WIDTH), style),
        )
    return table


def _shorten_path(name: str) -> str:
    """A path shortened to fit its column; its end is kept, which distinguishes the files of a folder."""
    if cell_len(name) <= _NAME_WIDTH:
        return name
    while cell_len(name) >= _NAME_WIDTH:
        name = name[1:]
    return f"…{name}"
