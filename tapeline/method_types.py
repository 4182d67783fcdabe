"""Arguments and results of the client's methods, besides jobs.

The dictionaries may have more fields than are typed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypedDict

Which = Literal["best", "latest"] | int
"""A checkpoint: best, latest, or the number of an epoch."""


_Class = TypedDict("_Class", {"class": int | str}, total=False)  # a keyword of Python


class GenerateOptions(_Class, total=False):
    """Options for generating images; see ``POST /jobs/{id}/generate``."""

    count: int
    """Number of points of ``seed`` (default: 16)."""
    seed: int
    seeds: Sequence[int]
    """Seeds; the first point of each is used."""
    latent: Sequence[Sequence[float]]
    """Latent points, given explicitly."""
    steps: int
    """Number of interpolation steps from each point to the next."""
    checkpoint: Which
    """Default: best."""
    scale: int
    """Scale factor of the picture."""


class Prediction(TypedDict):
    """Predicted classes of images or rows."""

    classes: list[int]
    """The most probable class of each image or row."""
    class_names: list[str]
    probabilities: list[list[float]]
    """For each image or row, the probability of each class."""
    checkpoint: int
    """The epoch of the checkpoint that was used."""
    unknown_values: list[dict[str, Any]] | None
    """With ``rows``: values that are not a category of their column, and were treated as missing."""
    absent_columns: dict[str, int] | None
    """With ``rows``: missing columns, each with the number of rows that lack it."""
    summary: dict[str, Any] | None
    """With a file of rows: what was found in it."""
    seen: list[list[list[Any]]] | None
    """With ``explain``: the images after preprocessing, as rows of numbers or, in colour, of triples."""
    saliency: list[list[list[Any]]] | None
    """With ``explain``: the gradient of the predicted class's logit with respect to each pixel."""


class Generated(TypedDict):
    """Generated images."""

    images: list[Any]
    """Rows of numbers in [0, 1], or PNGs in base64."""
    latent: list[list[float]] | None
    """With ``with_latent``: the latent points of the images."""
    checkpoint: int


class History(TypedDict):
    """The metrics of all completed epochs, as columns of equal length."""

    epochs: list[int]
    series: dict[str, list[float | None]]
    """Values by metric name; ``None`` if a value is not finite or was not measured."""
    seconds: list[float]
    best_epoch: int | None
    findings: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A generated picture."""

    data: bytes
    checkpoint: int
    """The epoch of the checkpoint that was used."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a job's stream."""

    type: str
    """``snapshot``, ``status``, ``metrics``, ``sample``, ``checkpoint``, ``health``, ``log``, ``end``, ``progress``."""
    data: Mapping[str, Any]
    seq: int | None = None
    """Its number in the job's log; ``None`` for ``snapshot`` and ``progress``, which are not stored."""


Measured = tuple[int, float | None]
"""An epoch, and the metric's value in it; ``None`` if it was not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisection:
    """The epoch from which a metric is bad to the end, and how it was found."""

    metric: str
    epoch: int
    value: float | None
    before: Measured | None
    """The epoch before it, which is good, and its value; ``None`` if ``epoch`` is the first."""
    probes: Sequence[Measured]
    """The probed epochs with their values, in order."""
    times: int
    """How often the metric turned from good to bad."""
    checkpoint: int | None
    """The last kept checkpoint before it, to fork from."""
    sentence: str
    """The result in words."""

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read the document of the API."""
        fields = {name: document[name] for name in ("metric", "epoch", "value", "times", "checkpoint", "sentence")}
        before = _pair(document["before"]) if document["before"] is not None else None
        return cls(before=before, probes=[_pair(probe) for probe in document["probes"]], **fields)


def _pair(document: Mapping[str, Any]) -> Measured:
    return document["epoch"], document["value"]
