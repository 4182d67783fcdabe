"""What each kind of job says about its work: the room ``training`` of its folder, or ``work`` if it trains nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar, cast

import numpy as np

from engine import ReferenceClassifier
from engine.trainers.trainer import Trainer
from service.datasets.cache import Dataset
from service.datasets.tables.preprocessing import Preprocessing
from service.errors import ServiceError
from service.kinds import rooms
from service.pictures.grids import SampleClasses
from service.runtime.settings import Settings
from service.spec.schema import Spec
from service.storage.tables import Job
from workers.training.training_run import JobRun

S = TypeVar("S", bound=Spec)
Draw: TypeAlias = "functools.partial[bytes]"
"""Draws a picture from its own copies of arrays."""
Arrays: TypeAlias = Sequence[np.ndarray[Any, Any]]
Classify: TypeAlias = Callable[[Any], SampleClasses | None]
"""The reference classifier's predictions for samples, if there is one."""


class WorkFailed(ServiceError):
    """A job cannot be done, for a reason that its kind knows."""

    hint = ""
    """What helps."""


def _no_samples(trainer: Any, count: int, class_names: Sequence[str], classify: Classify) -> tuple[Draw, Arrays]:
    raise TypeError("rows of a table are not images")


def _no_reference(dataset: Dataset) -> ReferenceClassifier | None:
    return None


@dataclass(frozen=True, kw_only=True)
class TrainingOfKind(Generic[S]):
    """How networks of a kind are trained."""

    trainer: Callable[[S, Dataset, Preprocessing | None], Trainer]
    """The trainer of a spec; ``Preprocessing`` of a table."""
    samples: Callable[[Any, int, Sequence[str], Classify], tuple[Draw, Arrays]] = _no_samples
    """A function that draws a sample grid of the trainer's network, and the arrays that it shows."""
    is_tested: bool = False
    """Whether its trainer scores the test part of the data."""
    reference: Callable[[Dataset], ReferenceClassifier | None] = _no_reference
    """The reference classifier for the samples of a training, if there is one."""
    score: Callable[[Any, S, ReferenceClassifier], dict[str, float]] = lambda trainer, spec, reference: {}
    """What it says about the trainer's network."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A job that trains nothing. It starts again after each interruption."""

    run: Callable[[JobRun, Settings, Job, Dataset], None]
    """Does the work, and ends the job."""
    peak_bytes: Callable[[Job], int]
    """The memory that it will need."""
    smaller: str
    """What to do if that is not there."""


def training(kind: str) -> TrainingOfKind[Any]:
    """How networks of a kind are trained."""
    return cast(TrainingOfKind[Any], rooms.room(kind, "training").TRAINING)


def work(kind: str) -> Work:
    """The work of a kind that trains nothing."""
    return cast(Work, rooms.room(kind, "work").WORK)
