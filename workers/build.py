"""From a checked spec to the engine's objects. Two lists of names meet here, and the type checker holds them equal:
``assert_never`` fails where the spec gains a name that the engine lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

import engine
from engine.initializers import Initializer
from engine.layers import Layer
from engine.losses import Loss
from engine.optimizers import Optimizer
from engine.schedules import Schedule
from service.contract import spec
from service.contract.architecture import Size, picture_size
from service.contract.spec import ClassifierSpec, GanSpec, Spec
from service.contract.validation import read_resolved
from service.datasets import BUILT_IN, Dataset

Bytes = NDArray[np.uint8]
Trainer = engine.ClassifierTrainer | engine.GanTrainer


def trainer(resolved: Spec, dataset: Dataset) -> Trainer:
    """The trainer of a spec, at its start."""
    match resolved:
        case ClassifierSpec():
            return _classifier(resolved, dataset)
        case GanSpec():
            return _gan(resolved, dataset)
        case _:
            assert_never(resolved)


def judge(dataset: Dataset) -> engine.Judge | None:
    """The judge of a data set's kind of images, where this package has one."""
    known = BUILT_IN.get(dataset.info.name)
    if known is None or known.judge is None:
        return None
    kept = engine.checkpoint.load(known.judge)
    resolved = read_resolved(kept.spec)
    if not isinstance(resolved, ClassifierSpec):
        raise TypeError(f"{known.judge} holds a {resolved.kind}, and a judge is a classifier")
    model = _classifying(resolved, dataset)
    model.load_state_dict(kept.tensors)
    low, high = resolved.dataset.scale
    real = engine.FeatureStatistics(kept.tensors["real.mean"], kept.tensors["real.covariance"])
    return engine.Judge(model, real, (low, high))


def _classifier(resolved: ClassifierSpec, dataset: Dataset) -> engine.ClassifierTrainer:
    return engine.ClassifierTrainer(
        _classifying(resolved, dataset),
        _classifier_loss(resolved.loss),
        _optimizer(resolved.optimizer),
        _schedule(resolved.schedule),
        train=_images(dataset, dataset.train_images, dataset.train_labels, resolved),
        validation=_images(dataset, dataset.validation_images, dataset.validation_labels, resolved),
        epochs=resolved.epochs,
        batch_size=resolved.batch_size,
        shuffle=resolved.shuffle,
        seed=resolved.seed,
        max_shift=resolved.augmentation.max_shift,
        average_decay=resolved.average_decay,
        early_stopping=_early_stopping(resolved.early_stopping),
        dtype=np.dtype(resolved.dtype.value),
    )


def _classifying(resolved: ClassifierSpec, dataset: Dataset) -> engine.Sequential:
    rows, columns = dataset.info.image_shape
    return _network(resolved.layers, picture_size(resolved.layers, rows, columns), resolved, purpose="init")


def _gan(resolved: GanSpec, dataset: Dataset) -> engine.GanTrainer:
    rows, columns = dataset.info.image_shape
    made, judged = resolved.generator, resolved.discriminator
    return engine.GanTrainer(
        _network(made.layers, (resolved.latent.dim,), resolved, purpose="generator"),
        _network(judged.layers, picture_size(judged.layers, rows, columns), resolved, purpose="discriminator"),
        _optimizer(made.optimizer or resolved.optimizer),
        _optimizer(judged.optimizer or resolved.optimizer),
        _schedule(made.schedule or resolved.schedule),
        _schedule(judged.schedule or resolved.schedule),
        latent=engine.Latent(resolved.latent.dim, resolved.latent.distribution.value),
        skip_every=judged.skip_every,
        label_smoothing=judged.label_smoothing,
        reduction=resolved.loss.reduction.value,
        train=_images(dataset, dataset.train_images, dataset.train_labels, resolved),
        epochs=resolved.epochs,
        batch_size=resolved.batch_size,
        shuffle=resolved.shuffle,
        seed=resolved.seed,
        average_decay=made.average_decay,
        dtype=np.dtype(resolved.dtype.value),
    )


def _images(dataset: Dataset, images: Bytes, labels: Bytes, whole: Spec) -> engine.ImageData:
    low, high = whole.dataset.scale
    return engine.ImageData(images, labels, scale=(low, high), classes=dataset.info.classes)


def _network(layers: Sequence[spec.Layer], input_size: Size, whole: Spec, *, purpose: str) -> engine.Sequential:
    rng = engine.generator_for(whole.seed, purpose, 0)
    initializer = _initializer(whole.initializer)
    dtype = np.dtype(whole.dtype.value)
    size = input_size
    built: list[Layer] = []
    for layer in layers:
        match layer:
            case spec.Dense():
                made: Layer = engine.Dense(
                    size[-1],
                    layer.units,
                    _activation(layer.activation),
                    initializer=initializer,
                    rng=rng,
                    dtype=dtype,
                    negative_slope=layer.negative_slope,
                )
            case spec.Conv2D():
                made = engine.Conv2D(
                    size[-1],
                    layer.filters,
                    layer.kernel,
                    layer.stride,
                    layer.padding.value,
                    _activation(layer.activation),
                    initializer=initializer,
                    rng=rng,
                    dtype=dtype,
                    negative_slope=layer.negative_slope,
                )
            case spec.BatchNorm():
                made = engine.BatchNorm(
                    size[-1],
                    _activation(layer.activation),
                    momentum=layer.momentum,
                    epsilon=layer.epsilon,
                    dtype=dtype,
                    negative_slope=layer.negative_slope,
                )
            case spec.MaxPool2D():
                made = engine.MaxPool2D(layer.size)
            case spec.Upsample2D():
                made = engine.Upsample2D(layer.size)
            case spec.Flatten():
                made = engine.Flatten()
            case spec.Reshape():
                made = engine.Reshape(layer.shape)
            case spec.Dropout():
                made = engine.Dropout(layer.rate)
            case _:
                assert_never(layer)
        size = made.output_shape(size)
        built.append(made)
    return engine.Sequential(built, input_size)


def _activation(name: spec.Activation) -> engine.Activation | None:
    match name:
        case spec.Activation.LINEAR:
            return None
        case spec.Activation.SIGMOID:
            return engine.Activation.SIGMOID
        case spec.Activation.TANH:
            return engine.Activation.TANH
        case spec.Activation.RELU:
            return engine.Activation.RELU
        case spec.Activation.LEAKY_RELU:
            return engine.Activation.LEAKY_RELU
        case spec.Activation.SOFTMAX:
            return engine.Activation.SOFTMAX
        case _:
            assert_never(name)


def _classifier_loss(loss: spec.ClassifierLoss) -> Loss:
    match loss.name:
        case spec.LossName.SQUARED_ERROR:
            return engine.SquaredError(loss.reduction.value, loss.label_smoothing)
        case spec.LossName.BINARY_CROSS_ENTROPY:
            return engine.BinaryCrossEntropy(loss.reduction.value, loss.label_smoothing)
        case spec.LossName.SOFTMAX_CROSS_ENTROPY:
            return engine.SoftmaxCrossEntropy(loss.reduction.value, loss.label_smoothing)
        case _:
            assert_never(loss.name)


def _early_stopping(wanted: spec.EarlyStopping | None) -> engine.EarlyStopping | None:
    if wanted is None:
        return None
    match wanted.metric:
        case spec.StopMetric.VAL_LOSS | spec.StopMetric.TRAIN_LOSS:
            higher_is_better = False
        case spec.StopMetric.VAL_ACCURACY | spec.StopMetric.TRAIN_ACCURACY:
            higher_is_better = True
        case _:
            assert_never(wanted.metric)
    return engine.EarlyStopping(
        wanted.metric.value,
        higher_is_better=higher_is_better,
        patience=wanted.patience,
        min_delta=wanted.min_delta,
    )


def _initializer(initializer: spec.Initializer) -> Initializer:
    match initializer:
        case spec.Uniform():
            return engine.initializers.uniform(initializer.scale)
        case spec.Glorot():
            return engine.initializers.glorot_uniform
        case spec.He():
            return engine.initializers.he_normal
        case _:
            assert_never(initializer)


def _optimizer(optimizer: spec.Optimizer) -> Optimizer:
    match optimizer:
        case spec.Sgd():
            return engine.SGD(
                optimizer.learning_rate,
                optimizer.momentum,
                nesterov=optimizer.nesterov,
                weight_decay=optimizer.weight_decay,
                decay_biases=optimizer.decay_biases,
                clip_norm=optimizer.clip_norm,
            )
        case spec.Adam():
            return engine.Adam(
                optimizer.learning_rate,
                optimizer.beta1,
                optimizer.beta2,
                optimizer.epsilon,
                clip_norm=optimizer.clip_norm,
            )
        case spec.AdamW():
            return engine.AdamW(
                optimizer.learning_rate,
                optimizer.beta1,
                optimizer.beta2,
                optimizer.epsilon,
                weight_decay=optimizer.weight_decay,
                decay_biases=optimizer.decay_biases,
                clip_norm=optimizer.clip_norm,
            )
        case _:
            assert_never(optimizer)


def _schedule(schedule: spec.Schedule) -> Schedule:
    match schedule:
        case spec.Constant():
            return engine.schedules.constant()
        case spec.Step():
            return engine.schedules.step(schedule.at_epochs, schedule.factor)
        case spec.OneCycle():
            return engine.schedules.one_cycle(schedule.warmup_fraction, schedule.start_factor, schedule.end_factor)
        case spec.Cosine():
            return engine.schedules.cosine(schedule.warmup_fraction, schedule.start_factor, schedule.end_factor)
        case _:
            assert_never(schedule)
