"""Inference from checkpoints: the only module of the web process that uses the engine, imported on first use.

Loaded networks are cached by artifact id, since a checkpoint's file never changes. Outputs equal those of the trainers'
evaluation: averaged weights if the spec has them, no dropout, running statistics.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, ParamSpec, TypeVar, assert_never

import numpy as np
from cachetools import LRUCache, cached
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from engine import EngineError, GradientTape, Sequential, Tensor, checkpoint, generator_for, ops
from engine.data import one_hot, scale_levels, unscale_levels
from service.datasets.cache import Dataset
from service.datasets.tables.preprocessing import Preprocessing
from service.models import networks
from service.spec.schema import Distribution, GanSpec, RegressorSpec, Spec, SupervisedSpec
from service.spec.validation import read_resolved
from service.storage.artifacts import ArtifactDamaged, ArtifactStore
from service.storage.tables import Artifact
from service.web.inference import evaluating
from service.web.inference.evaluating import Calibration, Importances

Array = NDArray[Any]

_MODEL_CACHE_BYTES: Final = 256 * 2**20
"""Total size of cached networks: hundreds of those of the presets, or three of the largest that a spec allows."""
_PREDICTION_CACHE_BYTES: Final = 64 * 2**20
_MAX_CACHED_IMPORTANCES: Final = 64
"""Number of checkpoints whose column importances are cached."""
_BATCH_SIZE: Final = 500
_MAX_LAYER_OUTPUTS: Final = 2**21
"""Maximum outputs of a layer per batch, as in the trainers' evaluation."""

P = ParamSpec("P")
T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class Predictions:
    """The outputs of a classifier or regressor.

    Attributes:
        probabilities: (n, classes) in [0, 1]; rows add up to 1 for softmax, and are independent for sigmoid.
        classes: int64 (n,).
        values: float64 (n,), in the unit of the target; of a regressor only, which has no classes.
    """

    probabilities: Array
    classes: Array
    values: Array | None = None

    @property
    def size_bytes(self) -> int:
        """Their size in memory."""
        return self.probabilities.nbytes + self.classes.nbytes + (0 if self.values is None else self.values.nbytes)


class Inference:
    """Runs networks; thread-safe. Callers occupy a slot for computations.

    Args:
        artifacts: the store with the checkpoints.
    """

    def __init__(self, artifacts: ArtifactStore) -> None:
        # For products this small, more BLAS threads gain nothing, and would take cores from trainings.
        threadpool_limits(1, user_api="blas")
        self._artifacts = artifacts
        self.load = _lru_cached(self._load, max_bytes=_MODEL_CACHE_BYTES, size_bytes=lambda model: model.size_bytes)
        self.validation = _lru_cached(
            self._evaluate,
            max_bytes=_PREDICTION_CACHE_BYTES,
            size_bytes=lambda predictions: predictions.size_bytes,
        )
        self.importances = _lru_cached(
            self._permutation_importance, max_bytes=_MAX_CACHED_IMPORTANCES, size_bytes=lambda _: 1
        )

    def predict(
        self, model: LoadedModel, inputs: Array, columns: Sequence[Mapping[str, Any]] | None = None
    ) -> Predictions:
        """Classify images (n, *image_shape) with levels from 0 to 255, or rows of a table; or predict their targets.

        Args:
            columns: the columns of the rows, if they differ from those of the preprocessing.
        """
        with _ignoring_overflow():
            outputs = [model.network(batch) for batch in _batches(model, inputs, columns)]
        raw = np.nan_to_num(np.concatenate([np.asarray(batch) for batch in outputs]))
        if isinstance(model.spec, RegressorSpec) and model.preprocessing is not None:
            values = model.preprocessing.to_targets(raw[:, 0])
            return Predictions(np.empty((len(raw), 0)), np.empty(0, np.int64), values)
        # Squared error also trains networks without a last activation, towards 0 and 1.
        return Predictions(np.clip(raw, 0, 1), raw.argmax(axis=1))

    def saliency(self, model: LoadedModel, levels: Array, classes: Array) -> Array:
        """The gradient of the logit of each image's class with respect to its pixels (n, *image_shape), from 0 (black)
        to 1 (white).

        Simonyan et al. 2014 (arXiv:1312.6034), section 3: the gradient with respect to the input, here with its sign.
        """
        low, high = model.spec.dataset.scale
        gradients, start = [], 0
        with _ignoring_overflow():
            for inputs in _batches(model, levels):
                x = Tensor(inputs, watch=True)
                selection = np.zeros((len(inputs), model.network.units), inputs.dtype)
                selection[np.arange(len(inputs)), classes[start : start + len(inputs)]] = 1
                with GradientTape() as tape:
                    total = np.sum(ops.multiply(model.network.logits(x), selection))
                (gradient,) = tape.gradient(total, [x])
                gradients.append(np.asarray(gradient) * (high - low))
                start += len(inputs)
        return np.nan_to_num(np.concatenate(gradients)).reshape(levels.shape)

    def generate(self, model: LoadedModel, latent: Array, labels: Array | None = None) -> Array:
        """Generate images from latent points (n, dim): levels from 0 to 255 (n, pixels).

        Args:
            labels: the class of each image, for a conditional GAN.
        """
        noise = latent.astype(model.network.dtype)
        if labels is not None:
            classes = one_hot(labels, model.network.inputs - noise.shape[1], noise.dtype)
            noise = np.concatenate([noise, classes], axis=1)
        with _ignoring_overflow():
            outputs = [np.asarray(model.network(noise[batch])) for batch in _batch_slices(model.network, len(noise))]
        levels: Array = np.clip(unscale_levels(np.concatenate(outputs), model.spec.dataset.scale), 0, 255)
        return np.nan_to_num(levels)

    def sample_latent(self, spec: GanSpec, seed: int, count: int) -> Array:
        """The first latent points (count, dim) of a seed; the job's own seed yields those of its sample
        grids."""
        return networks.latent(spec).draw(generator_for(seed, "samples"), count, spec.dtype.value)

    def interpolate_latent(self, spec: GanSpec, points: Array, steps: int) -> Array:
        """Interpolate from each latent point to the next in ``steps`` steps, ends included: (1 + (n - 1) * steps, dim).

        For normal noise, along great circles (White 2016, arXiv:1609.04468): a straight line passes near the origin,
        where normal noise has almost no samples, so the generator was not trained there. Uniform noise has no such
        region.
        """
        fractions = np.arange(1, steps + 1) / steps
        path = [points[:1]]
        for start, end in pairwise(points):
            if spec.latent.distribution is Distribution.NORMAL:
                path.append(_slerp(start, end, fractions))
            else:
                path.append((1 - fractions[:, None]) * start + fractions[:, None] * end)
        return np.concatenate(path)

    def calibration(self, row: Artifact, model: LoadedModel, dataset: Dataset) -> Calibration:
        """The calibration of the validation predictions."""
        predictions = self.validation(row, model, dataset)
        return evaluating.calibration(predictions.probabilities, predictions.classes, dataset.validation.labels)

    def _permutation_importance(self, row: Artifact, model: LoadedModel, dataset: Dataset) -> Importances:
        """The importance of each column of a table."""

        def predict(rows: Array) -> Array:
            predictions = self.predict(model, rows, dataset.info.columns)
            return predictions.classes if predictions.values is None else predictions.values

        return evaluating.importances(predict, dataset, model.spec.seed)

    def _evaluate(self, row: Artifact, model: LoadedModel, dataset: Dataset) -> Predictions:
        """The predictions for the validation split."""
        return self.predict(model, dataset.validation.inputs, dataset.info.columns or None)

    def _load(self, row: Artifact, image_shape: Sequence[int], classes: int) -> LoadedModel:
        """The network of a checkpoint.

        Args:
            image_shape: (rows, columns) of the dataset's images, in colour (rows, columns, 3).
            classes: of the dataset; an input of conditional generators.

        Raises:
            ArtifactDamaged: the file is missing or corrupt, or does not fit such images.
        """
        content = self._artifacts.read(row.path, row.sha256)
        try:
            state = checkpoint.loads(content)
            spec = read_resolved(state.spec)
            fitted = state.state.get("preprocessing")
            preprocessing = Preprocessing.read(fitted) if fitted is not None else None
            image_shape = (1, preprocessing.width) if preprocessing is not None else image_shape
            match spec:
                case SupervisedSpec():
                    network, prefix = networks.supervised(spec, image_shape, _empty), ""
                case GanSpec():
                    network, prefix = networks.generator(spec, _empty, classes), "generator."
                    if network.units != math.prod(image_shape):
                        raise ArtifactDamaged(row.path, f"it makes {network.units} pixels, not {image_shape}")
                case _:
                    assert_never(spec)
            # These names hold the averages if the spec averages weights.
            network.load_state_dict(state.tensors, prefix)
        except EngineError as error:
            raise ArtifactDamaged(row.path, str(error)) from error
        return LoadedModel(spec, network, preprocessing)


def _empty(shape: tuple[int, ...], rng: np.random.Generator, dtype: Any) -> Array:
    """An initializer that only allocates: a checkpoint overwrites the weights."""
    return np.zeros(shape, dtype)


def _slerp(start: Array, end: Array, fractions: Array) -> Array:
    """Spherical interpolation of the direction, linear interpolation of the length."""
    from_length, to_length = float(np.linalg.norm(start)), float(np.linalg.norm(end))
    cosine = float(start @ end) / max(from_length * to_length, 1e-12)
    angle = math.acos(min(max(cosine, -1), 1))
    weights = fractions[:, None]
    if min(from_length, to_length, math.sin(angle)) < 1e-6:  # parallel or opposite: no unique great circle
        return np.asarray((1 - weights) * start + weights * end)
    directions = np.sin((1 - weights) * angle) * (start / from_length) + np.sin(weights * angle) * (end / to_length)
    lengths = (1 - weights) * from_length + weights * to_length
    return np.asarray(directions / math.sin(angle) * lengths)


def _ignoring_overflow() -> np.errstate:
    """Suppress the overflow warnings of a diverged network; its outputs that are not finite become 0."""
    return np.errstate(over="ignore", invalid="ignore")


def _batches(model: LoadedModel, levels: Array, columns: Sequence[Mapping[str, Any]] | None = None) -> Iterator[Array]:
    """Batches of network inputs, preprocessed by the same operations as in training."""
    if model.preprocessing is not None:
        for batch in _batch_slices(model.network, len(levels)):
            yield model.preprocessing.apply(levels[batch], columns).astype(model.network.dtype)
        return
    rows = levels.reshape(len(levels), -1)
    for batch in _batch_slices(model.network, len(rows)):
        inputs = rows[batch].astype(model.network.dtype)
        scale_levels(inputs, model.spec.dataset.scale)
        yield inputs


def _batch_slices(network: Sequential, count: int) -> Iterator[slice]:
    largest = max(math.prod(shape) for shape in network.layer_shapes)
    size = max(1, min(_BATCH_SIZE, _MAX_LAYER_OUTPUTS // largest))
    for start in range(0, count, size):
        yield slice(start, start + size)


def _lru_cached(
    make: Callable[P, T],
    *,
    max_bytes: int,
    size_bytes: Callable[[T], int],
    key: Callable[..., str] = lambda row, *args: row.id,
) -> Callable[P, T]:
    """An LRU cache around a function, bounded by the size of its results. Concurrent calls with one key compute once. A
    result larger than the cache replaces everything else."""
    cache: LRUCache[str, T] = LRUCache(max_bytes, getsizeof=lambda result: min(size_bytes(result), max_bytes))
    return cached(cache, key=key, condition=threading.Condition())(make)
