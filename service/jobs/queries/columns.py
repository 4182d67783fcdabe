"""The columns of job lists, by name:

- a fact: ``preset``, ``duration``, ``parent``, ... (all are in ``FACTS``);
- a setting: a dotted path or a JSON pointer into the resolved spec, ``optimizer.learning_rate``, ``/layers/0/units``;
- a metric: ``val_accuracy`` (of the last epoch) or ``best:val_accuracy``; for a metric without a direction, ``min:`` or
  ``max:``.

The set of names does not depend on the stored jobs, so a shared URL stays valid when jobs are deleted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, case

from service.jobs.queries.setting_schemas import is_index, schemas_at, setting_names, types_of
from service.jobs.transitions import shown_error, shown_error_code
from service.spec import metric_info
from service.spec.fields import closest
from service.spec.metric_info import METRICS
from service.spec.presets.definitions import FORMER_NAMES, current_name
from service.spec.strict_json import leaves, pointer_name
from service.storage.tables import Job

MAX_COLUMNS: Final = 50
_MIN_SIMILARITY: Final = 60
"""Minimum similarity of a suggested name, out of 100."""
_METRIC: Final = re.compile(r"(?:(last|best|min|max):)?([a-z][a-z0-9_]*(?:/[A-Za-z0-9_.]{1,60})?)")
_NOT_SETTINGS: Final = {"kind", "preset", "name", "tags", "priority", "seed", "epochs"}
"""Fields of a spec with a fact of the same name."""
_STORED_PRESET: Final = Job.resolved["preset"].as_string()
PRESET: Final[ColumnElement[str]] = case(FORMER_NAMES, value=_STORED_PRESET, else_=_STORED_PRESET)
"""The preset of a job, by its current name."""

Json = Any


class Type(StrEnum):
    """The type of a column's values, which determines their format."""

    TEXT = "text"
    NUMBER = "number"
    METRIC = "metric"
    SECONDS = "seconds"
    BYTES = "bytes"
    TIME = "time"
    """Milliseconds since 1970 here; RFC 3339 in responses."""
    FLAG = "flag"
    JOB = "job"
    """A job's id."""
    JSON = "json"
    """A list or an object."""


class UnknownColumn(ValueError):
    """No column has this name."""

    def __init__(self, name: str, reason: str, suggestion: str | None = None) -> None:
        super().__init__(reason + (f"; did you mean {suggestion!r}?" if suggestion else ""))
        self.name, self.suggestion = name, suggestion


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of job lists."""

    name: str
    label: str
    description: str = ""
    type: Type
    value: Callable[[Job], Json]
    expression: ColumnElement[Any] | None = None
    """The value in SQL, for sorting; ``None``: lists cannot be sorted by it."""
    metric: str | None = None
    """The metric's name, without ``best:``."""
    better: Literal["min", "max"] | None = None
    """Whether lower or higher values are better."""
    percent: bool = False
    needs_spec: bool = False
    """Whether ``value`` reads the resolved spec."""


def parse(name: str) -> Column:
    """The column with this name.

    Raises:
        UnknownColumn: there is none.
    """
    if name in FACTS:
        return FACTS[name]
    column = None if name.startswith("/") else _metric(name)
    column = column or _setting(name)
    if column is None:
        suggestion = closest(name, [*FACTS, *_metric_names(), *setting_names()], similarity=_MIN_SIMILARITY)
        raise UnknownColumn(name, "unknown column", suggestion)
    return column


def occurring(specs: Sequence[Mapping[str, Any]], metrics: set[str]) -> list[tuple[Column, int | None]]:
    """All facts, and the settings and metrics that occur in some jobs.

    Args:
        specs: distinct resolved specs.

    Returns:
        Columns; for a setting, also the number of distinct values among the specs, where absence counts as a value.
    """
    facts: list[tuple[Column, int | None]] = [(column, None) for column in FACTS.values()]
    columns: list[tuple[Column, int | None]] = []
    order = list(METRICS)
    for name in sorted(metrics, key=lambda name: (name.partition("/")[1], _metric_rank(order, name), name)):
        last = _metric(name)
        if last is not None:
            extremes = ("best:",) if last.better else ("min:", "max:")
            columns += [(parse(prefix + name), None) for prefix in extremes] + [(last, None)]
    values: dict[str, list[Json]] = {}
    for spec in specs:
        for path, value in leaves(spec):
            if path[0] not in _NOT_SETTINGS:
                values.setdefault(".".join(path), []).append(value)
    for name, path_values in values.items():
        column = _setting(name)
        if column is not None:
            distinct_count = len({repr(value) for value in path_values}) + (len(path_values) < len(specs))
            columns.append((column, distinct_count))
    return facts + columns


def _metric_rank(order: Sequence[str], name: str) -> int:
    base = name.partition("/")[0]
    return order.index(base) if base in order else len(order)


# Metrics


def _metric(name: str) -> Column | None:
    match = _METRIC.fullmatch(name)
    if match is None or match[2].partition("/")[0] not in METRICS:
        return None
    aggregate, metric = match[1] or "last", match[2]
    is_test = metric.startswith("test_")
    side: Literal["min", "max"] = "max" if aggregate == "max" else "min"
    info = metric_info.describe(metric)
    better = info.better
    if aggregate == "last":
        return Column(
            name=name,
            label=info.label,
            description=info.description if is_test else f"{info.description} Last finished epoch.".strip(),
            type=Type.METRIC,
            value=lambda job: (job.test_scores or {} if is_test else job.metrics).get(metric),
            expression=(Job.test_scores if is_test else Job.metrics)[metric].as_float(),
            metric=metric,
            better=better,
            percent=info.percent,
        )
    if aggregate == "best":
        if better is None:
            raise UnknownColumn(name, f"{metric} has no best value: neither way is better", f"min:{metric}")
        side, word = better, "best"
    else:
        word = "lowest" if aggregate == "min" else "highest"
    return Column(
        name=name,
        label=f"{word} {info.label}",
        description=f"{info.description} The {word} of all epochs.".strip(),
        type=Type.METRIC,
        value=lambda job: job.extremes.get(metric, {}).get(side),
        expression=Job.extremes[(metric, side)].as_float(),
        metric=metric,
        better=better if aggregate == "best" or better == side else None,
        percent=info.percent,
    )


def _metric_names() -> Iterator[str]:
    for name, info in METRICS.items():
        yield name
        yield from (f"best:{name}",) if info.goal else (f"min:{name}", f"max:{name}")


# Settings


def _setting(name: str) -> Column | None:
    segments = [pointer_name(segment) for segment in name[1:].split("/")] if name.startswith("/") else name.split(".")
    schemas = schemas_at(tuple(segments))
    if not schemas:
        return None
    path = tuple(int(segment) if is_index(segment) else segment for segment in segments)
    types = {type_ for schema in schemas for type_ in types_of(schema)} - {"null"}
    value = Job.resolved[path]
    description = next((schema["description"] for schema in schemas if schema.get("description")), "")
    if types and types <= {"number", "integer"}:
        kind, expression = Type.NUMBER, value.as_float()
    elif types == {"string"}:
        kind, expression = Type.TEXT, value.as_string()
    else:
        kind, expression = (Type.FLAG if types == {"boolean"} else Type.JSON), None
    return Column(
        name=name,
        label=".".join(segments),
        description=" ".join(description.split()),
        type=kind,
        value=lambda job: _value_at(job.resolved, path),
        expression=expression,
        needs_spec=True,
    )


def _value_at(document: Json, path: Sequence[str | int]) -> Json:
    for segment in path:
        if isinstance(document, list) and isinstance(segment, int) and segment < len(document):
            document = document[segment]
        elif isinstance(document, Mapping):
            document = document.get(str(segment))
        else:
            return None
    return document


# Facts


def _fact(
    name: str, kind: Type, value: Callable[[Job], Json], expression: ColumnElement[Any] | None = None, **options: Any
) -> tuple[str, Column]:
    label = options.pop("label", name.replace("_", " "))
    return name, Column(name=name, label=label, type=kind, value=value, expression=expression, **options)


def _duration(job: Job) -> float | None:
    """Seconds from the first start to the end."""
    return (job.finished_ms - job.started_ms) / 1000 if job.finished_ms and job.started_ms else None


def _preset(job: Job) -> str | None:
    """``None`` for a prediction, which has none."""
    preset = job.resolved.get("preset")
    return None if preset is None else current_name(preset)


FACTS: Final[dict[str, Column]] = dict(
    [
        _fact("status", Type.TEXT, lambda job: job.status),
        _fact(
            "progress", Type.NUMBER, lambda job: round(min(job.step / job.steps, 1.0), 6) if job.steps else 0.0,
            percent=True, description="Finished fraction of all batches.",
        ),
        _fact(
            "metrics", Type.JSON, lambda job: job.metrics, label="metrics (last epoch)",
            description="All metrics of the last finished epoch.",
        ),
        _fact("created_at", Type.TIME, lambda job: job.created_ms, label="created"),
        _fact("kind", Type.TEXT, lambda job: job.kind, Job.kind.expression),
        _fact(
            "preset", Type.TEXT, _preset, PRESET,
            needs_spec=True, description="Named starting point of the spec.",
        ),
        _fact(
            "dataset", Type.TEXT, lambda job: job.resolved["dataset"]["name"],
            Job.resolved[("dataset", "name")].as_string(), needs_spec=True,
        ),
        _fact(
            "seed", Type.NUMBER, lambda job: job.resolved.get("seed"), Job.resolved["seed"].as_float(), needs_spec=True,
            description="What all randomness comes from.",
        ),
        _fact("duration", Type.SECONDS, _duration, description="From the first start to the end, in seconds."),
        _fact(
            "parent", Type.JOB, lambda job: job.parent_id, Job.parent_id.expression,
            description="The job that this one was forked from, or reproduces.",
        ),
        _fact("name", Type.TEXT, lambda job: job.name),
        _fact("id", Type.TEXT, lambda job: job.id),
        _fact("tags", Type.JSON, lambda job: job.tags),
        _fact("note", Type.TEXT, lambda job: job.note),
        _fact("starred", Type.FLAG, lambda job: job.starred),
        _fact("epoch", Type.NUMBER, lambda job: job.epoch, description="Finished epochs."),
        _fact("epochs", Type.NUMBER, lambda job: job.epochs, Job.epochs.expression, description="Total epochs."),
        _fact(
            "best_epoch", Type.NUMBER, lambda job: job.best_epoch, Job.best_epoch.expression,
            description="The epoch whose checkpoint is called best.",
        ),
        _fact("priority", Type.NUMBER, lambda job: job.priority),
        _fact("started_at", Type.TIME, lambda job: job.started_ms, label="started"),
        _fact("finished_at", Type.TIME, lambda job: job.finished_ms, label="finished"),
        _fact("attempt", Type.NUMBER, lambda job: job.attempt, Job.attempt.expression),
        _fact(
            "steps_per_second", Type.NUMBER, lambda job: job.steps_per_second, Job.steps_per_second.expression,
            label="batches per second",
        ),
        _fact(
            "cpu_seconds", Type.SECONDS, lambda job: job.cpu_seconds, Job.cpu_seconds.expression, label="CPU time",
        ),
        _fact(
            "peak_memory_bytes", Type.BYTES, lambda job: job.peak_memory_bytes, Job.peak_memory_bytes.expression,
            label="peak memory",
        ),
        _fact(
            "size_bytes", Type.BYTES, lambda job: job.size_bytes, Job.size_bytes.expression, label="size of files",
            description="Sum of the sizes of its checkpoints and samples.",
        ),
        _fact(
            "spec", Type.TEXT, lambda job: job.spec_hash, Job.spec_hash.expression,
            description="Hash of the spec: equal for jobs that compute the same.",
        ),
        _fact("result_digest", Type.TEXT, lambda job: job.result_digest, Job.result_digest.expression),
        _fact("error", Type.TEXT, lambda job: (shown_error(job) or {}).get("code"), shown_error_code()),
        _fact("owner", Type.TEXT, lambda job: job.owner),
    ]
)  # fmt: skip
"""By name, in the order in which pages list them."""
