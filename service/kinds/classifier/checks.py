"""What classifiers say about specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from service.errors import Fault
from service.kinds.classifier import presets
from service.kinds.classifier.diagnosis import DIAGNOSIS
from service.kinds.classifier.spec import ClassifierSpec, LossName
from service.kinds.last_layers import check_activation, check_last_layer
from service.kinds.resizing import object_of, with_values
from service.kinds.specs import SpecsOfKind
from service.kinds.supervised.networks import adapt_layers, networks
from service.schema.layer_shapes import Network, Shape
from service.schema.layers import Activation

_LAST_ACTIVATION: Final = {
    LossName.SOFTMAX_CROSS_ENTROPY: Activation.SOFTMAX,
    LossName.BINARY_CROSS_ENTROPY: Activation.SIGMOID,
}
"""The activations that losses need."""
_OFF: Final = {"max_shift": "0", "flip": "false", "cutout": "0"}
"""The augmentations, with the value that turns each off."""


def _faults(spec: ClassifierSpec, networks: Sequence[Network], shape: Shape) -> list[Fault]:
    reason = f"one for each class of {spec.dataset.name}"
    faults = check_last_layer(networks[0], (shape.classes,), (1, 1, shape.classes), reason)
    if (activation := _LAST_ACTIVATION.get(spec.loss.name)) is not None:
        faults += check_activation(networks[0], activation, f"required by {spec.loss.name}")
    if spec.loss.class_weights is not None and spec.loss.name is not LossName.SOFTMAX_CROSS_ENTROPY:
        detail = f"is for softmax_cross_entropy; the loss is {spec.loss.name}"
        faults.append(Fault(pointer="#/loss/class_weights", detail=detail, code="unsuitable"))
    side = min(shape.rows, shape.columns)
    for field in ("max_shift", "cutout"):
        if getattr(spec.augmentation, field) >= side:
            detail = f"must be less than {side}, the shorter side of the images of {spec.dataset.name}"
            faults.append(Fault(pointer=f"#/augmentation/{field}", detail=detail, code="out_of_range"))
    return faults


def _table_faults(spec: ClassifierSpec, document: Mapping[str, Any]) -> list[Fault]:
    """The augmentations that the document itself asks for; those of the preset are ignored for tables."""
    detail, sent = f"is for images, and {spec.dataset.name} is a table", object_of(document, "augmentation")
    return [
        Fault(pointer=f"#/augmentation/{field}", detail=detail, code="unsuitable", suggestion=off)
        for field, off in _OFF.items()
        if field in sent and getattr(spec.augmentation, field)
    ]


def _adapt(spec: ClassifierSpec, document: Mapping[str, Any], shape: Shape) -> ClassifierSpec:
    if "max_shift" not in object_of(document, "augmentation"):
        shift = max(0, min(spec.augmentation.max_shift, min(shape.rows, shape.columns) - 1))
        spec = with_values(spec, augmentation=with_values(spec.augmentation, max_shift=shift))
    return with_values(spec, layers=adapt_layers(spec, document, shape, shape.classes))


SPECS: Final = SpecsOfKind[ClassifierSpec](
    model=ClassifierSpec,
    presets=presets.PRESETS,
    preset_info=presets.INFO,
    networks=networks,
    faults=_faults,
    table_faults=_table_faults,
    adapt=_adapt,
    diagnosis=DIAGNOSIS,
)
