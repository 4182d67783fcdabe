"""Checks that a spec suits tables: settings for images do not apply to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.errors import Fault
from service.spec.schema import ClassifierSpec, GanSpec, Reshape, Spec

TABLE_PRESET: Final = "table"
"""The default preset for tables."""
PHOTO_PRESET: Final = "conv"
"""The default preset for photos and other uploads in colour."""
_OFF: Final = {"max_shift": "0", "flip": "false", "cutout": "0"}
"""The augmentations, with the value that turns each off."""


def table_faults(spec: Spec, document: Mapping[str, Any]) -> list[Fault]:
    """The settings of a spec that do not apply to a table.

    Args:
        spec: resolved.
        document: the spec as it was sent.
    """
    name = spec.dataset.name
    if isinstance(spec, GanSpec):
        detail = f"a GAN generates images, and {name} is a table; train a classifier, or name a dataset of images"
        return [Fault(pointer="#/kind", detail=detail, code="unsuitable", suggestion="classifier")]
    faults = []
    indices = [n for n, layer in enumerate(spec.layers) if layer.for_images or isinstance(layer, Reshape)]
    if indices and "layers" not in document:
        detail = f"preset {spec.preset} is for images, and {name} is a table; use preset {TABLE_PRESET}"
        faults.append(Fault(pointer="#/preset", detail=detail, code="unsuitable", suggestion=TABLE_PRESET))
    elif indices:
        detail = f"is for images, and {name} is a table; use dense layers"
        faults += [
            Fault(pointer=f"#/layers/{index}/type", detail=detail, code="unsuitable", suggestion="dense")
            for index in indices
        ]
    detail = f"is for images, and {name} is a table"
    for field, off in _OFF.items():
        if _is_on(spec, document, field):
            pointer = f"#/augmentation/{field}"
            faults.append(Fault(pointer=pointer, detail=detail, code="unsuitable", suggestion=off))
    return faults


def _is_on(spec: ClassifierSpec, document: Mapping[str, Any], field: str) -> bool:
    """Whether the document itself requests this augmentation; the preset's is ignored for tables."""
    sent = document.get("augmentation")
    return isinstance(sent, dict) and field in sent and bool(getattr(spec.augmentation, field))
