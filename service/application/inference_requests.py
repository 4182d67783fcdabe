"""Inference requests: images to classify, or latent points to generate images from."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from service.jobs.request_bodies import Which
from service.spec.schema import StrictModel
from tapeline.images.files import SENT_UNCHANGED_PIXELS

MAX_IMAGES: Final = 256
"""Maximum number of images of one request, sent or generated."""
MAX_ROWS: Final = 1000
"""Maximum number of table rows of one request."""
MAX_PIXELS: Final = SENT_UNCHANGED_PIXELS
"""Maximum number of pixels of all images of one request together, sent or generated."""
MAX_PHOTO_PIXELS: Final = 2**26
"""The same limit for JPEG, WebP, BMP and GIF files, which are scaled down while they are decoded."""
MAX_NUMBERS: Final = 2**21
"""Maximum number of pixels of a request whose response consists of numbers."""

Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]


# One fault per point is enough: a body may contain half a million numbers.
_Point = Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(fail_fast=True)]


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    raise PydanticCustomError("cell", "must be a number, a text, true, false or null")


Cell = Annotated[Any, AfterValidator(_cell), WithJsonSchema({"type": ["string", "number", "boolean", "null"]})]
"""A value of a row, validated with a single fault; a union would report one fault per type."""


class PredictRequest(StrictModel):
    """Images or rows of a table to classify."""

    images: Annotated[list[Any], Field(min_length=1, max_length=MAX_IMAGES)] | None = None
    """Each image is a PNG, JPEG, WebP, BMP or GIF file in base64 (or a data URL), or numbers in [0, 1], where 0 is
    black, as rows (in colour, rows of triples) or as one flat list."""
    rows: Annotated[list[dict[str, Cell]], Field(min_length=1, max_length=MAX_ROWS)] | None = None
    """For a job trained on a table: each row is an object with values by column name. Numbers may be sent as text;
    dates have the format of the data. A value is missing if its column is left out, or if it is null, an empty text or
    one of the texts `NA`, `NaN`, `null`, `?` and `-`."""
    checkpoint: Which = "best"
    fit: bool = False
    """For arrays in grey, such as MNIST: crop the drawing, scale it, and centre its centre of mass, like MNIST digits.
    For arrays in colour: scale each image to cover the dataset's size and centre-crop it. Without effect for a dataset
    that was imported from image files: its images are always prepared as at the import."""
    invert: bool = False
    """Invert the images: use it for dark drawings on a light background."""
    explain: bool = False
    """Also return a saliency map: the gradient of the predicted class's logit with respect to each pixel."""


class GenerateRequest(StrictModel):
    """The latent points of the images to generate: from one seed, from several seeds, or given as numbers."""

    count: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = None
    """Number of images to generate from ``seed`` (default: 16)."""
    seed: Seed | None = None
    """Seed of the latent points (default: 0). The job's own seed gives the images of its sample grids."""
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MAX_IMAGES)] | None = None
    latent: Annotated[list[_Point], Field(min_length=1, max_length=MAX_IMAGES)] | None = None
    """Latent points, each as a list of numbers."""
    steps: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = None
    """Interpolate from each point to the next in this many steps: along a great circle for normal noise, otherwise
    along a straight line."""
    class_: Annotated[
        Annotated[int, Field(ge=0)] | Annotated[str, Field(max_length=200)] | None, Field(alias="class")
    ] = None
    """For a conditional GAN: the class of all images, by name or number. Without it, the classes alternate."""
    format: Literal["png", "array", "grid", "film"] = "png"
    """``png``: each image in base64; ``array``: numbers in [0, 1]; ``grid``: one PNG; ``film``: an animated GIF."""
    scale: Annotated[int, Field(ge=1, le=16)] = 1
    """Scale factor of PNGs and GIFs."""
    with_latent: bool = False
    """Also return the latent points."""
    checkpoint: Which = "best"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = [name for name in ("seed", "seeds", "latent") if getattr(self, name) is not None]
        if self.count is not None and "seed" not in sources:
            sources.append("count")
        if len(sources) > 1:
            raise PydanticCustomError("two_sources", "{names} cannot be combined", {"names": " and ".join(sources)})
        return self
