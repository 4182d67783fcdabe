"""Inference: classify images with a classifier, generate images with a GAN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import numpy as np
from flask import Blueprint, Response
from numpy.typing import NDArray

from service.access.keys import Scope
from service.application.inference_requests import (
    MAX_IMAGES,
    MAX_NUMBERS,
    MAX_PIXELS,
    GenerateRequest,
    PredictRequest,
)
from service.datasets.info import DatasetInfo
from service.datasets.tables.rows import read_rows
from service.errors import Fault, SpecError
from service.pictures import films, grids
from service.spec import validation
from service.spec.schema import GanSpec, Kind, Part
from service.states import DatasetKind
from service.storage.artifacts import ArtifactDamaged
from service.storage.tables import Artifact
from service.web.endpoints import Result, endpoint
from service.web.inference import loading
from service.web.inference.images import Levels, levels_of, too_much
from service.web.inference.loading import dataset_of, inference, job_of, with_network
from service.web.middleware import problems
from service.web.schemas.inference import GenerateAnswer, PredictAnswer, UnknownValue

if TYPE_CHECKING:
    from service.web.inference.answering import LoadedModel

blueprint: Final = Blueprint("inference", __name__)

TAG: Final = "Inference"
_DEFAULT_COUNT: Final = 16
_LISTED: Final = 1000
"""Maximum number of unknown values in a response."""

B = TypeVar("B", bound=Part)


@blueprint.post("/jobs/<job_id>/predict")
@endpoint(
    TAG,
    PredictAnswer,
    document=PredictRequest,
    invalid_body="invalid_input",
    problems=loading.PROBLEMS,
    scope=Scope.READ,
)
def predict(job_id: str, document: Any) -> PredictAnswer:
    """Classify images, or rows of a table.

    `images` are PNG, JPEG, WebP, BMP or GIF files in base64, or numbers in [0, 1], where 0 is black. They are converted
    to grey or colour, as the dataset is. For a dataset that was imported from image files, they are scaled to cover its
    image size and cropped evenly, as at the import. For one of arrays, their sides are scaled to its image size; `fit`
    crops and centres a drawing like MNIST digits, and crops evenly in colour.
    `invert` is for dark drawings on a light background. `checkpoint` is `best`, `latest` or an epoch number;
    `GET /jobs/{job_id}/checkpoints` lists the stored ones. To keep all checkpoints, set
    `"checkpoint": {"keep_last": 1000}` in the spec.

    `rows` are for jobs that are trained on a table: `{"rows": [{"age": 41, "city": "Oslo"}]}`. A column that is left
    out has no value, and `absent_columns` names it; an unknown column is an error. A category that the data do not have
    counts as missing, and `unknown_values` names it.
    """
    job = job_of(job_id, Kind.CLASSIFIER)
    body = _validated(PredictRequest, document)
    info = dataset_of(job)
    _check_kind(body, info)
    if body.rows is not None:
        return with_network(job, body.checkpoint, info, partial(_predicted_rows, rows=body.rows, info=info))
    levels = levels_of(body.images or [], body, info)
    if body.explain and levels.size > MAX_NUMBERS:
        raise too_much("#/explain", f"{len(levels)} images have {levels.size} pixels", MAX_NUMBERS)
    return with_network(job, body.checkpoint, info, partial(_predictions, body=body, info=info, levels=levels))


@blueprint.post("/jobs/<job_id>/generate")
@endpoint(
    TAG,
    GenerateAnswer,
    document=GenerateRequest,
    invalid_body="invalid_input",
    problems=loading.PROBLEMS,
    scope=Scope.READ,
    other_media=("image/png", "image/gif"),
    also={200: "A PNG with `format=grid`, a GIF with `format=film`."},
)
def generate(job_id: str, document: Any) -> Result:
    """Generate images.

    The latent points are `count` points of a `seed` (the same for every checkpoint), the first point of each of
    several `seeds`, or given as `latent`; `with_latent` returns them. With `steps`, the images interpolate from
    each point to the next. `class` is the class of all images, by name or number, for a GAN with `"conditional":
    true` in its spec; without it, the classes take turns. `format` is `png` (each image in base64), `array`
    (numbers in [0, 1]), `grid` (the response is one PNG) or `film` (the response is an animated GIF).
    """
    job = job_of(job_id, Kind.GAN)
    body = _validated(GenerateRequest, document)
    info = dataset_of(job)
    return with_network(job, body.checkpoint, info, partial(_images, body=body, info=info))


def _check_kind(body: PredictRequest, info: DatasetInfo) -> None:
    """Reject images for a table, and rows for a dataset of images."""
    is_table = info.kind is DatasetKind.TABLE
    if body.images is None and body.rows is None:
        what = "rows: the job is trained on a table" if is_table else "images"
        pointer = "#/rows" if is_table else "#/images"
        raise problems.invalid_input([Fault(pointer=pointer, detail=f"is missing: send {what}", code="missing")])
    if body.images is not None and body.rows is not None:
        raise problems.invalid_input(
            [Fault(pointer="#/rows", detail="cannot be combined with images", code="unsuitable")]
        )
    for name in ("fit", "invert", "explain"):
        if body.rows is not None and getattr(body, name):
            raise problems.invalid_input([Fault(pointer=f"#/{name}", detail="is for images", code="unsuitable")])
    if is_table and body.rows is None:
        names = ", ".join(repr(column["name"]) for column in info.columns[:20])
        detail = f"the job is trained on a table: send rows with the columns {names}"
        raise problems.invalid_input([Fault(pointer="#/images", detail=detail, code="unsuitable")])
    if not is_table and body.rows is not None:
        detail = "the job is trained on images: send images"
        raise problems.invalid_input([Fault(pointer="#/rows", detail=detail, code="unsuitable")])


def _predicted_rows(
    model: LoadedModel, row: Artifact, *, rows: Sequence[Mapping[str, Any]], info: DatasetInfo
) -> PredictAnswer:
    if model.preprocessing is None:
        raise ArtifactDamaged(row.path, "it holds no preprocessing of a table")
    report = info.report or {}
    ignored = {str(report.get("target", "")), *(str(one["name"]) for one in report.get("ignored", ()))}
    read = read_rows(rows, model.preprocessing.columns, ignored=ignored)
    if read.faults:
        raise problems.invalid_input(
            [
                Fault(
                    pointer=f"#/rows/{index}" + ("" if column is None else f"/{_escaped(column)}"),
                    detail=detail,
                    code="wrong_type" if suggestion is None else "unknown_field",
                    suggestion=suggestion,
                )
                for index, column, detail, suggestion in read.faults
            ]
        )
    found = inference().predict(model, read.inputs)
    return PredictAnswer(
        probabilities=found.probabilities.tolist(),
        classes=found.classes.tolist(),
        class_names=list(info.class_names),
        checkpoint=row.epoch,
        unknown_values=[
            UnknownValue(row=index, column=column, value=value) for index, column, value in read.unknown[:_LISTED]
        ],
        absent_columns=read.absent,
    )


def _predictions(
    model: LoadedModel, row: Artifact, *, body: PredictRequest, info: DatasetInfo, levels: Levels
) -> PredictAnswer:
    found = inference().predict(model, levels)
    seen = saliency = None
    if body.explain:
        seen = _rounded(levels / 255, 3)
        saliency = _rounded(inference().saliency(model, levels, found.classes), 5)
    return PredictAnswer(
        probabilities=found.probabilities.tolist(),
        classes=found.classes.tolist(),
        class_names=list(info.class_names),
        checkpoint=row.epoch,
        seen=seen,
        saliency=saliency,
    )


def _images(model: LoadedModel, row: Artifact, *, body: GenerateRequest, info: DatasetInfo) -> Result:
    points = _points(body, cast(GanSpec, model.spec))
    _check_size(body, len(points), info)
    labels = _labels(body, cast(GanSpec, model.spec), len(points), info)
    levels = inference().generate(model, points, labels).reshape(-1, *info.image_shape)
    pictures = np.rint(levels).astype(np.uint8)
    headers = {"Tapeline-Checkpoint": str(row.epoch)}
    match body.format:
        case "grid":
            data = grids.sample_grid(pictures, scale=body.scale)
            return Response(data, content_type="image/png", headers=headers)
        case "film":
            data = films.walk_gif(pictures, scale=body.scale)
            return Response(data, content_type="image/gif", headers=headers)
        case "png":
            images: Any = [grids.image_base64(picture, scale=body.scale) for picture in pictures]
        case "array":
            images = _rounded(levels / 255, 5)
    latent = points.tolist() if body.with_latent else None
    return GenerateAnswer(images=images, latent=latent, checkpoint=row.epoch)


def _labels(asked: GenerateRequest, spec: GanSpec, count: int, info: DatasetInfo) -> NDArray[np.int64] | None:
    """The classes of ``count`` images: the requested one, otherwise all in turn; ``None`` for an unconditional GAN.

    Raises:
        Problem: the GAN is not conditional, or there is no such class.
    """
    if not spec.conditional:
        if asked.class_ is not None:
            detail = 'the job is not conditional; a spec with "conditional": true trains a GAN with classes'
            raise problems.invalid_input([Fault(pointer="#/class", detail=detail, code="unsuitable")])
        return None
    if asked.class_ is None:
        return np.arange(count) % info.classes
    names = list(info.class_names)
    given = str(asked.class_)
    number = names.index(given) if asked.class_ in names else int(given) if given.isdecimal() else -1
    if not 0 <= number < info.classes:
        detail = f"must be one of the classes {', '.join(names[:20])}, or a number from 0 to {info.classes - 1}"
        raise problems.invalid_input([Fault(pointer="#/class", detail=detail, code="out_of_range")])
    return np.full(count, number)


def _validated(model: type[B], document: Any) -> B:
    """The validated body. It is validated after the job was found, so that another owner's job is a 404 for any body.

    Raises:
        Problem: the body has faults.
    """
    try:
        return validation.read_body(model, document)
    except SpecError as error:
        raise problems.invalid_input(error.faults, error.total) from error


def _check_size(asked: GenerateRequest, count: int, info: DatasetInfo) -> None:
    """Reject a request whose response would need too much memory."""
    pixels = count * math.prod(info.image_shape)
    if asked.format == "array":
        if pixels > MAX_NUMBERS:
            raise too_much("#/format", f"{count} images are {pixels} numbers", MAX_NUMBERS)
    elif pixels * asked.scale**2 > MAX_PIXELS:
        what = f"{count} images have {pixels * asked.scale**2} pixels at scale {asked.scale}"
        raise too_much("#/scale", what, MAX_PIXELS)


def _points(asked: GenerateRequest, spec: GanSpec) -> NDArray[Any]:
    """The requested latent points."""
    points: NDArray[Any]
    if asked.latent is not None:
        wrong = [
            Fault(
                pointer=f"#/latent/{number}",
                detail=f"must have {spec.latent.dim} numbers; it has {len(point)}",
                code="wrong_shape",
            )
            for number, point in enumerate(asked.latent)
            if len(point) != spec.latent.dim
        ]
        if wrong:
            raise problems.invalid_input(wrong)
        points = np.asarray(asked.latent, np.float64)
    elif asked.seeds is not None:
        points = np.concatenate([inference().draw(spec, seed, 1) for seed in asked.seeds])
    else:
        count = asked.count or _DEFAULT_COUNT
        points = inference().draw(spec, asked.seed or 0, count)
    if asked.steps is None:
        return points
    images = 1 + (len(points) - 1) * asked.steps
    if images > MAX_IMAGES:
        raise too_much("#/steps", f"{asked.steps} steps between {len(points)} points make {images} images", MAX_IMAGES)
    return inference().walk(spec, points, asked.steps)


def _escaped(name: str) -> str:
    """A name as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _rounded(numbers: NDArray[Any], digits: int) -> list[Any]:
    return cast(list[Any], np.round(numbers.astype(np.float64), digits).tolist())
