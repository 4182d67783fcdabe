"""Reads the well-formed parts of the body of ``POST /sweeps``; they are checked despite faults in others."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from service.errors import Fault, SpecError
from service.spec import validation
from service.spec.faults import MAX_FAULTS
from service.spec.strict_json import pointer_name, pointer_of, pointer_step
from service.sweeps.schema import Range, SweepSpec
from service.sweeps.search import space

_MAX_STEPPED_VALUES: Final = 10**9
"""Maximum number of values of a range of floats with a step."""
_MAX_INTEGER: Final = 2**53 - 1
_ROUNDS: Final = 3
"""An object is validated as a whole only after its fields."""


@dataclass(slots=True)
class Reading:
    """A sweep without its malformed parts."""

    sent: SweepSpec
    faults: list[Fault] = field(default_factory=list)
    total: int = 0
    """The number of faults; the first hundred are described."""
    left_out: set[str] = field(default_factory=set)
    """Names of the fields that are left out in full or in part."""


def read(document: Any) -> Reading:
    """Read a sweep.

    Raises:
        SpecError: it has faults, and no other part of it can be checked.
    """
    remaining, faults, total, left_out = document, list[Fault](), 0, set[str]()
    for _ in range(_ROUNDS):
        try:
            sent = validation.read_body(SweepSpec, remaining)
            break
        except SpecError as error:
            faults += error.faults
            total += error.total
            steps = [space.steps_of(fault.pointer[1:] or "/") for fault in error.faults]
            all_described = len(error.faults) == error.total  # otherwise some are not named, and cannot be left out
            if not all_described or not isinstance(remaining, dict) or any(step[0] in ("", "base") for step in steps):
                raise SpecError(faults[:MAX_FAULTS], total=total) from error
            remaining = _without(remaining, steps)
            left_out |= {step[0] for step in steps}
    else:
        raise SpecError(faults[:MAX_FAULTS], total=total)
    for pointer, span in list(sent.space.items()):
        too_large = list(_faults_of_size(pointer, span))
        if too_large:
            faults += too_large
            total += len(too_large)
            left_out.add("space")
            del sent.space[pointer]
    return Reading(sent, faults, total, left_out)


def with_pointers(document: Any) -> tuple[Any, dict[str, str]]:
    """A sweep with JSON pointers as names of its settings, and the names that were sent, by pointer.

    Raises:
        SpecError: a setting is named in both notations.
    """
    settings = document.get("space") if isinstance(document, dict) else None
    if not isinstance(settings, dict):
        return document, {}
    names: dict[str, str] = {}
    for name in settings:
        if (pointer := pointer_of(name)) in names:
            detail = f"is the same setting as {names[pointer]}: leave out one of the two"
            raise SpecError([Fault(pointer=f"#/space/{pointer_step(name)}", detail=detail, code="unsuitable")])
        names[pointer] = name
    return document | {"space": {pointer: settings[name] for pointer, name in names.items()}}, names


def relocate_faults(error: SpecError, names: Mapping[str, str]) -> SpecError:
    """The error with locations in the sweep that was sent, whose settings have these names by pointer."""
    faults = []
    for fault in error.faults:
        field_name, _, rest = fault.pointer.removeprefix("#/").partition("/")
        step, slash, below = rest.partition("/")
        name = names.get(pointer_name(step)) if field_name == "space" and rest else None
        if name is not None:
            fault = replace(fault, pointer=f"#/space/{pointer_step(name)}{slash}{below}")
        faults.append(fault)
    return SpecError(faults, total=error.total)


def without(document: dict[str, Any], faults: Sequence[Fault]) -> dict[str, Any]:
    """A copy of a document without those of its fields that have faults."""
    names = {space.steps_of(fault.pointer[1:] or "/")[0] for fault in faults}
    return {name: value for name, value in document.items() if name not in names}


def repeated(values: Sequence[Any]) -> Iterator[int]:
    """The indices of values that are equal to an earlier one; ``1`` and ``1.0`` are equal."""
    seen = set[str]()
    for index, value in enumerate(values):
        key = json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value, sort_keys=True)
        if key in seen:
            yield index
        seen.add(key)


def follows(fault: Fault, left_out: Collection[str], faulty_fields: Collection[str]) -> bool:
    """Whether a fault may merely follow from fields of the sweep that were left out, or from
    ``faulty_fields`` of its base."""
    derived = {"#/space", "#/halving", "#/search/trials", "#/budget/epochs", "#/parallel", "#/seeds"}
    if fault.pointer in derived and {"space", "search"} & set(left_out):
        return True
    if "epochs" in faulty_fields and fault.pointer in ("#/halving/min_epochs", "#/budget/epochs"):
        return True
    if "space" in left_out and fault.pointer.startswith("#/base/") and fault.code == "missing":
        return True
    return any(fault.pointer.startswith(f"#/{name}") for name in left_out if name != "space")


def same_end(pointer: str, pointers: list[str]) -> str | None:
    """The pointer to a field of the same name elsewhere in the spec."""
    field_name = pointer.rpartition("/")[2]
    return next((name for name in pointers if field_name and name.rpartition("/")[2] == field_name), None)


def _without(document: dict[str, Any], pointers: Sequence[Sequence[str]]) -> dict[str, Any]:
    """A copy of a sweep without these parts: settings of the space one by one, other fields as a whole."""
    remaining = copy.deepcopy(document)
    for name, *path in pointers:
        if name == "space" and path and isinstance(remaining.get(name), dict):
            remaining[name].pop(path[0], None)
        else:
            remaining.pop(name, None)
    return remaining


def _faults_of_size(pointer: str, span: Range) -> Iterator[Fault]:
    """The faults of a range that is too large to be counted."""
    location = f"#/space/{pointer_step(pointer)}"
    for index, bound in enumerate(span.integers or ()):
        if abs(bound) > _MAX_INTEGER:
            limit = (
                f"less than or equal to {_MAX_INTEGER}" if bound > 0 else f"greater than or equal to {-_MAX_INTEGER}"
            )
            yield Fault(pointer=f"{location}/int/{index}", detail=f"must be {limit}", code="out_of_range")
    if span.floats is not None and span.step is not None:
        low, high = span.floats
        if (high - low) / span.step >= _MAX_STEPPED_VALUES:
            detail = f"the range has more than {_MAX_STEPPED_VALUES:,} values; use a larger step, or none"
            yield Fault(pointer=location, detail=detail, code="too_large")
