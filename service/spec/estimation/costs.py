"""The estimated cost of a training, from its spec alone: parameters, bytes and floating-point operations."""

from __future__ import annotations

import math
from typing import Final

from service.spec.estimation.layer_shapes import Network, Shape, networks
from service.spec.schema import Adam, AdamW, BatchNorm, ClassifierSpec, DType, GanSpec, Optimizer, Sgd, Spec
from service.states import DatasetKind

_EVALUATED: Final = 500
_EVALUATED_NUMBERS: Final = 2**21
"""The engine evaluates chunks of ``_EVALUATED`` images, or fewer, so that no layer outputs more numbers than this."""
_PROBED: Final = 128
"""Number of images on which a network's diagnostics are measured."""


def total_steps(spec: Spec, train_count: int) -> int:
    """Number of batches of the whole run, including the short last batch of each epoch."""
    return spec.epochs * math.ceil(train_count / spec.batch_size)


def parameters(spec: Spec, shape: Shape) -> int:
    """Number of weights and biases of all networks together."""
    return sum(one.weights for network in _networks(spec, shape) for one in network.layer_shapes)


def checkpoint_bytes(spec: Spec, shape: Shape) -> int:
    """Size of one checkpoint: weights, optimizer state, averaged weights and running statistics."""
    found = _networks(spec, shape)
    weights = parameters(spec, shape)
    match spec:
        case ClassifierSpec():
            slots = weights * _slots(spec.optimizer)
            average_decay = spec.average_decay
        case GanSpec():
            generator = spec.generator.optimizer or spec.optimizer
            discriminator = spec.discriminator.optimizer or spec.optimizer
            slots = weights * max(_slots(generator), _slots(discriminator))
            average_decay = spec.generator.average_decay
    statistics = sum(one.statistics for network in found for one in network.layer_shapes)
    if average_decay is not None:  # of the classifier, or of the generator
        slots += sum(one.weights + one.statistics for one in found[0].layer_shapes)
    return _item(spec) * (weights + slots + statistics)


def data_bytes(shape: Shape) -> int:
    """Bytes of the dataset in memory. Images stay bytes: the engine converts one batch at a time to floats."""
    pool = shape.train_count + shape.validation_count
    copied = pool if shape.divided else 0
    if shape.kind is DatasetKind.TABLE:  # float64, and the preprocessed inputs
        return (2 * (pool + shape.test_count) + copied) * shape.pixels * 8
    return (shape.train_count + shape.test_count + copied) * shape.pixels


def activation_bytes(spec: Spec, shape: Shape) -> int:
    """Bytes of the activations and their gradients for a training batch, or of an evaluation chunk if that is more."""
    return sum(_activations(spec, network) for network in _networks(spec, shape))


def peak_bytes(spec: Spec, shape: Shape) -> int:
    """Estimated peak memory: memory-mapped dataset, weights, gradients, optimizer state, activations, and a checkpoint
    that is written while the training goes on."""
    sums = 2 if spec.accumulate > 1 else 1
    gradients = _item(spec) * sums * parameters(spec, shape)
    return data_bytes(shape) + gradients + 2 * checkpoint_bytes(spec, shape) + activation_bytes(spec, shape)


def operations(spec: Spec, shape: Shape) -> float:
    """Floating-point operations of the whole run: two per product; a backward pass costs twice the forward pass."""
    a_picture = sum(
        6 * network.passes * one.products for network in _networks(spec, shape) for one in network.layer_shapes
    )
    return float(a_picture * shape.train_count * spec.epochs)


def _networks(spec: Spec, shape: Shape) -> list[Network]:
    return networks(spec, shape)


def _item(spec: Spec) -> int:
    return 8 if spec.dtype is DType.FLOAT64 else 4


def _activations(spec: Spec, network: Network) -> int:
    if not network.layer_shapes:  # its first layer does not fit
        return 0
    made = [one.outputs * (2 if isinstance(one.layer, BatchNorm) else 1) for one in network.layer_shapes]
    numbers = math.ceil(network.passes) * (math.prod(network.input_size) + sum(made))
    row = max(one.patches for one in network.layer_shapes)
    largest = max(one.outputs for one in network.layer_shapes)
    evaluated = min(_EVALUATED, max(1, _EVALUATED_NUMBERS // largest))
    training = spec.batch_size * (2 * numbers + row)
    # An evaluation holds a layer's input and output, and one or two copies in between.
    looking = max(evaluated, spec.samples.count) * (4 * largest + row)
    return _item(spec) * max(training, looking, _PROBED * numbers)


def optimizer_slots(spec: Spec) -> list[int]:
    """Numbers that the optimizer of each network stores per weight."""
    match spec:
        case ClassifierSpec():
            return [_slots(spec.optimizer)]
        case GanSpec():
            return [_slots(part.optimizer or spec.optimizer) for part in (spec.generator, spec.discriminator)]


def _slots(optimizer: Optimizer) -> int:
    match optimizer:
        case Adam() | AdamW():
            return 2
        case Sgd():
            return 1 if optimizer.momentum else 0
