"""Diagnosis during training: scores of the reference classifier become metrics, and metrics become findings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from engine import EpochDone, ReferenceClassifier
from engine.trainers.trainer import Trainer
from service.datasets.cache import Dataset
from service.datasets.shapes import shape_of
from service.datasets.tables.analysis.leaks import leak_text
from service.diagnosis.rules import DiagnosticsTracker
from service.pictures.grids import SampleClasses
from service.schema.findings import Finding
from service.schema.layer_shapes import Shape
from service.spec.schema import Spec
from service.storage.tables import Epoch
from workers.training import kinds

Images = NDArray[np.uint8]


class TrainingDiagnostics:
    """Diagnoses one training from its first epoch on.

    Args:
        shape: of the dataset.
        leak: what is known of columns that alone predict the class.
        reference: the reference classifier for the dataset's images, if there is one; evaluates samples.
        is_fork: whether the first weights are those of a checkpoint.
    """

    def __init__(
        self,
        spec: Spec,
        shape: Shape,
        reference: ReferenceClassifier | None,
        leak: str | None = None,
        *,
        is_fork: bool = False,
    ) -> None:
        self._spec = spec
        self._reference = reference
        self._tracker = DiagnosticsTracker(spec, shape, leak, is_fork=is_fork)
        self._lowest_distance = math.inf
        """The lowest Fréchet distance so far."""

    @classmethod
    def of(cls, spec: Spec, dataset: Dataset, *, is_fork: bool = False) -> Self:
        """The diagnostics of a training on a dataset, before its first epoch."""
        reference = kinds.training(spec.kind).reference(dataset)
        columns, train = dataset.info.columns, dataset.train
        leak = leak_text(columns, train.inputs, train.labels) if columns else None
        return cls(spec, shape_of(dataset.info), reference, leak, is_fork=is_fork)

    @property
    def kind(self) -> str:
        """The kind of the training."""
        return self._spec.kind

    @property
    def findings(self) -> Sequence[Finding]:
        """The current findings, oldest first."""
        return self._tracker.findings

    @property
    def reason_to_stop(self) -> Finding | None:
        """The finding that stops the job (``health.stop_on``), if there is one."""
        return next((finding for finding in self.findings if finding.code in self._spec.stop_on), None)

    def classify(self, images: Images) -> SampleClasses | None:
        """The reference classifier's predictions for samples (count, rows, columns), if there is one."""
        if self._reference is None:
            return None
        predictions = self._reference.evaluate(images)
        return SampleClasses(predictions.labels.tolist(), predictions.confidences.tolist())

    def replay(self, epochs: Sequence[Epoch]) -> None:
        """Restore the findings from the stored epochs of a training that continues."""
        for row in epochs:
            self._tracker.add(row.epoch, row.metrics)
            distance = row.metrics.get("frechet_distance")
            if distance is not None:
                self._lowest_distance = min(distance, self._lowest_distance)

    def evaluate(self, trainer: Trainer, done: EpochDone) -> EpochDone:
        """Add a finished epoch.

        Returns:
            The epoch, with the scores of the reference classifier when they are due (the best epoch then has the
            lowest Fréchet distance), and marked as the last epoch if a finding stops the job.
        """
        is_due = done.is_last or done.epoch % self._spec.scored_every_epochs == 0
        if self._reference is not None and is_due:
            scores = kinds.training(self._spec.kind).score(trainer, self._spec, self._reference)
            is_best = scores["frechet_distance"] < self._lowest_distance
            self._lowest_distance = min(scores["frechet_distance"], self._lowest_distance)
            done = dataclasses.replace(done, metrics=done.metrics | scores, is_best=is_best)
        self._tracker.add(done.epoch, done.metrics)
        return dataclasses.replace(done, is_last=done.is_last or self.reason_to_stop is not None)
