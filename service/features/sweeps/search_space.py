"""The space of a sweep from texts such as ``optimizer.learning_rate=0.001..0.3``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import click

from service.errors import MalformedJson
from service.spec.fields import SYNONYMS
from service.spec.strict_json import parse_json
from service.wording import value_text
from tapeline.inputs.values import first_seeds, flat_settings

LOG_RATIO: Final = 10
"""A range of positive numbers whose ends have at least this ratio is logarithmic."""
_EXAMPLE: Final = "for example --try optimizer.learning_rate=0.001..0.3 or --try batch_size=50,100"


def space_of(values: Sequence[str], base: Mapping[str, Any]) -> dict[str, Any]:
    """The ``space`` of a sweep.

    Args:
        values: those of ``--try``, with the name of a setting or its last part.
        base: the resolved spec, whose settings may be named by their last part.

    Raises:
        click.UsageError: a value is neither a range nor a list.
    """
    space: dict[str, Any] = {}
    for text in values:
        field, equals, value = text.partition("=")
        if not equals or not all(field.split(".")) or not value:
            raise click.UsageError(f"--try expects FIELD=FROM..TO or FIELD=A,B,C; got {text!r}; {_EXAMPLE}")
        field = _full_name(base, field)
        if field == "seed":
            raise click.UsageError(f"--try {text}: seeds are not a setting to choose; use --seeds {value}")
        if field in space:
            raise click.UsageError(f"--try {field} is given twice: put all of its values in one")
        space[field] = _range_of(text, value, whole=_is_whole(field))
    return space


def seeds_of(text: str) -> list[int]:
    """``5`` is the seeds 0 to 4, ``3,7`` is these two.

    Raises:
        click.UsageError: it is neither.
    """
    try:
        numbers = list(map(int, text.split(",")))
        return numbers if len(numbers) > 1 else first_seeds(numbers[0])
    except ValueError as error:
        reason = f"; {error}" if text.isdecimal() else ""
        raise click.UsageError(
            f"--seeds expects a number of seeds, such as 5, or a list, such as 3,7,11; got {text[:40]!r}{reason}"
        ) from None


def range_text(span: Mapping[str, Any]) -> str:
    """A range of a sweep in words, as on the page: ``50, 100``, ``0.001 to 0.3, log``."""
    if "choice" in span:
        return ", ".join(map(value_text, span["choice"]))
    kind = next(name for name in ("int", "float", "log") if name in span)
    low, high = (f"{bound:g}" for bound in span[kind])
    return (
        f"{low} to {high}" + (", log" if kind == "log" else "") + (f", step {span['step']:g}" if "step" in span else "")
    )


def _range_of(text: str, value: str, *, whole: bool | None) -> dict[str, Any]:
    low, dots, high = value.partition("..")
    if dots and "," not in value:
        bounds = _parsed(low), _parsed(high)
        if not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds):
            raise click.UsageError(f"--try {text}: a range has two numbers, FROM..TO; list other values: A,B,C")
        if not bounds[0] < bounds[1]:
            raise click.UsageError(f"--try {text}: the first number of a range is the smaller one")
        if all(isinstance(bound, int) for bound in bounds) and whole is not False:
            return {"int": list(bounds)}
        return {"log" if bounds[0] > 0 and bounds[1] / bounds[0] >= LOG_RATIO else "float": list(bounds)}
    with suppress(MalformedJson):
        return _choice(text, parse_json(f"[{value}]".encode()))
    return _choice(text, [_parsed(item.strip()) for item in value.split(",")])


def _choice(text: str, values: list[Any]) -> dict[str, Any]:
    if len(values) < 2:
        raise click.UsageError(f"--try {text} has one value: add others, or fix it with --set {text}")
    return {"choice": values}


def _parsed(text: str) -> Any:
    """A value as in ``--set``: what is not JSON is a string."""
    try:
        return parse_json(text.encode())
    except MalformedJson:
        return text


def _full_name(base: Mapping[str, Any], field: str) -> str:
    """The only setting that ends with this name, such as ``learning_rate`` or ``lr``; otherwise the name itself."""
    end = f".{SYNONYMS.get(field, field)}"
    names = [name for name, _ in flat_settings(base) if name.endswith(end)]
    return names[0] if field not in base and len(names) == 1 else field


def _is_whole(field: str) -> bool | None:
    """Whether a setting is a whole number; ``None``: it is unknown, or no number."""
    from service.jobs.queries.setting_schemas import schemas_at, types_of  # lazily: it loads the models of all specs

    types = {name for schema in schemas_at(tuple(field.split("."))) for name in types_of(schema)}
    return "number" not in types if types & {"number", "integer"} else None
