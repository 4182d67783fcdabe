"""Generates the images of a request."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from service.application.models import MAX_IMAGES, MAX_NUMBERS, MAX_PIXELS, GenerateRequest
from service.datasets.info import DatasetInfo
from service.errors import Fault
from service.spec.schema import Spec
from service.storage.tables import Artifact, Job
from service.web.http import problems
from service.web.inference.images import PixelValues, too_much
from service.web.inference.loading import inference, with_network

if TYPE_CHECKING:
    from service.models.kinds import LatentSpace
    from service.models.predicting import LoadedModel

_DEFAULT_COUNT: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The images for a request."""

    levels: PixelValues
    """From 0 to 255 (n, rows, columns), in colour (n, rows, columns, 3)."""
    points: NDArray[Any]
    """The latent points (n, dim)."""
    epoch: int
    """Of the checkpoint that was used."""

    @property
    def pictures(self) -> NDArray[np.uint8]:
        """The images, rounded to bytes."""
        return np.rint(self.levels).astype(np.uint8)


def generate(job: Job, request: GenerateRequest, info: DatasetInfo) -> Generated:
    """Generate the images of a request.

    Raises:
        Problem: the request does not fit the job, or exceeds a limit.
    """
    return with_network(job, request.checkpoint, info, partial(_images, request=request, info=info))


def _images(model: LoadedModel, row: Artifact, *, request: GenerateRequest, info: DatasetInfo) -> Generated:
    points = _points(request, inference().latent_space(model.spec))
    _check_size(request, len(points), info)
    labels = _labels(request, model.spec, len(points), info)
    levels = inference().generate(model, points, labels).reshape(-1, *info.image_shape)
    return Generated(levels=levels, points=points, epoch=row.epoch)


def _labels(request: GenerateRequest, spec: Spec, count: int, info: DatasetInfo) -> NDArray[np.int64] | None:
    """The classes of ``count`` images: the requested one, otherwise all in turn; ``None`` for an unconditional GAN.

    Raises:
        Problem: the GAN is not conditional, or there is no such class.
    """
    if not spec.takes_class:
        if request.class_ is not None:
            detail = 'the job is not conditional; a spec with "conditional": true trains a GAN with classes'
            raise problems.invalid_input([Fault(pointer="#/class", detail=detail, code="unsuitable")])
        return None
    if request.class_ is None:
        return np.arange(count) % info.classes
    names = list(info.class_names)
    class_text = str(request.class_)
    class_index = (
        names.index(class_text) if request.class_ in names else int(class_text) if class_text.isdecimal() else -1
    )
    if not 0 <= class_index < info.classes:
        detail = f"must be one of the classes {', '.join(names[:20])}, or a number from 0 to {info.classes - 1}"
        raise problems.invalid_input([Fault(pointer="#/class", detail=detail, code="out_of_range")])
    return np.full(count, class_index)


def _check_size(request: GenerateRequest, count: int, info: DatasetInfo) -> None:
    """Reject a request whose response would need too much memory."""
    pixels = count * math.prod(info.image_shape)
    if request.format == "array":
        if pixels > MAX_NUMBERS:
            raise too_much("#/format", f"{count} images are {pixels} numbers", MAX_NUMBERS)
    elif pixels * request.scale**2 > MAX_PIXELS:
        excess = f"{count} images have {pixels * request.scale**2} pixels at scale {request.scale}"
        raise too_much("#/scale", excess, MAX_PIXELS)


def _points(request: GenerateRequest, space: LatentSpace) -> NDArray[Any]:
    """The requested latent points."""
    points: NDArray[Any]
    if request.latent is not None:
        faults = [
            Fault(
                pointer=f"#/latent/{index}",
                detail=f"must have {space.dim} numbers; it has {len(point)}",
                code="wrong_shape",
            )
            for index, point in enumerate(request.latent)
            if len(point) != space.dim
        ]
        if faults:
            raise problems.invalid_input(faults)
        points = np.asarray(request.latent, np.float64)
    elif request.seeds is not None:
        points = np.concatenate([space.sample(seed, 1) for seed in request.seeds])
    else:
        count = request.count or _DEFAULT_COUNT
        points = space.sample(request.seed or 0, count)
    if request.steps is None:
        return points
    images = 1 + (len(points) - 1) * request.steps
    if images > MAX_IMAGES:
        raise too_much(
            "#/steps", f"{request.steps} steps between {len(points)} points make {images} images", MAX_IMAGES
        )
    return space.interpolate(points, request.steps)
