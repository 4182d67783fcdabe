"""Health as the child sees it: the reference classifier's scores into the epoch's metrics, findings out of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine import EpochDone, GanTrainer, ReferenceClassifier, generator_for
from service.diagnosis.rules import DiagnosticsTracker
from service.pictures.grids import Verdicts
from service.spec.findings import Finding
from service.spec.schema import GanSpec, Spec
from service.storage.tables import Epoch
from workers.training.build import Trainer

Images = NDArray[np.uint8]
SAMPLES_PER_BATCH: Final = 100
"""Samples made at a time: no more memory than a batch of the training takes."""


class TrainingDiagnostics:
    """Watches one training from its first epoch on.

    Args:
        reference: classifier of the dataset's kind of images, if there is one; it evaluates a GAN's samples only.
    """

    def __init__(self, spec: Spec, reference: ReferenceClassifier | None) -> None:
        self._spec = spec
        self._reference = reference
        self._chart = DiagnosticsTracker(spec)
        self._closest = math.inf
        """The lowest Fréchet distance so far."""

    @property
    def findings(self) -> Sequence[Finding]:
        """What is wrong now, the oldest first."""
        return self._chart.findings

    @property
    def reason_to_stop(self) -> Finding | None:
        """The finding that the spec wants the job to stop on, if there is one."""
        return next((finding for finding in self.findings if finding.code in self._spec.health.stop_on), None)

    def verdicts(self, images: Images) -> Verdicts | None:
        """The reference classifier's predictions for samples (count, rows, columns), where there is one."""
        if self._reference is None:
            return None
        seen = self._reference.evaluate(images)
        return Verdicts(seen.labels.tolist(), seen.confidences.tolist())

    def recall(self, epochs: Sequence[Epoch]) -> None:
        """See the epochs that the training goes on from, all of them: findings then are what they were."""
        for row in epochs:
            self._chart.add(row.epoch, row.metrics)
            distance = row.metrics.get("frechet_distance")
            if distance is not None:
                self._closest = min(distance, self._closest)

    def look(self, trainer: Trainer, done: EpochDone) -> EpochDone:
        """See a new epoch.

        Gives it back with the reference classifier's scores where it is time for them; the best one of a GAN is that
        with the samples closest to real images. It is the last one where the job is to stop on what is found.
        """
        if self._reference is not None and isinstance(trainer, GanTrainer) and isinstance(self._spec, GanSpec):
            health = self._spec.health
            if done.is_last or done.epoch % health.every_epochs == 0:
                scores = self._reference.score(make_samples(trainer, self._spec.seed, "judge", health.samples))
                is_best = scores["frechet_distance"] < self._closest
                self._closest = min(scores["frechet_distance"], self._closest)
                done = dataclasses.replace(done, metrics=done.metrics | scores, is_best=is_best)
        self._chart.add(done.epoch, done.metrics)
        return dataclasses.replace(done, is_last=done.is_last or self.reason_to_stop is not None)


def make_samples(trainer: GanTrainer, seed: int, purpose: str, count: int) -> Images:
    """Samples from noise that is the same in every epoch."""
    noise = trainer.latent.draw(generator_for(seed, purpose), count, trainer.dtype)
    starts = range(0, count, SAMPLES_PER_BATCH)
    return np.concatenate([trainer.generate(noise[start : start + SAMPLES_PER_BATCH]) for start in starts])
