"""What a spec will cost: parameters, bytes, and seconds once this service has seen such work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.contract.architecture import Network, networks
from service.contract.spec import Adam, AdamW, BatchNorm, ClassifierSpec, DType, GanSpec, Optimizer, Sgd, Spec
from service.contract.states import Status
from service.contract.tables import Epoch, Job
from service.contract.validation import Shape, count_parameters, read_resolved

_LOOK_BACK: Final = 10
"""So many finished jobs tell how fast this service is."""
_SIDE: Final = 28
"""Rows and columns that pictures are taken to have where only speeds are compared."""
_TOUCHED: Final = 40
"""Multiplications of a product that take as long as all that is done besides to one output of a layer: its bias and
activation, patches, their gradients. Measured on a network with convolutions."""
_EVALUATED: Final = 500
_EVALUATED_NUMBERS: Final = 2**21
"""The engine evaluates so many pictures at a time, or fewer, such that no layer makes more numbers."""
_PROBED: Final = 128
"""Pictures that a network's health is measured on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The size of a training."""

    parameters: int
    steps: int
    estimated_bytes: int
    """Peak memory: data set, weights, gradients, optimiser and activations."""
    checkpoint_bytes: int
    estimated_seconds: float | None
    """``None`` until a job of this kind has been finished here."""


def plan(session: Session, spec: Spec, shape: Shape) -> Plan:
    """Estimate what a checked spec will cost."""
    item = 8 if spec.dtype is DType.FLOAT64 else 4
    parameters = count_parameters(spec, shape)
    match spec:
        case ClassifierSpec():
            slots = parameters * _slots(spec.optimizer)
            average_decay = spec.average_decay
        case GanSpec():
            made = spec.generator.optimizer or spec.optimizer
            judged = spec.discriminator.optimizer or spec.optimizer
            slots = parameters * max(_slots(made), _slots(judged))
            average_decay = spec.generator.average_decay
    found = networks(spec, shape.rows, shape.columns)
    activations = sum(_memory(spec, network, item) for network in found)
    statistics = sum(placed.statistics for network in found for placed in network.placed)
    if average_decay is not None:  # of the classifier, or of the generator
        slots += sum(placed.weights + placed.statistics for placed in found[0].placed)
    data = shape.train_count * shape.pixels * (1 + item)
    return Plan(
        parameters=parameters,
        steps=total_steps(spec, shape.train_count),
        estimated_bytes=data + item * (2 * parameters + slots + statistics) + activations,
        checkpoint_bytes=item * (parameters + slots + statistics),
        estimated_seconds=_seconds(session, spec, shape),
    )


def total_steps(spec: Spec, train_count: int) -> int:
    """Batches of the whole run; the last of an epoch may be short."""
    return spec.epochs * math.ceil(train_count / spec.batch_size)


def work(resolved: dict[str, Any], steps: int) -> float:
    """Multiplications of a whole run, up to a factor that is the same for all jobs of a kind."""
    # The size of the pictures is the data's, nearly the same for all jobs; what does not fit it is walked through too.
    spec = read_resolved(resolved)
    a_picture = sum(
        _looks(network) * (placed.products + _TOUCHED * placed.outputs)
        for network in networks(spec, _SIDE, _SIDE)
        for placed in network.placed
    )
    return float(a_picture * spec.batch_size * steps)


def _looks(network: Network) -> int:
    """How many pictures a network works on in one step, for each of the batch: a discriminator sees fakes too."""
    return 2 if network.where.startswith("discriminator") else 1


def _memory(spec: Spec, network: Network, item: int) -> int:
    """Bytes for what a network makes of a batch, forward and backward, or of the pictures of an evaluation."""
    made = [placed.outputs * (2 if isinstance(placed.layer, BatchNorm) else 1) for placed in network.placed]
    numbers = _looks(network) * (math.prod(network.input_size) + sum(made))
    row = max(placed.patches for placed in network.placed)
    largest = max(placed.outputs for placed in network.placed)
    evaluated = min(_EVALUATED, max(1, _EVALUATED_NUMBERS // largest))
    training = spec.batch_size * (2 * numbers + row)
    # Looking keeps what a layer gets and makes, and a copy or two between them.
    looking = max(evaluated, spec.samples.count) * (4 * largest + row)
    return item * max(training, looking, _PROBED * numbers)


def _slots(optimizer: Optimizer) -> int:
    match optimizer:
        case Adam() | AdamW():
            return 2
        case Sgd():
            return 1 if optimizer.momentum else 0


def _seconds(session: Session, spec: Spec, shape: Shape) -> float | None:
    recent = (
        select(Job.id)
        .where(Job.status == Status.SUCCEEDED, Job.kind == spec.kind, Job.start_epoch == 0)
        .order_by(Job.created_ms.desc(), Job.id.desc())
        .limit(_LOOK_BACK)
    )
    # PostgreSQL cannot group by a JSON column, but lets columns pass that hang on the grouped primary key.
    finished = (
        select(Job.resolved, Job.steps, func.sum(Epoch.seconds))
        .join(Epoch, Epoch.job_id == Job.id)
        .where(Job.id.in_(recent.scalar_subquery()))
        .group_by(Job.id)
    )
    rates: list[float] = [
        work(resolved, steps) / total for resolved, steps, total in session.execute(finished) if total
    ]
    if not rates:
        return None
    rate = sorted(rates)[len(rates) // 2]
    return round(work(spec.model_dump(mode="json"), total_steps(spec, shape.train_count)) / rate, 1)
