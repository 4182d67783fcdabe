"""Presets for data of other shapes than the digits that they were made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from service.contract.architecture import Shape
from service.contract.spec import MAX_UNITS, ClassifierSpec, Dense, GanSpec, Layer, Spec


def suit(spec: Spec, document: dict[str, Any], shape: Shape) -> Spec:
    """The spec for data of this shape: a preset's last layer gets as many units as the data asks for.

    Presets are written for MNIST. Layers that ``document``, as it was sent, names itself stay as they are.
    """
    match spec:
        case ClassifierSpec():
            if "layers" in document:
                return spec
            return spec.model_copy(update={"layers": _ending_in(shape.classes, spec.layers)})
        case GanSpec():
            made = document.get("generator")
            if isinstance(made, dict) and "layers" in made:
                return spec
            layers = _ending_in(shape.pixels, spec.generator.layers)
            return spec.model_copy(update={"generator": spec.generator.model_copy(update={"layers": layers})})
        case _:
            assert_never(spec)


def _ending_in(units: int, layers: Sequence[Layer]) -> list[Layer]:
    last = layers[-1]
    if not isinstance(last, Dense) or not 1 <= units <= MAX_UNITS:
        return list(layers)
    return [*layers[:-1], last.model_copy(update={"units": units})]
