"""Checks one setting of the space of a sweep: that the spec has it, that it may be searched, and its values."""

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

_NOT_SEARCHED: Final = {
    "/kind": "all trials have the same kind",
    "/preset": "all trials have the same preset",
    "/seed": "list the seeds in `seeds`",
    "/name": "it does not affect training",
    "/tags": "it does not affect training",
    "/priority": "it does not affect training",
}
_CHECKED_VALUES: Final = 300
"""Maximum number of values of the space that are checked individually."""


def faults(
    sent: SweepSpec, pointer: str, span: Range, whole: dict[str, Any], prepared: dict[str, Any]
) -> Iterator[Fault]:
    """What is wrong with a setting.

    Args:
        whole: the base with all defaults.
        prepared: the base as sent, in which each value of the setting is tried.
    """
    here = f"#/space/{pointer_step(pointer)}"
    try:
        space.look_up(whole, pointer)
    except (LookupError, ValueError):
        known = list(space.pointers(whole))
        other = _variant_of(pointer, span, prepared)
        near = None if other else closest(pointer, known) or sweep_reading.same_end(pointer, known)
        lacking = other or "; set it in `base` first if it is null or left out"
        hint = f"; did you mean {near!r}?" if near else lacking
        yield _fault(here, f"does not exist in the spec{hint}", "unknown_field", near)
        return
    whole_of = next((other for other in sent.space if pointer.startswith(f"{other}/")), None)
    if whole_of is not None:
        yield _fault(
            here, f"is part of {whole_of}, which is searched as a whole: leave out one of the two", "unsuitable"
        )
        return
    unfit = _NOT_SEARCHED.get(pointer)
    if pointer.startswith("/dataset") and not pointer.startswith("/dataset/scale"):
        unfit = "all trials train on the same dataset with the same split"
    if unfit is not None:
        yield _fault(here, f"cannot be searched: {unfit}", "unsuitable")
        return
    if pointer == space.EPOCHS and sent.halving is not None:
        yield _fault(
            here, "cannot be searched together with halving, which decides how long a trial trains", "unsuitable"
        )
        return
    for place in sweep_reading.repeated(span.choice or ()):
        detail = f"{json.dumps((span.choice or ())[place])} is listed twice"
        yield _fault(f"{here}/choice/{place}", detail, "unsuitable")
    for where, value in itertools.islice(space.bounds_of(span).items(), _CHECKED_VALUES):
        for fault in _faults_of(space.with_settings(prepared, {pointer: value})):
            if fault.pointer.removeprefix("#").startswith(pointer):
                end = where if where.rpartition("/")[2].isdecimal() else where.partition("/")[0]
                yield replace(fault, pointer=f"{here}/{end}", detail=f"{json.dumps(value)}: {fault.detail}")
                break


def _variant_of(pointer: str, span: Range, prepared: dict[str, Any]) -> str | None:
    """That only another variant, such as another optimizer, has this field."""
    try:
        document = space.with_settings(prepared, {pointer: next(iter(space.bounds_of(span).values()))})
    except (LookupError, ValueError, TypeError, AttributeError):
        return None
    of_others = "; only "
    detail = next((fault.detail for fault in _faults_of(document) if fault.pointer == f"#{pointer}"), "")
    return of_others + detail.partition(of_others)[2] if of_others in detail else None


def _faults_of(document: dict[str, Any]) -> tuple[Fault, ...]:
    """The faults of the fields of a spec. Whether layers fit each other is checked later, for whole trials."""
    try:
        validation.resolve(document)
    except SpecError as error:
        return error.faults
    return ()


def _fault(pointer: str, detail: str, code: str, suggestion: str | None = None) -> Fault:
    return Fault(pointer=pointer, detail=detail, code=code, suggestion=suggestion)
