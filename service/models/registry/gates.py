"""Gates of an alias: what a version must meet before the alias moves to it, and what is found when it is checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from service.spec.fields import suggest_metric
from service.spec.metric_info import METRICS, describe
from service.spec.schema import StrictModel
from service.statistics import CONFIDENCE

MAX_GATES: Final = 20
MAX_SEEDS: Final = 50
_NAME: Final = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
NAME: Final = re.compile(_NAME)
"""Names of models and aliases."""
_NUMBER: Final = re.compile(r"v?\d+")
LATEST: Final = "latest"
"""An alias that nobody sets: it is always the newest version."""


def is_reserved(alias: str) -> bool:
    """Whether an alias could be taken for the newest version, or for a number."""
    return alias == LATEST or _NUMBER.fullmatch(alias) is not None


def _metric(name: str) -> str:
    if name.partition("/")[0] in METRICS:
        return name
    hint = suggest_metric(name, list(METRICS), "known are")
    raise PydanticCustomError("unknown_metric", "no job reports {name}; {hint}", {"name": repr(name), "hint": hint})


def _target(text: str) -> str:
    if text.startswith("@") and is_reserved(text[1:]):
        detail = "no alias can be {name}, so there would never be anything to surpass; name another, or `:NUMBER`"
        raise PydanticCustomError("reserved", detail, {"name": repr(text[1:])})
    return text


class Gate(StrictModel):
    """One condition: a metric within bounds, `better_than`, `reproduced`, `certificate`, `max_bytes` or `approvals`."""

    metric: Annotated[str, StringConstraints(max_length=200), AfterValidator(_metric)] | None = None
    """With `min` or `max`: a metric at the version's epoch; `test_` metrics are those of the job's test part. With
    `better_than`: what is compared, the best of all epochs of each job."""
    min: float | None = None
    max: float | None = None
    better_than: (
        Annotated[str, StringConstraints(pattern=rf"^(?:@{_NAME}|:[1-9]\d{{0,8}})$"), AfterValidator(_target)] | None
    ) = None
    """The settings of the version must be better than those of another one, over several seeds: that of an alias of
    the same model (`@champion`), or a version (`:3`). The gate is met
    while the alias has never held a version; of a removed alias, the version that it held last counts."""
    seeds: Annotated[int, Field(ge=2, le=MAX_SEEDS)] | None = None
    """Number of seeds with which both settings are trained (default: 5). They follow from the settings, so that nobody
    chooses them."""
    confidence: Annotated[float, Field(ge=0.5, le=0.9999)] | None = None
    """Of the two-sided interval of the difference (default: 0.95). Its lower end must be above `margin`."""
    margin: Annotated[float, Field(ge=0)] | None = None
    """In the unit of the metric (default: 0)."""
    reproduced: Literal[True] | None = None
    """The job must have been reproduced with the same bits."""
    certificate: Literal[True] | None = None
    """The checkpoint must have a certificate that verifies with a key of this service."""
    max_bytes: Annotated[int, Field(ge=1, le=2**62)] | None = None
    """The largest size of the checkpoint."""
    approvals: Annotated[int, Field(ge=1, le=100)] | None = None
    """Number of keys that must have approved the version: of the owner, or of admins, but not the one that registered
    it."""

    @model_validator(mode="after")
    def _is_one_condition(self) -> Self:
        given = set(self.model_dump(exclude_none=True))
        kind = next((name for name in _FIELDS if name != "metric" and name in given), "metric")
        if not given or not given <= _FIELDS[kind]:
            kinds = (
                "`metric` with `min` or `max`, `better_than`, `reproduced`, `certificate`, `max_bytes` or `approvals`"
            )
            raise PydanticCustomError("not_one_condition", "must be one condition: {kinds}", {"kinds": kinds})
        if kind == "metric":
            if self.min is None and self.max is None:
                raise PydanticCustomError("no_bound", "needs `min`, `max` or both")
            if self.min is not None and self.max is not None and self.min > self.max:
                raise PydanticCustomError("no_value", "`min` is above `max`: no value meets both")
        if kind == "better_than":
            if self.metric is None:
                raise PydanticCustomError("no_metric", "`better_than` needs the `metric` to compare")
            if describe(self.metric).goal is None:
                detail = "neither high nor low values of {name} are better: choose a metric with a direction"
                raise PydanticCustomError("no_direction", detail, {"name": repr(self.metric)})
        return self

    def document(self) -> dict[str, Any]:
        """As JSON: the fields that apply, with their defaults."""
        defaults = {"seeds": 5, "confidence": CONFIDENCE, "margin": 0.0} if self.better_than is not None else {}
        return defaults | self.model_dump(mode="json", exclude_none=True)


_FIELDS: Final = {
    "better_than": {"better_than", "metric", "seeds", "confidence", "margin"},
    "reproduced": {"reproduced"},
    "certificate": {"certificate"},
    "max_bytes": {"max_bytes"},
    "approvals": {"approvals"},
    "metric": {"metric", "min", "max"},
}
"""The fields of each kind of gate."""


class GatesRequest(StrictModel):
    """What a version must meet before an alias moves to it."""

    gates: Annotated[list[Gate], Field(max_length=MAX_GATES)]
    """An empty list: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A request that supplies what a gate needs."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found when a gate was checked."""

    gate: Mapping[str, Any]
    passed: bool
    sentence: str
    """The result in words."""
    evidence: Mapping[str, Any]
    """The numbers and ids on which it is based."""
    remedies: Sequence[Remedy] = ()
    """Requests that would supply what is missing. Empty: nothing is missing, or no request would help."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)
