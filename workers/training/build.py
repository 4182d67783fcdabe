"""Translates validated specs to objects of the engine. ``assert_never`` makes the type checker fail if the engine lacks
a name that the spec has."""

from __future__ import annotations

from typing import Final, assert_never

import numpy as np

import engine
from engine.nn.initializers import Initializer
from engine.nn.losses import Loss
from engine.optim.optimizer import Optimizer
from engine.optim.schedules import Schedule
from engine.trainers.trainer import RunSettings
from service.datasets.builtins import BUILT_IN
from service.datasets.cache import Dataset, Examples
from service.datasets.tables.preprocessing import Preprocessing
from service.models import networks
from service.schema.metrics import Goal
from service.spec import schema
from service.spec.metric_info import METRICS
from service.spec.schema import ClassifierSpec, GanSpec, RegressorSpec, Spec, SupervisedSpec
from service.spec.validation import read_resolved
from service.states import Task

_BLOCK_SIZE: Final = 10_000
"""Number of rows of a table to preprocess at a time: in double precision, they need many times the memory."""
_VERIFY_STEPS: Final = 200
"""Between epochs, nothing changes a network. On a small table they have eight steps: a comparison of replay and tape
before each would take a seventh of the training."""

Trainer = engine.ClassifierTrainer | engine.RegressorTrainer | engine.GanTrainer


def trainer(resolved: Spec, dataset: Dataset, preprocessing: Preprocessing | None = None) -> Trainer:
    """Create the trainer of a spec.

    Args:
        preprocessing: of a table.
    """
    match resolved:
        case ClassifierSpec():
            return _classifier(resolved, dataset, preprocessing)
        case RegressorSpec():
            return _regressor(resolved, dataset, preprocessing)
        case GanSpec():
            return _gan(resolved, dataset)
        case _:
            raise TypeError(f"no trainer of a {resolved.kind}")


def reference_classifier(dataset: Dataset) -> engine.ReferenceClassifier | None:
    """The reference classifier of a dataset, or ``None`` if the package contains none."""
    built_in = BUILT_IN.get(dataset.info.name)
    if built_in is None or built_in.reference_classifier is None:
        return None
    state = engine.checkpoint.load(built_in.reference_classifier)
    resolved = read_resolved(state.spec)
    if not isinstance(resolved, ClassifierSpec):
        raise TypeError(f"{built_in.reference_classifier} holds a {resolved.kind}, not a classifier")
    model = networks.supervised(resolved, dataset.info.image_shape, _initializer(resolved.initializer))
    model.load_state_dict(state.tensors)
    low, high = resolved.dataset.scale
    real = engine.FeatureStatistics(state.tensors["real.mean"], state.tensors["real.covariance"])
    return engine.ReferenceClassifier(model, real, (low, high))


def _classifier(
    resolved: ClassifierSpec, dataset: Dataset, preprocessing: Preprocessing | None
) -> engine.ClassifierTrainer:
    shape = (1, preprocessing.width) if preprocessing else dataset.info.image_shape
    return engine.ClassifierTrainer(
        networks.supervised(resolved, shape, _initializer(resolved.initializer)),
        _classifier_loss(resolved.loss, dataset),
        _optimizer(resolved.optimizer),
        _schedule(resolved.schedule),
        train=_examples(dataset, dataset.train, resolved, preprocessing),
        validation=_examples(dataset, dataset.validation, resolved, preprocessing),
        max_shift=resolved.augmentation.max_shift,
        flip=resolved.augmentation.flip,
        cutout=resolved.augmentation.cutout,
        **_run_settings(resolved),
    )


def _regressor(
    resolved: RegressorSpec, dataset: Dataset, preprocessing: Preprocessing | None
) -> engine.RegressorTrainer:
    if preprocessing is None or preprocessing.target is None:
        raise ValueError(f"{dataset.info.name} has no number to predict")
    return engine.RegressorTrainer(
        networks.supervised(resolved, (1, preprocessing.width), _initializer(resolved.initializer)),
        _regressor_loss(resolved.loss),
        _optimizer(resolved.optimizer),
        _schedule(resolved.schedule),
        train=_rows(dataset, dataset.train, resolved, preprocessing),
        validation=_rows(dataset, dataset.validation, resolved, preprocessing),
        mean=preprocessing.target["mean"],
        scale=preprocessing.target["scale"],
        **_run_settings(resolved),
    )


def _run_settings(resolved: SupervisedSpec) -> RunSettings:
    return {
        "epochs": resolved.epochs,
        "batch_size": resolved.batch_size,
        "shuffle": resolved.shuffle,
        "seed": resolved.seed,
        "accumulate": resolved.accumulate,
        "average_decay": resolved.average_decay,
        "early_stopping": _early_stopping(resolved.early_stopping),
        "dtype": np.dtype(resolved.dtype.value),
        "verify_steps": _VERIFY_STEPS,
    }


def _gan(resolved: GanSpec, dataset: Dataset) -> engine.GanTrainer:
    generator, discriminator = resolved.generator, resolved.discriminator
    initializer = _initializer(resolved.initializer)
    return engine.GanTrainer(
        networks.generator(resolved, initializer, dataset.info.classes),
        networks.discriminator(resolved, dataset.info.image_shape, initializer, dataset.info.classes),
        _optimizer(generator.optimizer or resolved.optimizer),
        _optimizer(discriminator.optimizer or resolved.optimizer),
        _schedule(generator.schedule or resolved.schedule),
        _schedule(discriminator.schedule or resolved.schedule),
        latent=networks.latent(resolved),
        loss=engine.GanLoss(resolved.loss.name.value),
        skip_every=discriminator.skip_every,
        critic_steps=discriminator.critic_steps,
        label_smoothing=discriminator.label_smoothing,
        gradient_penalty=discriminator.gradient_penalty,
        r1=discriminator.r1,
        pack=discriminator.pack,
        conditional=resolved.conditional,
        accumulate=resolved.accumulate,
        reduction=resolved.loss.reduction.value,
        train=_images(dataset, dataset.train, resolved),
        epochs=resolved.epochs,
        batch_size=resolved.batch_size,
        shuffle=resolved.shuffle,
        seed=resolved.seed,
        average_decay=generator.average_decay,
        dtype=np.dtype(resolved.dtype.value),
        verify_steps=_VERIFY_STEPS,
    )


def test_data(
    dataset: Dataset, resolved: Spec, preprocessing: Preprocessing | None
) -> engine.ImageData | engine.TableData | None:
    """The test part of a dataset, if it has one."""
    return _examples(dataset, dataset.test, resolved, preprocessing) if dataset.test is not None else None


def _examples(
    dataset: Dataset, part: Examples, spec: Spec, preprocessing: Preprocessing | None
) -> engine.ImageData | engine.TableData:
    return _rows(dataset, part, spec, preprocessing) if preprocessing else _images(dataset, part, spec)


def _images(dataset: Dataset, part: Examples, spec: Spec) -> engine.ImageData:
    low, high = spec.dataset.scale
    return engine.ImageData(part.inputs, part.labels, scale=(low, high), classes=dataset.info.classes)


def _rows(dataset: Dataset, part: Examples, spec: Spec, preprocessing: Preprocessing) -> engine.TableData:
    rows = np.empty((len(part), preprocessing.width), spec.dtype.value)
    for start in range(0, len(part), _BLOCK_SIZE):
        block = slice(start, start + _BLOCK_SIZE)
        rows[block] = preprocessing.apply(part.inputs[block], dataset.info.columns)
    if dataset.info.task is Task.REGRESSION:
        return engine.TableData(rows, targets=part.labels)
    return engine.TableData(rows, part.labels, dataset.info.classes)


def _classifier_loss(loss: schema.ClassifierLoss, dataset: Dataset) -> Loss:
    match loss.name:
        case schema.LossName.SQUARED_ERROR:
            return engine.SquaredError(loss.reduction.value, loss.label_smoothing)
        case schema.LossName.BINARY_CROSS_ENTROPY:
            return engine.BinaryCrossEntropy(loss.reduction.value, loss.label_smoothing)
        case schema.LossName.SOFTMAX_CROSS_ENTROPY:
            are_balanced = loss.class_weights is schema.ClassWeights.BALANCED
            weights = (
                engine.balanced_class_weights(dataset.train.labels, dataset.info.classes) if are_balanced else None
            )
            return engine.SoftmaxCrossEntropy(loss.reduction.value, loss.label_smoothing, weights)
        case _:
            assert_never(loss.name)


def _regressor_loss(loss: schema.RegressorLoss) -> Loss:
    match loss.name:
        case schema.RegressorLossName.SQUARED_ERROR:
            return engine.SquaredError(loss.reduction.value)
        case schema.RegressorLossName.ABSOLUTE_ERROR:
            return engine.AbsoluteError(loss.reduction.value)
        case schema.RegressorLossName.HUBER:
            return engine.Huber(loss.reduction.value)
        case _:
            assert_never(loss.name)


def _early_stopping(settings: schema.EarlyStopping | None) -> engine.EarlyStopping | None:
    if settings is None:
        return None
    return engine.EarlyStopping(
        settings.metric.value,
        higher_is_better=METRICS[settings.metric.value].goal is Goal.MAXIMIZE,
        patience=settings.patience,
        min_delta=settings.min_delta,
    )


def _initializer(initializer: schema.Initializer) -> Initializer:
    match initializer:
        case schema.Uniform():
            return engine.initializers.uniform(initializer.scale)
        case schema.Glorot():
            return engine.initializers.glorot_uniform
        case schema.He():
            return engine.initializers.he_normal
        case _:
            assert_never(initializer)


def _optimizer(optimizer: schema.Optimizer) -> Optimizer:
    settings = optimizer.model_dump(exclude={"name"})  # the engine has the same names
    match optimizer:
        case schema.Sgd():
            return engine.SGD(**settings)
        case schema.Adam() | schema.AdamW():
            return engine.Adam(**settings)
        case _:
            assert_never(optimizer)


def _schedule(schedule: schema.Schedule) -> Schedule:
    match schedule:
        case schema.Constant():
            return engine.schedules.constant()
        case schema.Step():
            return engine.schedules.step(schedule.at_epochs, schedule.factor)
        case schema.OneCycle():
            return engine.schedules.one_cycle(schedule.warmup_fraction, schedule.start_factor, schedule.end_factor)
        case schema.Cosine():
            return engine.schedules.cosine(schedule.warmup_fraction, schedule.start_factor, schedule.end_factor)
        case _:
            assert_never(schedule)
