"""Advice for each finding: settings that the spec does not have yet and that fit its data.

Advice contains its settings as data, so that they are checked before they are shown: what the service would
reject (a shift of a table's rows, a penalty for a discriminator with batch normalization) is omitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.errors import SpecError
from service.kinds import rooms
from service.kinds.advice import Case
from service.schema.findings import Advice
from service.schema.layer_shapes import Shape
from service.spec.dataset_checks import check_fit, table_faults
from service.spec.schema import (
    Spec,
)
from service.spec.validation import overlaid
from service.states import DatasetKind, FindingCode


def suggestions(
    code: FindingCode, spec: Spec, shape: Shape, *, is_stuck: bool = False, is_fork: bool = False
) -> list[Advice]:
    """The advice for a finding, best first. All settings are valid for a new job with this spec and data.

    Args:
        is_stuck: whether a GAN's generator hardly moves.
        is_fork: whether the first weights are those of a checkpoint: no initializer is suggested then.
    """
    case = Case(spec=spec, is_stuck=is_stuck, is_fork=is_fork)
    advice = rooms.specs(spec.kind).diagnosis.advice[code](case)
    return [
        item for item in advice if not (is_fork and "initializer" in item.settings) and _is_valid(item, spec, shape)
    ]


def _is_valid(advice: Advice, spec: Spec, shape: Shape) -> bool:
    settings = document(advice.settings)
    if not settings or "preset" in settings or "dataset" in settings:  # other data has another shape
        return True
    try:
        changed_spec = overlaid(spec, settings)
        check_fit(changed_spec, shape)
    except SpecError:
        return False
    return shape.kind is not DatasetKind.TABLE or not table_faults(changed_spec, settings, shape.task)


def document(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name as the part of a spec that they make up."""
    nested: dict[str, Any] = {}
    for setting, value in settings.items():
        *path, leaf = setting.split(".")
        node = nested
        for name in path:
            node = node.setdefault(name, {})
        node[leaf] = value
    return nested
