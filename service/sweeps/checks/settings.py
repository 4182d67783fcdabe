"""Checks the settings of a sweep's space: that the spec has them, that they can be searched, and their values."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from service.errors import Fault, SpecError
from service.spec import strict_json, validation
from service.spec.faults import MAX_FAULTS
from service.spec.fields import SYNONYMS, closest
from service.spec.strict_json import pointer_step
from service.sweeps.checks import reading
from service.sweeps.schema import Range, SweepSpec
from service.sweeps.search import space
from tapeline.inputs.values import dotted

_NOT_SEARCHABLE: Final = {
    "/kind": "all trials have the same kind",
    "/preset": "all trials have the same preset",
    "/seed": "list the seeds in `seeds`",
    "/name": "it does not affect training",
    "/tags": "it does not affect training",
    "/priority": "it does not affect training",
    "/budget": "it does not affect training",
}
_MAX_CHECKED_VALUES: Final = 300
"""Maximum number of values of a setting that are checked."""


def faults(
    sent: SweepSpec, spans: Mapping[str, Range], resolved: dict[str, Any], prepared: dict[str, Any]
) -> list[Fault]:
    """The faults of settings, in their order. Values are checked until ``MAX_FAULTS`` of them have faults.

    Args:
        spans: the settings to check, all of which are in the space of ``sent``.
        resolved: the base with all defaults.
        prepared: the base as sent, in which the values of the settings are tried.
    """
    found: dict[str, list[Fault]] = {}
    values: dict[str, list[tuple[str, Any]]] = {}
    for pointer, span in spans.items():
        refusal = _refusal(sent, pointer, span, resolved, prepared)
        if refusal is not None:
            found[pointer] = [refusal]
            continue
        found[pointer] = list(_repetitions(pointer, span))
        values[pointer] = list(itertools.islice(space.bounds_of(span).items(), _MAX_CHECKED_VALUES))
    for pointer, fault in itertools.islice(_faults_of_values(values, prepared), MAX_FAULTS):
        found[pointer].append(fault)
    return [fault for pointer_faults in found.values() for fault in pointer_faults]


def _refusal(
    sent: SweepSpec, pointer: str, span: Range, resolved: dict[str, Any], prepared: dict[str, Any]
) -> Fault | None:
    """The fault of a setting that cannot be searched, whatever its values."""
    location = f"#/space/{pointer_step(pointer)}"
    try:
        space.look_up(resolved, pointer)
    except (LookupError, ValueError):
        pointers = strict_json.pointers(resolved)
        variant = _explain_variant(pointer, span, prepared)
        outer, _, name = pointer.rpartition("/")
        named = f"{outer}/{SYNONYMS.get(name, name)}"
        match = None if variant else closest(named, pointers) or reading.same_end(named, pointers)
        suggestion = dotted(match) if match else None
        explanation = variant or "; set it in `base` first if it is null or left out"
        hint = f"; did you mean {suggestion!r}?" if suggestion else explanation
        return _fault(location, f"does not exist in the spec{hint}", "unknown_field", suggestion)
    container = next((outer for outer in sent.space if pointer.startswith(f"{outer}/")), None)
    if container is not None:
        detail = f"is part of {dotted(container)}, which is searched as a whole: leave out one of the two"
        return _fault(location, detail, "unsuitable")
    reason = _NOT_SEARCHABLE.get(pointer)
    if pointer.startswith("/dataset") and not pointer.startswith("/dataset/scale"):
        reason = "all trials train on the same dataset with the same split"
    if reason is not None:
        return _fault(location, f"cannot be searched: {reason}", "unsuitable")
    if pointer == space.EPOCHS and sent.halving is not None:
        detail = "cannot be searched together with halving, which decides how long a trial trains"
        return _fault(location, detail, "unsuitable")
    return None


def _repetitions(pointer: str, span: Range) -> Iterator[Fault]:
    for index in reading.repeated(span.choice or ()):
        detail = f"{json.dumps((span.choice or ())[index])} is listed twice"
        yield _fault(f"#/space/{pointer_step(pointer)}/choice/{index}", detail, "unsuitable")


def _faults_of_values(
    values: Mapping[str, Sequence[tuple[str, Any]]], prepared: dict[str, Any]
) -> Iterator[tuple[str, Fault]]:
    """The faults of values, each with the pointer of its setting.

    Args:
        values: for each setting, its values with their pointers relative to its range.
    """
    for index in range(max(map(len, values.values()), default=0)):
        # One value of each setting at a time: a spec of many settings takes as long as one of a single setting.
        row = {pointer: entries[index] for pointer, entries in values.items() if index < len(entries)}
        while row:
            error = _error_of(space.with_settings(prepared, {name: value for name, (_, value) in row.items()}))
            if error is None:
                break
            all_described = len(error.faults) == error.total
            suspects = [pointer for pointer in row if all_described and _fault_at(pointer, error)] or list(row)
            for pointer in suspects:
                bound, value = row.pop(pointer)
                # By itself: a field may only be missing in another variant, such as another optimizer.
                fault = _fault_at(pointer, _error_of(space.with_settings(prepared, {pointer: value})))
                if fault is not None:
                    suffix = bound if bound.rpartition("/")[2].isdecimal() else bound.partition("/")[0]
                    location = f"#/space/{pointer_step(pointer)}/{suffix}"
                    yield pointer, replace(fault, pointer=location, detail=f"{json.dumps(value)}: {fault.detail}")


def _fault_at(pointer: str, error: SpecError | None) -> Fault | None:
    faults_found = () if error is None else error.faults
    return next((fault for fault in faults_found if fault.pointer.removeprefix("#").startswith(pointer)), None)


def _explain_variant(pointer: str, span: Range, prepared: dict[str, Any]) -> str | None:
    """A note that only another variant, such as another optimizer, has this field, if that is so."""
    try:
        document = space.with_settings(prepared, {pointer: next(iter(space.bounds_of(span).values()))})
    except (LookupError, ValueError, TypeError, AttributeError):
        return None
    marker = "; only "
    error = _error_of(document)
    all_faults = () if error is None else error.faults
    detail = next((fault.detail for fault in all_faults if fault.pointer == f"#{pointer}"), "")
    return marker + detail.partition(marker)[2] if marker in detail else None


def _error_of(document: dict[str, Any]) -> SpecError | None:
    """The faults of a spec's fields. Whether layers fit each other is checked later, for whole trials."""
    try:
        validation.resolve(document)
    except SpecError as error:
        return error
    return None


def _fault(pointer: str, detail: str, code: str, suggestion: str | None = None) -> Fault:
    return Fault(pointer=pointer, detail=detail, code=code, suggestion=suggestion)
