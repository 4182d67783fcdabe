"""What a spec will cost: parameters, bytes, and seconds once this service has seen such work."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.contract.spec import Adam, ClassifierSpec, Dense, DType, GanSpec, Kind, Optimizer, Sgd, Spec
from service.contract.states import Status
from service.contract.tables import Epoch, Job
from service.contract.validation import Shape, count_parameters

_LOOK_BACK: Final = 10
"""So many finished jobs tell how fast this service is."""


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
            activations = _units(shape.pixels, spec.layers)
        case GanSpec():
            made = spec.generator.optimizer or spec.optimizer
            judged = spec.discriminator.optimizer or spec.optimizer
            slots = parameters * max(_slots(made), _slots(judged))
            activations = _units(spec.latent.dim, spec.generator.layers)
            activations += 2 * _units(shape.pixels, spec.discriminator.layers)
    data = shape.train_count * shape.pixels * (1 + item)
    return Plan(
        parameters=parameters,
        steps=total_steps(spec, shape.train_count),
        estimated_bytes=data + item * (2 * parameters + slots + 2 * activations * spec.batch_size),
        checkpoint_bytes=item * (parameters + slots),
        estimated_seconds=_seconds(session, spec, shape),
    )


def total_steps(spec: Spec, train_count: int) -> int:
    """Batches of the whole run; the last of an epoch may be short."""
    return spec.epochs * math.ceil(train_count / spec.batch_size)


def work(resolved: dict[str, Any], steps: int) -> float:
    """Multiplications of a whole run, up to a factor that is the same for all jobs of a kind."""
    networks = [resolved] if resolved["kind"] == Kind.CLASSIFIER else [resolved["generator"], resolved["discriminator"]]
    products: int = 0
    for network in networks:
        units: list[int] = [layer["units"] for layer in network["layers"] if "units" in layer]
        # The first layer's inputs are the data's, nearly the same for all jobs: one more layer's worth.
        products += 784 * units[0] + sum(a * b for a, b in itertools.pairwise(units))
    return float(products * resolved["batch_size"] * steps)


def _slots(optimizer: Optimizer) -> int:
    match optimizer:
        case Adam():
            return 2
        case Sgd():
            return 1 if optimizer.momentum else 0


def _units(inputs: int, layers: list[Any]) -> int:
    return inputs + sum(layer.units for layer in layers if isinstance(layer, Dense))


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
