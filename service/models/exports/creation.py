"""What an export contains, and its creation. The library of a format is imported when the format is first requested."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.models import folders
from service.storage.artifacts import EXPORTS, ArtifactKind
from service.storage.tables import Epoch, Job

if TYPE_CHECKING:
    from service.models.exports.trained_network import TrainedModel

_MAKERS: Final = {
    ArtifactKind.ONNX: "service.models.exports.onnx_graph:to_onnx",
    ArtifactKind.TORCH: "service.models.exports.torch_module:to_torch",
    ArtifactKind.HUGGINGFACE: "service.models.exports.huggingface_folder:to_huggingface",
    ArtifactKind.TENSORBOARD: "service.models.exports.tensorboard_log:to_tensorboard",
}
"""Functions of model (without weights: ``None``), facts and pictures; they return a file, or the files of a folder."""


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


def make(kind: ArtifactKind, facts: JobFacts, pictures: Pictures, model: TrainedModel | None) -> bytes:
    """The bytes of an export.

    Raises:
        ExtraMissing: the format's library is not installed.
    """
    if (missing := EXPORTS[kind].missing) is not None:
        raise missing
    made = pkgutil.resolve_name(_MAKERS[kind])(model, facts, pictures)
    return made if isinstance(made, bytes) else folders.pack(made, folders.folder_name(facts.job, kind))
