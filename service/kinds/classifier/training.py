"""How classifiers are trained."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final, assert_never

import engine
from engine.nn.losses import Loss
from service.datasets.cache import Dataset
from service.datasets.tables.preprocessing import Preprocessing
from service.kinds.classifier.spec import ClassifierLoss, ClassifierSpec, ClassWeights, LossName
from service.kinds.supervised.model import network
from service.kinds.supervised.training import run_settings
from service.pictures import grids
from workers.training import build
from workers.training.kinds import Arrays, Classify, Draw, TrainingOfKind


def _trainer(
    resolved: ClassifierSpec, dataset: Dataset, preprocessing: Preprocessing | None
) -> engine.ClassifierTrainer:
    shape = (1, preprocessing.width) if preprocessing else dataset.info.image_shape
    return engine.ClassifierTrainer(
        network(resolved, shape, build.initializer(resolved.initializer)),
        _loss(resolved.loss, dataset),
        build.optimizer(resolved.optimizer),
        build.schedule(resolved.schedule),
        train=build.examples(dataset, dataset.train, resolved, preprocessing),
        validation=build.examples(dataset, dataset.validation, resolved, preprocessing),
        max_shift=resolved.augmentation.max_shift,
        flip=resolved.augmentation.flip,
        cutout=resolved.augmentation.cutout,
        **run_settings(resolved),
    )


def _loss(loss: ClassifierLoss, dataset: Dataset) -> Loss:
    match loss.name:
        case LossName.SQUARED_ERROR:
            return engine.SquaredError(loss.reduction.value, loss.label_smoothing)
        case LossName.BINARY_CROSS_ENTROPY:
            return engine.BinaryCrossEntropy(loss.reduction.value, loss.label_smoothing)
        case LossName.SOFTMAX_CROSS_ENTROPY:
            are_balanced = loss.class_weights is ClassWeights.BALANCED
            weights = (
                engine.balanced_class_weights(dataset.train.labels, dataset.info.classes) if are_balanced else None
            )
            return engine.SoftmaxCrossEntropy(loss.reduction.value, loss.label_smoothing, weights)
        case _:
            assert_never(loss.name)


def _samples(
    trainer: engine.ClassifierTrainer, count: int, class_names: Sequence[str], classify: Classify
) -> tuple[Draw, Arrays]:
    samples = trainer.samples(count)
    draw = functools.partial(
        grids.prediction_grid,
        samples.images,
        samples.labels,
        samples.predictions,
        samples.confidences,
        class_names=class_names,
    )
    return draw, [samples.predictions, samples.confidences]


TRAINING: Final = TrainingOfKind[ClassifierSpec](trainer=_trainer, samples=_samples, is_tested=True)
