"""A metric within bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, StringConstraints
from pydantic_core import PydanticCustomError

from service.features.registry.gates.kinds import Checked, Document, Finding, Form, GateKind
from service.schema.base import StrictModel
from service.spec.fields import suggest_metric
from service.spec.metric_info import METRICS, describe, number
from service.storage.tables import Epoch


def _known(name: str) -> str:
    if name.partition("/")[0] in METRICS:
        return name
    hint = suggest_metric(name, list(METRICS), "known are")
    raise PydanticCustomError("unknown_metric", "no job reports {name}; {hint}", {"name": repr(name), "hint": hint})


class Fields(StrictModel):
    """Its fields."""

    metric: Annotated[str, StringConstraints(max_length=200), AfterValidator(_known)] | None = None
    """With `min` or `max`: a metric at the version's epoch; `test_` metrics are those of the job's test part. With
    `better_than`: what is compared, the best of all epochs of each job."""
    min: float | None = None
    max: float | None = None


def _check_fields(gate: Fields) -> None:
    if gate.min is None and gate.max is None:
        raise PydanticCustomError("no_bound", "needs `min`, `max` or both")
    if gate.min is not None and gate.max is not None and gate.min > gate.max:
        raise PydanticCustomError("no_value", "`min` is above `max`: no value meets both")


def _check(checked: Checked, gate: Document) -> Finding:
    name, low, high, bounds = gate["metric"], gate.get("min"), gate.get("max"), _bounds(gate)
    value, why = _value(checked, name)
    if value is None:
        sentence = f"{name} must be {bounds}, and {checked.reference} has no value of it: {why}"
        return Finding(gate=gate, passed=False, sentence=sentence, evidence={"value": None})
    passed = (low is None or value >= low) and (high is None or value <= high)
    sentence = f"{name} is {number(name, value)}; it must be {bounds}"
    return Finding(
        gate=gate, passed=passed, sentence=sentence, evidence={"value": value, "epoch": checked.version.epoch}
    )


def _value(checked: Checked, name: str) -> tuple[float | None, str]:
    """The value of a metric for the version's weights, or why there is none."""
    job, epoch = checked.job, checked.version.epoch
    if name.startswith("test_"):
        scores = job.test_scores or {}
        if name not in scores:
            return None, f"job {job.id} has no scores on a test part" if not scores else _reported(name, scores)
        if scores.get("test_epoch") != epoch:
            return None, f"the test part was scored with the weights of epoch {scores['test_epoch']}, not {epoch}"
        return float(scores[name]), ""
    row = checked.session.get(Epoch, (job.id, epoch))
    metrics = row.metrics if row is not None else {}
    value = metrics.get(name)
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value), ""
    if name in metrics:
        return None, f"it was not finite in epoch {epoch}"
    if name in job.extremes:
        return None, f"it was not measured in epoch {epoch}"
    return None, _reported(name, metrics)


def _reported(name: str, metrics: Mapping[str, Any]) -> str:
    return f"its job does not report it; {suggest_metric(name, sorted(metrics), 'it reports')}"


def _bounds(gate: Document) -> str:
    words = (("at least", gate.get("min")), ("at most", gate.get("max")))
    return " and ".join(f"{word} {number(gate['metric'], bound)}" for word, bound in words if bound is not None)


KIND: Final = GateKind(
    key="metric",
    fields=Fields,
    valid=_check_fields,
    check=_check,
    text=lambda gate: f"{describe(gate['metric']).label} {_bounds(gate)}",
    form=Form(
        name="Metric",
        texts=("metric",),
        begins={"metric": "", "min": ""},
        labels={"metric": "Metric", "min": "at least", "max": "at most"},
    ),
    example={"metric": "val_accuracy", "min": 0.97},
    other="max",
    noun="a metric within bounds",
    named="`metric` with `min` or `max`",
)
