"""The estimated cost of a training, from its spec and networks alone: parameters, bytes, operations and seconds.

Seconds are operations times one speed, measured once on a reference machine, because a dry run has to estimate a job
before any similar one has run. So the first estimate is off by the speed of the machine, and by up to a factor of two
for unusual networks; `jobs.queries.estimates` corrects it afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from service.schema.base import MAX_PARAMETERS
from service.schema.layer_shapes import Network, Shape
from service.schema.layers import BatchNorm, LayerShape
from service.schema.optimizers import Adam, AdamW, Optimizer, Sgd
from service.schema.specs import KEEP_LAST, BaseSpec, DType
from service.states import DatasetKind

_EVALUATION_IMAGES: Final = 500
_MAX_EVALUATION_NUMBERS: Final = 2**21
"""The engine evaluates chunks of ``_EVALUATION_IMAGES`` images, or fewer, so that no layer outputs more
numbers than this."""
_PROBE_IMAGES: Final = 64
"""Number of images on which a network's diagnostics are measured, or a multiple of it (``Network.probes``)."""
_CHECKPOINT_HEADER_BYTES: Final = 10_000
"""Size of a checkpoint besides its tensors: the spec, and the state of the training."""
_GRID_BYTES_PER_VALUE: Final = 1.5
"""Bytes of a sample grid, a PNG, for each value of its images."""
_GRID_BYTES_PER_IMAGE: Final = 250
"""Bytes of a sample grid for what is known about each image."""
_SECONDS_PER_OPERATION: Final = 3.4e-12
"""Seconds of a training per floating-point operation, on an Intel Xeon of family 6, model 207, with one BLAS thread."""
_SECONDS_PER_ROW: Final = 2e-5
"""Seconds for a line of the CSV file of a prediction."""
_OPERATIONS_PER_OUTPUT: Final = 1600
"""Operations that take as long as everything else for an output of a layer: its activation, and copies."""
_OPERATIONS_PER_WEIGHT: Final = 500
"""Operations that take as long as the update of a weight."""
_OPERATIONS_PER_EPOCH: Final = 2.4e10
"""Operations that take as long as the end of an epoch: files, a commit and diagnostics."""


def total_steps(spec: BaseSpec, train_count: int) -> int:
    """Number of batches of the whole run, including the short last batch of each epoch."""
    return spec.epochs * math.ceil(train_count / spec.batch_size)


def parameters(networks: Sequence[Network]) -> int:
    """Number of weights and biases of all networks together."""
    return sum(layer_shape.weights for network in networks for layer_shape in network.layer_shapes)


def checkpoint_bytes(spec: BaseSpec, networks: Sequence[Network]) -> int:
    """Size of one checkpoint: weights, optimizer state, averaged weights and running statistics."""
    weights, trained = parameters(networks), spec.trained_networks
    slots = weights * max(_slots(network.optimizer) for network in trained)
    statistics = sum(layer_shape.statistics for network in networks for layer_shape in network.layer_shapes)
    if trained[0].average_decay is not None:  # only the first one averages
        slots += sum(layer_shape.weights + layer_shape.statistics for layer_shape in networks[0].layer_shapes)
    return _item_bytes(spec) * (weights + slots + statistics)


def expected_bytes(spec: BaseSpec, networks: Sequence[Network], shape: Shape) -> int:
    """The most that the files of a job are expected to take at a time, without exports: the checkpoints that it keeps
    while it runs, and its sample grids."""
    checkpoints = min(spec.epochs, (spec.checkpoint.keep_last or KEEP_LAST) + 1)  # the latest, and the best
    size = checkpoints * (checkpoint_bytes(spec, networks) + _CHECKPOINT_HEADER_BYTES)
    if shape.kind is DatasetKind.TABLE:  # rows are not drawn
        return size
    grid = spec.samples.count * (_GRID_BYTES_PER_VALUE * shape.pixels + _GRID_BYTES_PER_IMAGE)
    return size + math.ceil(spec.epochs / spec.samples.every_epochs) * math.ceil(grid)


def data_bytes(shape: Shape) -> int:
    """Bytes of the dataset in memory. Images stay bytes: the engine converts one batch at a time to floats."""
    pool = shape.train_count + shape.validation_count
    copied = pool if shape.divided else 0
    if shape.kind is DatasetKind.TABLE:  # float64, and the preprocessed inputs
        return (2 * (pool + shape.test_count) + copied) * shape.pixels * 8
    return (shape.train_count + shape.test_count + copied) * shape.pixels


def activation_bytes(spec: BaseSpec, networks: Sequence[Network]) -> int:
    """Bytes of the activations and their gradients for a training batch, or of an evaluation chunk if that is more."""
    return sum(_activations(spec, network) for network in networks)


def peak_bytes(spec: BaseSpec, networks: Sequence[Network], shape: Shape) -> int:
    """Estimated peak memory: memory-mapped dataset, weights, gradients, optimizer state, activations, and a checkpoint
    that is written while the training continues."""
    gradient_copies = 2 if spec.accumulate > 1 else 1
    gradients = _item_bytes(spec) * gradient_copies * parameters(networks)
    return data_bytes(shape) + gradients + 2 * checkpoint_bytes(spec, networks) + activation_bytes(spec, networks)


def operations(spec: BaseSpec, networks: Sequence[Network], shape: Shape) -> float:
    """Floating-point operations of the whole run: two per product; a backward pass costs twice the forward pass."""
    per_image = sum(
        6 * network.passes * layer_shape.products for network in networks for layer_shape in network.layer_shapes
    )
    return float(per_image * shape.train_count * spec.epochs)


def seconds(spec: BaseSpec, networks: Sequence[Network], *, steps: int, epochs: int) -> float:
    """Approximate duration of a run on the reference machine; measured, within a factor of two, for all presets."""
    per_image = sum(
        network.passes * (6 * layer_shape.products + _OPERATIONS_PER_OUTPUT * layer_shape.outputs)
        for network in networks
        for layer_shape in network.layer_shapes
    )
    operations = steps * (spec.batch_size * per_image + _OPERATIONS_PER_WEIGHT * parameters(networks))
    return (_item_bytes(spec) / 4 * operations + epochs * _OPERATIONS_PER_EPOCH) * _SECONDS_PER_OPERATION


def prediction_seconds(spec: BaseSpec, networks: Sequence[Network], rows: int) -> float:
    """Approximate duration of a prediction on the reference machine: a forward pass costs a third of a training step.

    Args:
        spec: of the model.
    """
    operations = sum(2 * shape.products + _OPERATIONS_PER_OUTPUT / 3 * shape.outputs for shape in _shapes(networks))
    operations *= _item_bytes(spec) / 4
    return (
        rows * (operations * _SECONDS_PER_OPERATION + _SECONDS_PER_ROW) + _OPERATIONS_PER_EPOCH * _SECONDS_PER_OPERATION
    )


def prediction_peak_bytes(csv_bytes: int, parameters: int = MAX_PARAMETERS) -> int:
    """Estimated peak memory of a prediction: weights, a batch, and the CSV file, twice while it grows.

    Args:
        parameters: of the network; by default, of the largest one.
    """
    return 2 * csv_bytes + 8 * (2 * parameters + 6 * _MAX_EVALUATION_NUMBERS)


def _shapes(networks: Sequence[Network]) -> list[LayerShape]:
    return [layer_shape for network in networks for layer_shape in network.layer_shapes]


def _item_bytes(spec: BaseSpec) -> int:
    return 8 if spec.dtype is DType.FLOAT64 else 4


def _activations(spec: BaseSpec, network: Network) -> int:
    if not network.layer_shapes:  # its first layer does not fit
        return 0
    outputs = [
        layer_shape.outputs * (2 if isinstance(layer_shape.layer, BatchNorm) else 1)
        for layer_shape in network.layer_shapes
    ]
    once = math.prod(network.input_size) + sum(outputs)
    numbers = math.ceil(network.passes) * once
    patch_numbers = max(layer_shape.patches for layer_shape in network.layer_shapes)
    largest = max(layer_shape.outputs for layer_shape in network.layer_shapes)
    evaluated = min(_EVALUATION_IMAGES, max(1, _MAX_EVALUATION_NUMBERS // largest))
    training_numbers = spec.batch_size * (2 * numbers + patch_numbers)
    # An evaluation holds a layer's input and output, and one or two copies in between.
    evaluation_numbers = max(evaluated, spec.samples.count) * (4 * largest + patch_numbers)
    probed = network.probes * _PROBE_IMAGES
    return _item_bytes(spec) * max(training_numbers, evaluation_numbers, probed * once)


def _slots(optimizer: Optimizer) -> int:
    match optimizer:
        case Adam() | AdamW():
            return 2
        case Sgd():
            return 1 if optimizer.momentum else 0
