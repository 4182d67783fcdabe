"""What each kind of training says about its trained models: the room ``model`` of its folder, which loads the
engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from engine import Sequential
from engine.nn.initializers import Initializer
from service.datasets.tables.preprocessing import Preprocessing
from service.kinds import rooms
from service.spec.schema import Spec

Array = NDArray[Any]
S = TypeVar("S", bound=Spec)


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


def classified(raw: Array, preprocessing: Preprocessing | None) -> Predictions:
    """Outputs of a network (n, classes) as probabilities."""
    # Squared error also trains networks without a last activation, towards 0 and 1.
    return Predictions(np.clip(raw, 0, 1), raw.argmax(axis=1))


class LatentSpace(Protocol):
    """The inputs of a generator, besides classes."""

    @property
    def dim(self) -> int:
        """Length of a latent point."""

    def sample(self, seed: int, count: int) -> Array:
        """The first latent points (count, dim) of a seed; the job's own seed yields those of its sample grids."""

    def interpolate(self, points: Array, steps: int) -> Array:
        """Interpolate from each latent point to the next in ``steps`` steps, ends included: (1 + (n - 1) * steps,
        dim)."""


@dataclass(frozen=True, kw_only=True)
class ModelOfKind(Generic[S]):
    """The trained models of a kind."""

    network: Callable[[S, Sequence[int], Initializer, int], Sequential]
    """The network that is used after a training: of a spec, the shape of an example, an initializer and the number of
    classes. Raises an ``EngineError`` if it cannot be of such examples."""
    prefix: str = ""
    """Of the names of its tensors in a checkpoint."""
    predictions: Callable[[Array, Preprocessing | None], Predictions] = classified
    """What its outputs mean."""
    latent_space: Callable[[S], LatentSpace] | None = None
    """That of a generator."""
    torch_latent: Callable[[S], str] = lambda spec: ""
    """An expression in PyTorch for sixteen inputs, drawn as in training; empty: they are examples."""


def of(kind: str) -> ModelOfKind[Any]:
    """What a kind says about its models."""
    return cast(ModelOfKind[Any], rooms.room(kind, "model").MODEL)
