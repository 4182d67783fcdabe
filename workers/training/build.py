"""Translates validated specs to objects of the engine: what the trainers of all kinds need. ``assert_never`` makes the
type checker fail if the engine lacks a name that the spec has."""

from __future__ import annotations

from typing import Final, assert_never

import numpy as np

import engine
from engine.nn.initializers import Initializer
from engine.optim.optimizer import Optimizer
from engine.optim.schedules import Schedule
from engine.trainers.trainer import Trainer
from service.datasets.cache import Dataset, Examples
from service.datasets.tables.preprocessing import Preprocessing
from service.spec import schema
from service.spec.schema import Spec
from service.states import Task
from workers.training import kinds

_BLOCK_SIZE: Final = 10_000
"""Number of rows of a table to preprocess at a time: in double precision, they need many times the memory."""
VERIFY_STEPS: Final = 200
"""Between epochs, nothing changes a network. On a small table they have eight steps: a comparison of replay and tape
before each would take a seventh of the training."""


def trainer(resolved: Spec, dataset: Dataset, preprocessing: Preprocessing | None = None) -> Trainer:
    """Create the trainer of a spec.

    Args:
        preprocessing: of a table.
    """
    return kinds.training(resolved.kind).trainer(resolved, dataset, preprocessing)


def test_data(
    dataset: Dataset, resolved: Spec, preprocessing: Preprocessing | None
) -> engine.ImageData | engine.TableData | None:
    """The test part of a dataset, if it has one."""
    return examples(dataset, dataset.test, resolved, preprocessing) if dataset.test is not None else None


def examples(
    dataset: Dataset, part: Examples, spec: Spec, preprocessing: Preprocessing | None
) -> engine.ImageData | engine.TableData:
    """A part of a dataset, as trainers take it."""
    return rows(dataset, part, spec, preprocessing) if preprocessing else images(dataset, part, spec)


def images(dataset: Dataset, part: Examples, spec: Spec) -> engine.ImageData:
    """A part of a dataset of images."""
    low, high = spec.dataset.scale
    return engine.ImageData(part.inputs, part.labels, scale=(low, high), classes=dataset.info.classes)


def rows(dataset: Dataset, part: Examples, spec: Spec, preprocessing: Preprocessing) -> engine.TableData:
    """A part of a table."""
    rows = np.empty((len(part), preprocessing.width), spec.dtype.value)
    for start in range(0, len(part), _BLOCK_SIZE):
        block = slice(start, start + _BLOCK_SIZE)
        rows[block] = preprocessing.apply(part.inputs[block], dataset.info.columns)
    if dataset.info.task is Task.REGRESSION:
        return engine.TableData(rows, targets=part.labels)
    return engine.TableData(rows, part.labels, dataset.info.classes)


def initializer(initializer: schema.Initializer) -> Initializer:
    """How weights are drawn."""
    match initializer:
        case schema.Uniform():
            return engine.initializers.uniform(initializer.scale)
        case schema.Glorot():
            return engine.initializers.glorot_uniform
        case schema.He():
            return engine.initializers.he_normal
        case _:
            assert_never(initializer)


def optimizer(optimizer: schema.Optimizer) -> Optimizer:
    """The optimizer of a network."""
    settings = optimizer.model_dump(exclude={"name"})  # the engine has the same names
    match optimizer:
        case schema.Sgd():
            return engine.SGD(**settings)
        case schema.Adam() | schema.AdamW():
            return engine.Adam(**settings)
        case _:
            assert_never(optimizer)


def schedule(schedule: schema.Schedule) -> Schedule:
    """The schedule of a learning rate."""
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
