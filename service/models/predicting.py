"""Loads the network of a checkpoint and computes its outputs: what requests and prediction jobs have in common.

Outputs equal those of the trainers' evaluation: averaged weights if the spec has them, no dropout, running statistics.
The outputs of a row depend in their last bits on the batch that it is in, so batches always have the same sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine import EngineError, Sequential, checkpoint
from engine.data import scale_levels
from service.datasets.tables.preprocessing import Preprocessing
from service.models import kinds
from service.models.kinds import Predictions
from service.spec.schema import Spec
from service.spec.validation import read_resolved
from service.storage.artifacts import ArtifactDamaged

Array = NDArray[Any]

BATCH_SIZE: Final = 500
"""Rows or images of a batch, unless a layer is large."""
_MAX_LAYER_OUTPUTS: Final = 2**21
"""Maximum outputs of a layer per batch, as in the trainers' evaluation."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network with the weights of a checkpoint, and its spec."""

    spec: Spec
    network: Sequential
    preprocessing: Preprocessing | None = None
    """``None`` for images."""

    @property
    def size_bytes(self) -> int:
        """Its size in memory."""
        return sum(array.nbytes for array in (*self.network.parameters, *self.network.buffers))


def read_model(content: bytes, path: str, image_shape: Sequence[int], classes: int) -> LoadedModel:
    """The network of a checkpoint.

    Args:
        content: of the file.
        path: of the file, for errors.
        image_shape: (rows, columns) of the dataset's images, in colour (rows, columns, 3).
        classes: of the dataset; an input of conditional generators.

    Raises:
        ArtifactDamaged: the file is corrupt, or does not fit such images.
    """
    try:
        state = checkpoint.loads(content)
        spec = read_resolved(state.spec)
        fitted = state.state.get("preprocessing")
        preprocessing = Preprocessing.read(fitted) if fitted is not None else None
        image_shape = (1, preprocessing.width) if preprocessing is not None else image_shape
        model = kinds.of(spec.kind)
        network = model.network(spec, image_shape, _empty, classes)
        # These names hold the averages if the spec averages weights.
        network.load_state_dict(state.tensors, model.prefix)
    except EngineError as error:
        raise ArtifactDamaged(path, str(error)) from error
    return LoadedModel(spec, network, preprocessing)


def predict(model: LoadedModel, inputs: Array, columns: Sequence[Mapping[str, Any]] | None = None) -> Predictions:
    """Classify images (n, *image_shape) with levels from 0 to 255, or rows of a table; or predict their targets.

    Args:
        columns: the columns of the rows, if they differ from those of the preprocessing.
    """
    with ignoring_overflow():
        outputs = [model.network(batch) for batch in batches(model, inputs, columns)]
    raw = np.nan_to_num(np.concatenate([np.asarray(batch) for batch in outputs]))
    return kinds.of(model.spec.kind).predictions(raw, model.preprocessing)


def batches(model: LoadedModel, levels: Array, columns: Sequence[Mapping[str, Any]] | None = None) -> Iterator[Array]:
    """Batches of network inputs, preprocessed by the same operations as in training."""
    if model.preprocessing is not None:
        for batch in batch_slices(model.network, len(levels)):
            yield model.preprocessing.apply(levels[batch], columns).astype(model.network.dtype)
        return
    rows = levels.reshape(len(levels), -1)
    for batch in batch_slices(model.network, len(rows)):
        inputs = rows[batch].astype(model.network.dtype)
        scale_levels(inputs, model.spec.dataset.scale)
        yield inputs


def batch_slices(network: Sequential, count: int) -> Iterator[slice]:
    """The batches of ``count`` inputs."""
    size = batch_size(network)
    for start in range(0, count, size):
        yield slice(start, start + size)


def batch_size(network: Sequential) -> int:
    """Inputs of a batch; the last one may have fewer."""
    largest = max(math.prod(shape) for shape in network.layer_shapes)
    return max(1, min(BATCH_SIZE, _MAX_LAYER_OUTPUTS // largest))


def ignoring_overflow() -> np.errstate:
    """Suppress the overflow warnings of a diverged network; its outputs that are not finite become 0."""
    return np.errstate(over="ignore", invalid="ignore")


def _empty(shape: tuple[int, ...], rng: np.random.Generator, dtype: Any) -> Array:
    """An initializer that only allocates: a checkpoint overwrites the weights."""
    return np.zeros(shape, dtype)
