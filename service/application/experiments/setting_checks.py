"""Checks one setting of a sweep's space: that the spec has it, that it can be searched, and its values."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from service.application.experiments import sweep_reading
from service.errors import Fault, SpecError
from service.spec import validation
from service.spec.fields import closest
from service.spec.strict_json import pointer_step
from service.sweeps.schema import Range, SweepSpec
from service.sweeps.search import space

_NOT_SEARCHABLE: Final = {
    "/kind": "all trials have the same kind",
    "/preset": "all trials have the same preset",
    "/seed": "list the seeds in `seeds`",
    "/name": "it does not affect training",
    "/tags": "it does not affect training",
    "/priority": "it does not affect training",
}
_MAX_CHECKED_VALUES: Final = 300
"""Maximum number of values of the space that are checked individually."""


def faults(
    sent: SweepSpec, pointer: str, span: Range, resolved: dict[str, Any], prepared: dict[str, Any]
) -> Iterator[Fault]:
    """The faults of a setting.

    Args:
        resolved: the base with all defaults.
        prepared: the base as sent, in which each value of the setting is tried.
    """
    location = f"#/space/{pointer_step(pointer)}"
    try:
        space.look_up(resolved, pointer)
    except (LookupError, ValueError):
        pointers = list(space.pointers(resolved))
        variant = _explain_variant(pointer, span, prepared)
        suggestion = None if variant else closest(pointer, pointers) or sweep_reading.same_end(pointer, pointers)
        explanation = variant or "; set it in `base` first if it is null or left out"
        hint = f"; did you mean {suggestion!r}?" if suggestion else explanation
        yield _fault(location, f"does not exist in the spec{hint}", "unknown_field", suggestion)
        return
    container = next((outer for outer in sent.space if pointer.startswith(f"{outer}/")), None)
    if container is not None:
        yield _fault(
            location, f"is part of {container}, which is searched as a whole: leave out one of the two", "unsuitable"
        )
        return
    reason = _NOT_SEARCHABLE.get(pointer)
    if pointer.startswith("/dataset") and not pointer.startswith("/dataset/scale"):
        reason = "all trials train on the same dataset with the same split"
    if reason is not None:
        yield _fault(location, f"cannot be searched: {reason}", "unsuitable")
        return
    if pointer == space.EPOCHS and sent.halving is not None:
        yield _fault(
            location, "cannot be searched together with halving, which decides how long a trial trains", "unsuitable"
        )
        return
    for index in sweep_reading.repeated(span.choice or ()):
        detail = f"{json.dumps((span.choice or ())[index])} is listed twice"
        yield _fault(f"{location}/choice/{index}", detail, "unsuitable")
    for bound, value in itertools.islice(space.bounds_of(span).items(), _MAX_CHECKED_VALUES):
        for fault in _faults_of(space.with_settings(prepared, {pointer: value})):
            if fault.pointer.removeprefix("#").startswith(pointer):
                suffix = bound if bound.rpartition("/")[2].isdecimal() else bound.partition("/")[0]
                yield replace(fault, pointer=f"{location}/{suffix}", detail=f"{json.dumps(value)}: {fault.detail}")
                break


def _explain_variant(pointer: str, span: Range, prepared: dict[str, Any]) -> str | None:
    """A note that only another variant, such as another optimizer, has this field, if that is so."""
    try:
        document = space.with_settings(prepared, {pointer: next(iter(space.bounds_of(span).values()))})
    except (LookupError, ValueError, TypeError, AttributeError):
        return None
    marker = "; only "
    detail = next((fault.detail for fault in _faults_of(document) if fault.pointer == f"#{pointer}"), "")
    return marker + detail.partition(marker)[2] if marker in detail else None


def _faults_of(document: dict[str, Any]) -> tuple[Fault, ...]:
    """The faults of a spec's fields. Whether layers fit each other is checked later, for whole trials."""
    try:
        validation.resolve(document)
    except SpecError as error:
        return error.faults
    return ()


def _fault(pointer: str, detail: str, code: str, suggestion: str | None = None) -> Fault:
    return Fault(pointer=pointer, detail=detail, code=code, suggestion=suggestion)
