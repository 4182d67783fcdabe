"""What a person asks of a checkpoint: what it takes pictures for, or to make some."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from service.contract.changes import Which
from service.contract.spec import Part

MAX_IMAGES: Final = 256
"""The most images of one request, sent or made."""
MAX_SIDE: Final = 2048
"""The most pixels along a side of a picture that is sent."""

MAX_PIXELS: Final = 2**24
"""The most pixels of all pictures of one request together, sent or made."""
MAX_NUMBERS: Final = 2**21
"""The most pixels of a request that is answered in numbers."""

Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]


# One fault a point is enough: a body may hold half a million numbers.
_Point = Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(fail_fast=True)]


class PredictRequest(Part):
    """What a classifier takes images for."""

    images: Annotated[list[Any], Field(min_length=1, max_length=MAX_IMAGES)]
    """Each a PNG in base64 (a data URL will do), or numbers in [0, 1], 0 being black: rows, or all in one list."""
    checkpoint: Which = "best"
    fit: bool = False
    """Cut a drawing out, scale it and move its centre of mass to the middle, as was done with MNIST's digits."""
    invert: bool = False
    """The pictures are dark on light; networks are mostly trained on light on dark."""
    explain: bool = False
    """Also tell how each pixel moves the class that was found."""


class GenerateRequest(Part):
    """What a GAN should make images from: points of a seed, the first of several seeds, or points of one's own."""

    count: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = None
    """By default 16, of ``seed``."""
    seed: Seed | None = None
    """By default 0. The job's own gives what its pictures of samples show."""
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MAX_IMAGES)] | None = None
    latent: Annotated[list[_Point], Field(min_length=1, max_length=MAX_IMAGES)] | None = None
    """Points of the latent space, a list of numbers each."""
    steps: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = None
    """Walk from each point to the next in so many steps: along a great circle where the noise is normal, else
    straight."""
    format: Literal["png", "array", "grid", "film"] = "png"
    """``png``: each in base64; ``array``: numbers in [0, 1]; ``grid``: one PNG; ``film``: one GIF."""
    scale: Annotated[int, Field(ge=1, le=16)] = 1
    """Pixels of a PNG or GIF for one of the image's, along each side."""
    with_latent: bool = False
    """Also answer the points."""
    checkpoint: Which = "best"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("seed", "seeds", "latent") if getattr(self, name) is not None]
        if self.count is not None and "seed" not in given:
            given.append("count")
        if len(given) > 1:
            raise PydanticCustomError("two_sources", "{names} cannot go together", {"names": " and ".join(given)})
        return self
