"""Inference from checkpoints: the only module of the web process that uses the engine, imported on first use.

Loaded networks are cached by artifact id, since a checkpoint's file never changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, TypeVar

import numpy as np
from cachetools import LRUCache, cached
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from engine import GradientTape, Tensor, ops
from engine.data import one_hot, unscale_levels
from service.datasets.cache import Dataset
from service.models import kinds
from service.models.kinds import LatentSpace, Predictions
from service.models.predicting import LoadedModel, batch_slices, batches, ignoring_overflow, predict, read_model
from service.spec.schema import Spec
from service.storage.artifacts import ArtifactStore
from service.storage.tables import Artifact
from service.web.inference import evaluating
from service.web.inference.evaluating import Calibration, Importances

__all__ = ["Inference", "LoadedModel"]

Array = NDArray[Any]

_MODEL_CACHE_BYTES: Final = 256 * 2**20
"""Total size of cached networks: hundreds of those of the presets, or three of the largest that a spec allows."""
_PREDICTION_CACHE_BYTES: Final = 64 * 2**20
_MAX_CACHED_IMPORTANCES: Final = 64
"""Number of checkpoints whose column importances are cached."""

P = ParamSpec("P")
T = TypeVar("T")


class Inference:
    """Runs networks; thread-safe. Callers occupy a slot for computations.

    Args:
        artifacts: the store with the checkpoints.
    """

    def __init__(self, artifacts: ArtifactStore) -> None:
        # For products this small, more BLAS threads gain nothing, and would take cores from trainings.
        threadpool_limits(1, user_api="blas")
        self._artifacts = artifacts
        self.predict = predict
        self.load = _lru_cached(self._load, max_bytes=_MODEL_CACHE_BYTES, size_bytes=lambda model: model.size_bytes)
        self.validation = _lru_cached(
            self._evaluate,
            max_bytes=_PREDICTION_CACHE_BYTES,
            size_bytes=lambda predictions: predictions.size_bytes,
        )
        self.importances = _lru_cached(
            self._permutation_importance, max_bytes=_MAX_CACHED_IMPORTANCES, size_bytes=lambda _: 1
        )

    def saliency(self, model: LoadedModel, levels: Array, classes: Array) -> Array:
        """The gradient of the logit of each image's class with respect to its pixels (n, *image_shape), from 0 (black)
        to 1 (white).

        Simonyan et al. 2014 (arXiv:1312.6034), section 3: the gradient with respect to the input, here with its sign.
        """
        low, high = model.spec.dataset.scale
        gradients, start = [], 0
        with ignoring_overflow():
            for inputs in batches(model, levels):
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
        with ignoring_overflow():
            outputs = [np.asarray(model.network(noise[batch])) for batch in batch_slices(model.network, len(noise))]
        levels: Array = np.clip(unscale_levels(np.concatenate(outputs), model.spec.dataset.scale), 0, 255)
        return np.nan_to_num(levels)

    def latent_space(self, spec: Spec) -> LatentSpace:
        """The latent space of a generator."""
        space = kinds.of(spec.kind).latent_space
        if space is None:
            raise TypeError(f"a {spec.kind} has no latent space")
        return space(spec)

    def calibration(self, row: Artifact, model: LoadedModel, dataset: Dataset) -> Calibration:
        """The calibration of the validation predictions."""
        predictions = self.validation(row, model, dataset)
        return evaluating.calibration(predictions.probabilities, predictions.classes, dataset.validation.labels)

    def _permutation_importance(self, row: Artifact, model: LoadedModel, dataset: Dataset) -> Importances:
        """The importance of each column of a table."""

        def predicted(rows: Array) -> Array:
            predictions = predict(model, rows, dataset.info.columns)
            return predictions.classes if predictions.values is None else predictions.values

        return evaluating.importances(predicted, dataset, model.spec.seed)

    def _evaluate(self, row: Artifact, model: LoadedModel, dataset: Dataset) -> Predictions:
        """The predictions for the validation split."""
        return predict(model, dataset.validation.inputs, dataset.info.columns or None)

    def _load(self, row: Artifact, image_shape: Sequence[int], classes: int) -> LoadedModel:
        """The network of a checkpoint; see ``read_model``.

        Raises:
            ArtifactDamaged: the file is missing or corrupt, or does not fit such images.
        """
        return read_model(self._artifacts.read(row.path, row.sha256), row.path, image_shape, classes)


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
