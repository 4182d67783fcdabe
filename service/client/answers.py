"""What the client's methods take and give besides jobs. The dictionaries hold more than is typed here where the
service says more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

Which = Literal["best", "latest"] | int
"""A checkpoint: the best, the latest, or that of an epoch."""


class GenerateOptions(TypedDict, total=False):
    """What a GAN makes images from; see ``POST /jobs/{id}/generate``."""

    count: int
    """Number of points of ``seed`` (default: 16)."""
    seed: int
    seeds: Sequence[int]
    """The first point of each of these seeds."""
    latent: Sequence[Sequence[float]]
    """These points."""
    steps: int
    """Walk from each point to the next in this number of steps."""
    checkpoint: Which
    """Default: the best."""
    scale: int
    """Pixels of a picture per pixel of the image, along each side."""


class Prediction(TypedDict):
    """The classes of images."""

    classes: list[int]
    """The most probable class of each image."""
    class_names: list[str]
    probabilities: list[list[float]]
    """Of each image, one for each class, in [0, 1]."""
    checkpoint: int
    """The epoch whose checkpoint answered."""
    seen: list[list[list[float]]] | None
    """With ``explain``: the images as the network saw them."""
    saliency: list[list[list[float]]] | None
    """With ``explain``: how each pixel changes the logit of the class that was found."""


class Generated(TypedDict):
    """Images that a GAN made."""

    images: list[Any]
    """Rows of numbers in [0, 1], or PNGs in base64."""
    latent: list[list[float]] | None
    """With ``with_latent``: the points that they were made from."""
    checkpoint: int


class History(TypedDict):
    """The metrics of every completed epoch, as columns of one length."""

    epochs: list[int]
    series: dict[str, list[float | None]]
    """By the metric's name; ``None`` where the value is not finite or was not measured."""
    seconds: list[float]
    best_epoch: int | None
    findings: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that a GAN made."""

    data: bytes
    checkpoint: int
    """The epoch whose checkpoint made it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a job's stream."""

    type: str
    """``snapshot``, ``status``, ``metrics``, ``sample``, ``checkpoint``, ``health``, ``log``, ``end``, ``progress``."""
    data: Mapping[str, Any]
    seq: int | None = None
    """Its number in the job's log; ``None`` for ``snapshot`` and ``progress``, which are not kept."""
