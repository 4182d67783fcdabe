"""What a spec will cost: parameters, bytes, and seconds once this service has seen such work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.contract import costs
from service.contract.architecture import networks
from service.contract.costs import looks, total_steps
from service.contract.spec import Spec
from service.contract.states import Status
from service.contract.tables import Epoch, Job
from service.contract.validation import Shape, read_resolved

_LOOK_BACK: Final = 10
"""So many finished jobs tell how fast this service is."""
_SIDE: Final = 28
"""Rows and columns that pictures are taken to have where only speeds are compared."""
_TOUCHED: Final = 40
"""Multiplications of a product that take as long as all that is done besides to one output of a layer: its bias and
activation, patches, their gradients. Measured on a network with convolutions."""


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
    return Plan(
        parameters=costs.parameters(spec, shape),
        steps=total_steps(spec, shape.train_count),
        estimated_bytes=costs.peak_bytes(spec, shape),
        checkpoint_bytes=costs.checkpoint_bytes(spec, shape),
        estimated_seconds=_seconds(session, spec, shape),
    )


def work(resolved: dict[str, Any], steps: int) -> float:
    """Multiplications of a whole run, up to a factor that is the same for all jobs of a kind."""
    # The size of the pictures is the data's, nearly the same for all jobs; what does not fit it is walked through too.
    spec = read_resolved(resolved)
    a_picture = sum(
        looks(network) * (placed.products + _TOUCHED * placed.outputs)
        for network in networks(spec, _SIDE, _SIDE)
        for placed in network.placed
    )
    return float(a_picture * spec.batch_size * steps)


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
