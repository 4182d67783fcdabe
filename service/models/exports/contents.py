"""The contents of an export as plain data. This module imports neither NumPy nor the library of a format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Final

from service.errors import ServiceError
from service.storage.tables import Epoch, Job


class ExportFormat(StrEnum):
    """The formats that the service can create. ``FORMATS`` describes them."""

    ONNX = "onnx"
    TORCH = "torch"
    HUGGINGFACE = "huggingface"
    TENSORBOARD = "tensorboard"

    @classmethod
    def _missing_(cls, value: object) -> ExportFormat | None:
        return cls.TORCH if value == "pytorch" else None


@dataclass(frozen=True, slots=True)
class FormatDescription:
    """A format for people.

    Attributes:
        library: the optional library that creates it; ``None`` if it needs none.
    """

    label: str
    contents: str
    library: str | None = None

    @property
    def missing(self) -> ExtraMissing | None:
        """Why this process cannot create the format; ``None`` if it can."""
        return None if self.library is None or find_spec(self.library) is not None else ExtraMissing(self.library)


FORMATS: Final = {
    ExportFormat.ONNX: FormatDescription(
        "ONNX", "One file for onnxruntime and other runtimes, preprocessing included.", "onnx"
    ),
    ExportFormat.TORCH: FormatDescription("PyTorch", "A module that needs only torch, and its weights."),
    ExportFormat.HUGGINGFACE: FormatDescription(
        "Hugging Face", "Model card, weights, ONNX and PyTorch in one folder.", "onnx"
    ),
    ExportFormat.TENSORBOARD: FormatDescription(
        "TensorBoard", "All metrics, samples and settings as event files.", "tensorboardX"
    ),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample grid of the job."""

    epoch: int
    read: Callable[[], bytes]
    """Reads the PNG: several would need much memory."""
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Pictures of a job, drawn or read on demand."""

    samples: Sequence[Sample]
    curves: Callable[[], bytes]
    """A PNG."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """The facts about a job that exports contain.

    Attributes:
        checkpoint_epoch: 0 if the export has no weights.
    """

    job: Job
    title: str
    epochs: Sequence[Epoch]
    checkpoint_epoch: int
    dataset_title: str
    dataset_source: str
    license: str | None

    @property
    def test_epoch(self) -> int | None:
        """The epoch whose weights were scored on the test part; ``None``: they were not."""
        return (self.job.test_scores or {}).get("test_epoch")

    @property
    def test_scores(self) -> Mapping[str, float | None]:
        """The scores on the test part, if there are any."""
        scores = self.job.test_scores or {}
        return {name: value for name, value in scores.items() if name not in ("test_epoch", "test_count")}

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """The metrics of the exported epoch, with the test scores if its weights were scored."""
        exported = next((row.metrics for row in self.epochs if row.epoch == self.checkpoint_epoch), {})
        return {**exported, **self.test_scores} if self.checkpoint_epoch == self.test_epoch else exported


class ExtraMissing(ServiceError):
    """An optional library is not installed."""

    code = "extra_missing"

    def __init__(self, library: str) -> None:
        self.library = library
        self.command = f"pip install {library}"
        remedy = f"{self.command} (with make up: .venv/bin/{self.command})"
        super().__init__(f"{library} is not installed where the service runs; install it there with: {remedy}")
